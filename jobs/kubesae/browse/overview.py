"""What the page says of the whole: run, SAE, data, hashes, numbers, curves, and what is not known and why.

Everything comes from small files that are there or not: a page without an evaluation says that there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.browse.columns import rounded
from kubesae.errors import MissingError
from kubesae.experiment import parse_json_object, sha256_hex
from kubesae.ledger import keys, read_curves, read_identity, read_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.browse.answered import Answered
    from kubesae.corpus import TokensManifest
    from kubesae.experiment import DataIdentity
    from kubesae.features import Stored
    from kubesae.ledger import TrainPoint
    from kubesae.store import Store

FORMAT = 1
"""of all files of the page: what is written in another way needs another number, or old pages stay"""
_POINTS = 400
"""of a curve; more would lie on each other"""
_BARS = 40

NO_ANSWERS = (
    "Labels, logits, neighbours, co-activation and populations: they were not made yet. `kubesae interpret` makes them."
)
NO_EVALUATION = "The loss that the model has with the SAE in place: `kubesae evaluate` measures it."
NO_CURVES = "Learning curves: this SAE was not trained here."


def overview(
    data: Store, output: Store, manifest: TokensManifest, stored: Stored, answered: Answered, made_from: str
) -> dict[str, Any]:
    """Return what `page/overview.json` holds. `made_from`: hash of all that the page was made from."""
    source, answers = stored.info.source, answered.answers
    metadata, evaluation = _metadata(output, source.sae), _evaluation(output, source.sae, source.sae_sha256)
    curves, run, identity = read_curves(output, source.sae), read_run(data), read_identity(data)
    count_F = stored.statistics["count"].to_numpy()
    return {
        "format": FORMAT,
        "made_from": made_from,
        "run": run.name if run else None,
        "sae": source.sae,
        "layer": source.layer,
        "features": stored.info.features,
        "alive": int((count_F > 0).sum()),
        "rows": stored.info.rows,
        "flagged_rows": stored.info.flagged_rows,
        "context": identity.context if identity else manifest.request.context,
        "hashes": list(_hashes(identity, manifest, stored)),
        "numbers": _numbers(stored, metadata, evaluation),
        "settings": _settings(metadata),
        "corpora": [one.model_dump(mode="json") for one in manifest.corpora],
        "curves": {
            "loss": _curve(curves, "loss"),
            "l0": _curve(curves, "l0"),
            "l0_rows": ((evaluation or {}).get("l0_rows") or {}).get("histogram"),
            "density": _density(count_F, stored.info.rows),
        },
        "kinds": _kinds(answered),
        "answers": answers is not None,
        "no_head": answers.info.no_head if answers else "",
        "coactivation_rows": answers.info.coactivation_rows if answers else 0,
        "missing": list(_missing(answered, evaluation, curves)),
    }


def _hashes(identity: DataIdentity | None, manifest: TokensManifest, stored: Stored) -> Iterator[tuple[str, str]]:
    source = stored.info.source
    if identity is not None:
        yield "model", f"{identity.model} ({identity.model_revision})"
    yield "data identity", source.identity
    yield "SAE weights", source.sae_sha256
    yield "tokens manifest", manifest.sha256
    yield "tokenizer", manifest.tokenizer.sha256
    yield "interpretation", sha256_hex(stored.info.to_json())


def _numbers(
    stored: Stored, metadata: dict[str, Any] | None, evaluation: dict[str, Any] | None
) -> dict[str, float | None]:
    """Return the SAE's figures; null where nothing measured them. L0 is that of all rows that were interpreted."""
    metrics, loss = (metadata or {}).get("metrics") or {}, (evaluation or {}).get("cross_entropy") or {}
    l0 = int(stored.statistics["count"].to_numpy().sum()) / max(stored.info.rows, 1)
    return {
        "l0": float(f"{l0:.4g}"),
        "fvu": (evaluation or {}).get("fvu", metrics.get("fvu")),
        "val_loss": metrics.get("val_loss"),
        "ce_recovered": loss.get("recovered_zero"),
        "ce_clean": loss.get("clean"),
        "ce_spliced": loss.get("spliced"),
    }


def _settings(metadata: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return how the SAE is made and was trained: names and values as text."""
    if metadata is None:
        return []
    values = {**(metadata.get("training") or {}), **(metadata.get("config") or {})}
    return [(name, _text(value)) for name, value in sorted(values.items()) if value is not None]


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _curve(curves: dict[str, list[TrainPoint]], name: str) -> dict[str, list[list[float | None]]] | None:
    """Return a learning curve, on training rows and at the ends of epochs on validation rows; None: there is none."""
    if not any(curves.values()):
        return None
    return {
        kind: [[point.step, rounded(getattr(point, name))] for point in _thinned(curves[of])]
        for kind, of in (("train", "step"), ("validation", "epoch"))
    }


def _thinned(points: Sequence[TrainPoint]) -> list[TrainPoint]:
    """Return at most _POINTS of them, evenly, the last one among them."""
    if len(points) <= _POINTS:
        return list(points)
    return [points[i] for i in np.linspace(0, len(points) - 1, _POINTS).round().astype(int).tolist()]


def _density(count_F: Any, rows: int) -> dict[str, list[float]] | None:
    """Return how many features there are by log10 of the share of rows on which they are active; None: none is."""
    active = count_F[count_F > 0]
    if not len(active):
        return None
    counts, edges = np.histogram(np.log10(active / rows), _BARS, (np.floor(np.log10(1 / rows)), 0))
    return {"edges": [round(edge, 4) for edge in edges.tolist()], "counts": counts.tolist()}


def _kinds(answered: Answered) -> list[tuple[str, int]]:
    """Return how many features have a label of each kind, most first."""
    if answered.answers is None:
        return []
    counted = answered.answers.labels["kind"].value_counts().to_pylist()
    found = [(one["values"], one["counts"]) for one in counted]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def _missing(
    answered: Answered, evaluation: dict[str, Any] | None, curves: dict[str, list[TrainPoint]]
) -> Iterator[str]:
    if answered.answers is None:
        yield NO_ANSWERS
    elif answered.answers.info.no_head:
        yield f"Logits: {answered.answers.info.no_head}"
    if evaluation is None:
        yield NO_EVALUATION
    if not any(curves.values()):
        yield NO_CURVES


def _metadata(output: Store, name: str) -> dict[str, Any] | None:
    """Return the metadata of the best checkpoint; None where they are not there."""
    best = _object(output, keys.best(name))
    if best is None or not isinstance(best.get("checkpoint"), str):
        return None
    return _object(output, f"{keys.sae_folder(name)}{best['checkpoint']}/{keys.SAE_METADATA}")


def _evaluation(output: Store, name: str, sae_sha256: str) -> dict[str, Any] | None:
    """Return the evaluation of these weights; None where there is none."""
    found = _object(output, keys.evaluation(name))
    return found if found and found.get("sae_sha256") == sae_sha256 else None


def _object(output: Store, key: str) -> dict[str, Any] | None:
    try:
        return parse_json_object(output.read(key), output.url_of(key))
    except MissingError:
        return None
