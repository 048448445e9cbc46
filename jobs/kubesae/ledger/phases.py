"""The phases of an experiment, their order, and what in the store shows that one has nothing left to do.

    phase_complete("verify", data, output, experiment)

The operator, `kubesae release` and `kubesae monitor` all ask here, so that they never differ about where a run stands.
A Job that succeeded proves nothing: what counts is what lies in the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from kubesae.ledger import keys
from kubesae.ledger.plan import Plan
from kubesae.ledger.progress import contiguous, read_identity, record_list
from kubesae.ledger.reports import gate_is_open

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubesae.experiment import DataIdentity, Experiment, Sae
    from kubesae.store import Store

Phase = Literal["fetch", "prepare", "pilot", "collect", "verify", "train", "interpret"]
PHASES: tuple[Phase, ...] = get_args(Phase)


def phase_complete(phase: Phase, data: Store, output: Store, experiment: Experiment) -> bool:
    """Whether the store shows that `phase` of `experiment` has nothing left to do.

    Never so for `fetch`: the model may lie on a volume, which no store tells of. Its Job has to say it.

    Raises:
        DamagedError: the identity or a report is damaged.

    """
    if phase in {"fetch", "prepare"}:
        return phase == "prepare" and is_prepared(data)
    identity = read_identity(data)
    if identity is None:
        return False
    plan, pilot_tokens = Plan.of(identity), experiment.pilot.tokens
    if phase == "collect":
        return is_collected(plan, record_list(data))
    if phase == "pilot":
        return gate_is_open(data, plan, identity.sha256, "pilot", pilot_tokens, "full")
    if phase == "verify":
        return gate_is_open(data, plan, identity.sha256, "all", pilot_tokens, experiment.verify.mode)
    done = is_trained if phase == "train" else is_interpreted
    return all(done(output, name) for name in sae_names(experiment, identity))


def is_prepared(data: Store) -> bool:
    """Whether the tokens are packed: their manifest is written last."""
    return data.exists(keys.TOKENS_MANIFEST)


def is_collected(plan: Plan, record_keys: Iterable[str]) -> bool:
    """Whether every part of the plan is among the records with these keys."""
    parts: dict[int, set[int]] = {}
    for key in record_keys:
        place = keys.parse_record(key)
        if place:
            parts.setdefault(place[0], set()).add(place[1])
    return all(contiguous(parts.get(shard, ())) >= plan.parts(shard) for shard in range(plan.num_shards))


def is_trained(output: Store, name: str) -> bool:
    """Whether the training of an SAE has ended: its report is written last, when all epochs are done."""
    return output.exists(keys.report(name))


def is_interpreted(output: Store, name: str) -> bool:
    """Whether an SAE is interpreted: its page is written last."""
    return output.exists(keys.page(name))


def sae_name(settings: Sae, layers: Iterable[int], d_model: int) -> str:
    """Return the name of the SAE that `settings` describe for data of these layers and this width."""
    layer = next(iter(layers)) if settings.layer is None else settings.layer
    d_sae = settings.d_sae or settings.expansion * d_model
    return settings.name or f"layer-{layer:03d}-{settings.architecture}-{d_sae}"


def sae_names(experiment: Experiment, identity: DataIdentity) -> list[str]:
    """Return the names of the experiment's SAEs over data of this identity, in the order of the experiment."""
    return [sae_name(settings, identity.layers, identity.d_model) for settings in experiment.sae]
