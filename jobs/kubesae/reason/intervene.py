"""What an edit of one feature does to answers and to the loss, beside edits that should do nothing of the kind.

Controls have the edit's very lengths on the very tokens, in other directions: random ones, decoder rows of other
features, and the feature's own turned round. Shares of right answers have Wilson's interval; changes of the
cross-entropy have a bootstrap's, seeded. Results are kept variant by variant in `interventions.json`: killed and
started again, what is there is not done again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kubesae.errors import ConfigError, MissingError
from kubesae.experiment import canonical_json, parse_json_object, sha256_hex
from kubesae.ledger import keys
from kubesae.reason.edit import Edit, Editor
from kubesae.reason.problems import Problem, Prompts
from kubesae.reason.report import wilson
from kubesae.reason.run import Asked, Bench, make_traces, sampling_of, taken_problems
from kubesae.reason.scoring import is_right
from kubesae.reason.texts import drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from kubesae.reason.live import LiveModel
    from kubesae.reason.traces import Traces

    Floats = npt.NDArray[np.float64]

FORMAT = 1
RESAMPLES = 1000
UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Variant:
    """One way to run the model: `direction_D` is added in place of the feature's decoder row; None: that row itself."""

    name: str
    direction_D: Tensor | None = None


def check_feature(bench: Bench, edit: Edit) -> None:
    """Raise ConfigError where the SAE has no such feature."""
    features = bench.sae.config.d_sae
    if edit.feature >= features:
        raise ConfigError(
            f"SAE {bench.named.name} has no feature {edit.feature}: its features are 0 to {features - 1}. "
            "Choose one with --feature."
        )


def variants_of(bench: Bench, edit: Edit, others: Sequence[int], controls: int, seed: int) -> list[Variant]:
    """Return the edit, and its controls: turned round, then `controls` random directions and others' decoder rows."""
    W_dec_FD = bench.sae.weights.W_dec_FD
    draw = drawn("controls", edit.feature, seed)
    found = [Variant("edited"), Variant("turned round", -W_dec_FD[edit.feature])]
    for number in range(controls):
        direction = draw.standard_normal(W_dec_FD.shape[1]).astype(np.float32)
        found.append(Variant(f"random direction {number + 1}", torch.from_numpy(direction).to(W_dec_FD.device)))
    pool = [feature for feature in sorted(set(others)) if feature != edit.feature]
    chosen: list[int] = draw.choice(pool, min(controls, len(pool)), replace=False).tolist() if pool else []
    return [*found, *(Variant(f"feature {feature} in its place", W_dec_FD[feature]) for feature in chosen)]


def intervene_on_text(bench: Bench, text: str, edit: Edit, controls: int, seed: int) -> dict[str, Any]:
    """Return what an edit does to the loss of a text; its intervals are over tokens. Nothing is stored.

    Raises:
        ConfigError: the SAE has no such feature.

    """
    check_feature(bench, edit)
    result = _result(edit, controls, seed)
    live = bench.live()
    if live is None:
        return result | {"missing": bench.no_live}
    ids_T = Prompts(bench.tokenizer, "").plain(text)
    if len(ids_T) < 2:
        return result | {"missing": "a text of one token has no next one to predict"}
    (found,) = bench.reader().read([ids_T])
    clean = live.losses(ids_T, 1)
    result["variants"].append(_row(UNCHANGED, None, clean, clean, seed))
    for variant in variants_of(bench, edit, found.feature_N.tolist(), controls, seed):
        editor = Editor(edit, bench.sae, bench.special.tolist(), variant.direction_D)
        result["variants"].append(_row(variant.name, None, live.losses(ids_T, 1, editor), clean, seed))
    return result | {"complete": True}


def intervene(
    bench: Bench, asked: Asked, edit: Edit, controls: int, say: Callable[[str], None] = lambda _line: None
) -> dict[str, Any]:
    """Return what an edit does to answers, and to the loss of the solutions in the file, and store it.

    Raises:
        ConfigError: the SAE has no such feature, or other workers have not solved their problems.

    """
    check_feature(bench, edit)
    problems, sha256 = taken_problems(asked)
    prompts = Prompts(bench.tokenizer, asked.instruction)
    traces = make_traces(bench, prompts, problems, asked, sha256)
    if traces is None:
        raise ConfigError("Other workers have not solved their problems. Wait for them, then intervene.")
    # The whole of traces.json, not the table alone: the same tokens may come of other SAEs, limits and solutions.
    result = _result(edit, controls, asked.seed) | {"traces_sha256": sha256_hex(traces.info.to_json())}
    stored = _stored(bench, asked, result)
    if stored is not None and (stored["complete"] or stored["missing"]) and not (stored["missing"] and bench.live()):
        return stored
    live = bench.live()
    if live is None:
        result["missing"] = bench.no_live
        _store(bench, asked, result)
        return result
    result = result if stored is None else stored | {"missing": ""}
    _run(bench, live, asked, edit, prompts, problems, traces, result, say)
    return result


def _run(
    bench: Bench,
    live: LiveModel,
    asked: Asked,
    edit: Edit,
    prompts: Prompts,
    problems: Sequence[Problem],
    traces: Traces,
    result: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Run the variants that are not in `result` yet, and store it after each."""
    others = next(iter(traces.cache(bench.output).files())).features_N().tolist() if traces.info.rows else []
    variants = [Variant(UNCHANGED), *variants_of(bench, edit, others, result["controls"], asked.seed)]
    clean = _losses(live, prompts, problems, asked.most, None)
    done = {one["name"] for one in result["variants"]}
    for variant in variants:
        if variant.name in done:
            continue
        if variant.name == UNCHANGED:
            right = [one for one in traces.table["correct"].to_pylist() if one is not None]
            result["variants"].append(_row(UNCHANGED, right, clean, clean, asked.seed))
        else:
            say(f"Solving the problems {variant.name}")
            editor = Editor(edit, bench.sae, bench.special.tolist(), variant.direction_D)
            losses = _losses(live, prompts, problems, asked.most, editor)
            right = _answers(bench, live, asked, prompts, problems, editor)
            result["variants"].append(_row(variant.name, right, losses, clean, asked.seed))
        result["complete"] = variant is variants[-1]
        _store(bench, asked, result)


def _answers(
    bench: Bench, live: LiveModel, asked: Asked, prompts: Prompts, problems: Sequence[Problem], editor: Editor
) -> list[bool]:
    """Return whether each answer is right that has a right one, in the batches of the unchanged run."""
    sampling, right = sampling_of(bench, asked), []
    for at in range(0, len(problems), asked.batch):
        batch = problems[at : at + asked.batch]
        ids = [prompts.ids(problem.text, f"problem {problem.name}") for problem in batch]
        answers = live.generate(ids, range(at, at + len(batch)), sampling, editor)
        for problem, answer in zip(batch, answers, strict=True):
            if problem.answer is not None:
                right.append(is_right(bench.tokenizer.text(prompts.own(answer.ids_T)), problem.answer))
    return right


def _losses(live: LiveModel, prompts: Prompts, problems: Sequence[Problem], most: int, editor: Editor | None) -> Floats:
    """Return the mean cross-entropy of each problem's solution, as far as `most` tokens, behind its prompt."""
    found = []
    for problem in problems:
        solution = prompts.encode(f" {problem.solution}" if problem.solution else "")[:most]
        if len(solution):
            prompt = prompts.ids(problem.text, f"problem {problem.name}")
            found.append(live.losses(np.concatenate([prompt, solution]), max(len(prompt), 1), editor).mean())
    return np.array(found)


def _result(edit: Edit, controls: int, seed: int) -> dict[str, Any]:
    return {
        "edit": asdict(edit),
        "controls": controls,
        "seed": seed,
        "missing": "",
        "complete": False,
        "variants": [],
    }


def _row(name: str, right: list[bool] | None, losses_S: Floats, clean_S: Floats, seed: int) -> dict[str, Any]:
    """Return a variant's outcome; fields of what could not be measured are null."""
    some, scored = len(losses_S) > 0, right or None
    change_S = losses_S - clean_S
    return {
        "name": name,
        "correct": None if scored is None else sum(scored),
        "scored": None if scored is None else len(scored),
        "accuracy": None if scored is None else sum(scored) / len(scored),
        "accuracy_interval": None if scored is None else wilson(sum(scored), len(scored)),
        "cross_entropy": float(losses_S.mean()) if some else None,
        "change": float(change_S.mean()) if some else None,
        "change_interval": bootstrap(change_S, seed) if some else None,
    }


def bootstrap(value_S: Floats, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean: percentiles of the means of seeded resamples (Efron, 1979)."""
    draw = np.random.default_rng(seed)
    means = [value_S[draw.integers(0, len(value_S), len(value_S))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in ("edit", "controls", "seed", "traces_sha256"))


def _read(bench: Bench, asked: Asked) -> list[dict[str, Any]]:
    key = keys.reasoning(bench.named.name, asked.name, "interventions.json")
    try:
        document = parse_json_object(bench.output.read(key), bench.output.url_of(key))
    except MissingError:
        return []
    found: list[dict[str, Any]] = document["interventions"] if document.get("format") == FORMAT else []
    return found


def _stored(bench: Bench, asked: Asked, result: dict[str, Any]) -> dict[str, Any] | None:
    return next((one for one in _read(bench, asked) if _same(one, result)), None)


def _store(bench: Bench, asked: Asked, result: dict[str, Any]) -> None:
    """Put a result among those of the same traces, in an order of its own."""
    kept = [
        one
        for one in _read(bench, asked)
        if not _same(one, result) and one.get("traces_sha256") == result["traces_sha256"]
    ]
    listed = sorted([*kept, result], key=lambda one: canonical_json(one["edit"]))
    key = keys.reasoning(bench.named.name, asked.name, "interventions.json")
    bench.output.put(key, canonical_json({"format": FORMAT, "interventions": listed}))
