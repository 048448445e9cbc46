"""SAEDashboard's output for Neuronpedia (PyPI: sae-dashboard 0.8.0), as its `NeuronpediaDashboardBatch` takes it.

    batch-<i>.json          128 features: model_id, layer, sae_set, sae_id_suffix, features
    skipped_indexes.json    features that are in no batch, because they are never active
    run_settings.json       the fields of its `NeuronpediaRunnerConfig`

Of a feature: tokens that it writes, how its activations are spread over 50 bins, and rows: its largest activations
(bin_min and bin_contains -1, as SAEDashboard marks these), then random ones by interval of equal width, the highest
first; bin_contains is the share of rows with an activation in the interval, those with none in the lowest. Bins and
intervals begin at 0, where SAEDashboard's bins begin at the smallest activation. Empty, because an interpretation does
not have it: correlations with neurons and with features, the histogram of all logits, weights by head.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kubesae.export import spread
from kubesae.export.contexts import ShownRows, exact, token_texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from kubesae.export.contexts import Context
    from kubesae.export.subject import Subject
    from kubesae.export.target import Target

BATCH = 128
PER_INTERVAL = 5
_ALIGNED = 3
_LOGITS = 10


def write(subject: Subject, target: Target) -> None:
    """Write all batches."""
    for number, features in batches(subject):
        batch = {
            "model_id": subject.model_id,
            "layer": subject.named.layer,
            "sae_set": subject.named.name,
            "sae_id_suffix": None,
            "features": features,
        }
        target.put(f"batch-{number}.json", compact(batch))
    active = set(subject.active.tolist())
    skipped = {
        "model_id": subject.model_id,
        "layer": str(subject.named.layer),
        "sae_set": subject.named.name,
        "log_sparsity": None,
        "skipped_indexes": [feature for feature in subject.features.tolist() if feature not in active],
    }
    target.put("skipped_indexes.json", compact(skipped))
    target.put("run_settings.json", compact(_settings(subject)))


def loading(url: str) -> str:
    """Return the line that opens it."""
    return (
        "import json; from sae_dashboard.neuronpedia.neuronpedia_dashboard import NeuronpediaDashboardBatch; "
        f'batch = NeuronpediaDashboardBatch(**json.load(open("{url}/batch-0.json")))'
    )


def compact(value: object) -> bytes:
    """Return JSON without spaces, its fields in the order that they have, text as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def batches(subject: Subject) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield the active features in batches, each with its number and each feature as SAEDashboard has it."""
    dashboards = Dashboards.of(subject)
    for number, start in enumerate(range(0, len(subject.active), BATCH)):
        yield number, [dashboards.feature(feature) for feature in subject.active[start : start + BATCH].tolist()]


@dataclass(frozen=True)
class Dashboards:
    """Makes the dashboard of any feature: the tables of the interpretation, in memory."""

    subject: Subject
    examples: ShownRows
    samples: ShownRows
    texts: Mapping[int, str]
    count_FB: npt.NDArray[np.int64]
    W_dec_FD: npt.NDArray[np.float32]

    @classmethod
    def of(cls, subject: Subject) -> Dashboards:
        """Read what dashboards are made of: the sparse codes once, for how activations are spread."""
        stored = subject.stored
        examples, samples = (ShownRows.of(table, stored.info.features) for table in (stored.examples, stored.samples))
        shown = [examples.contexts.token_T, samples.contexts.token_T, *logit_tokens(subject)]
        return cls(
            subject,
            examples,
            samples,
            token_texts(subject.vocabulary, np.unique(np.concatenate(shown)).tolist()),
            spread.count(subject.cache, stored.statistics["max"].to_numpy()),
            subject.named.sae.weights.W_dec_FD.cpu().numpy(),
        )

    def feature(self, feature: int) -> dict[str, Any]:
        """Return the dashboard of a feature that is active."""
        high, low = (self.logits(feature, side) for side in ("high", "low"))
        most = exact([self._number("max", feature)])[0]
        return {
            "feature_index": feature,
            **self._alignment(feature),
            **{f"correlated_neurons_{name}": [] for name in ("indices", "l1", "pearson")},
            **{f"correlated_features_{name}": [] for name in ("indices", "l1", "pearson")},
            "neg_str": low[0],
            "neg_values": low[1],
            "pos_str": high[0],
            "pos_values": high[1],
            "frac_nonzero": self._number("frequency", feature),
            "freq_hist_data_bar_values": spread.centres(most),
            "freq_hist_data_bar_heights": self.count_FB[feature].tolist(),
            "logits_hist_data_bar_heights": [],
            "logits_hist_data_bar_values": [],
            "n_prompts_total": sum(map(self.subject.plan.contexts, range(self.subject.plan.num_shards))),
            "n_tokens_in_prompt": self.subject.plan.context,
            "dataset": self.subject.corpora,
            "decoder_weights_dist": [],
            "activations": list(self._activations(feature, most)),
            "vector": [],
        }

    def _number(self, name: str, feature: int) -> Any:
        return self.subject.stored.statistics[name][feature].as_py()

    def _alignment(self, feature: int) -> dict[str, Any]:
        """Return the dimensions of d_model that the decoder row raises most, with their share of its L1 norm."""
        row_D = self.W_dec_FD[feature]
        top = np.argsort(-row_D, kind="stable")[:_ALIGNED]
        return {
            "neuron_alignment_indices": top.tolist(),
            "neuron_alignment_values": exact(row_D[top]),
            "neuron_alignment_l1": exact(np.abs(row_D[top]) / np.abs(row_D).sum()),
        }

    def logits(self, feature: int, side: str) -> tuple[list[str], list[float]]:
        """Return what a feature raises most (`high`) or lowers most (`low`): texts and by how much."""
        row = logits_of(self.subject, feature)
        if row is None:
            return [], []
        tokens, values = row[f"{side}_tokens"][:_LOGITS], row[f"{side}_values"][:_LOGITS]
        return [self.texts[token] for token in tokens], exact(values)

    def _activations(self, feature: int, most: float) -> Iterator[dict[str, Any]]:
        for number in self.examples.rows_of(feature):
            yield _activation(self.examples.context(number, self.texts), -1.0, most, -1.0)
        edges, shares = spread.interval_edges(most), self._shares(feature)
        sampled: dict[int, Context] = {}
        for number in self.samples.rows_of(feature):
            shown = self.samples.context(number, self.texts)
            sampled.setdefault(shown.row, shown)
        bins = spread.bin_of([shown.activation for shown in sampled.values()], most).tolist()
        for interval in reversed(range(spread.INTERVALS)):
            inside = [
                shown for shown, bin_ in zip(sampled.values(), bins, strict=True) if bin_ // _BINS_EACH == interval
            ]
            for shown in inside[:PER_INTERVAL]:
                yield _activation(shown, edges[interval], edges[interval + 1], shares[interval])

    def _shares(self, feature: int) -> list[float]:
        """Return the share of all unflagged rows whose activation is in each interval; 0 is in the lowest."""
        rows = self.subject.stored.info.rows
        count_I = self.count_FB[feature].reshape(spread.INTERVALS, _BINS_EACH).sum(1)
        count_I[0] += rows - count_I.sum()
        return [float(f"{share:.6g}") for share in (count_I / rows).tolist()]


_BINS_EACH = spread.BINS // spread.INTERVALS


def _activation(shown: Context, low: float, high: float, share: float) -> dict[str, Any]:
    return {
        "bin_min": low,
        "bin_max": high,
        "bin_contains": share,
        "tokens": shown.tokens,
        "values": shown.values,
        "qualifying_token_index": shown.at,
    }


def logit_tokens(subject: Subject) -> list[npt.NDArray[np.int64]]:
    """Return the tokens that features raise or lower most; none where there are no logits."""
    logits: pa.Table | None = None if subject.answers is None else subject.answers.logits
    if logits is None:
        return []
    return [
        logits[name].combine_chunks().flatten().to_numpy().astype(np.int64) for name in ("high_tokens", "low_tokens")
    ]


def logits_of(subject: Subject, feature: int) -> dict[str, Any] | None:
    """Return what a feature writes (`kubesae.features.answers.LOGITS`); None where that is not known."""
    if subject.answers is None or not len(subject.answers.logits):
        return None
    found: dict[str, Any] = subject.answers.logits.slice(feature, 1).to_pylist()[0]
    return found


def _settings(subject: Subject) -> dict[str, Any]:
    """Return the settings that SAEDashboard would have run with, as far as they have a meaning here."""
    source = subject.stored.info.source
    return {
        "sae_set": subject.named.name,
        "sae_path": subject.named.name,
        "outputs_dir": "",
        "from_local_sae": True,
        "huggingface_dataset_path": subject.corpora,
        "n_prompts_total": sum(map(subject.plan.contexts, range(subject.plan.num_shards))),
        "n_tokens_in_prompt": subject.plan.context,
        "n_features_at_a_time": BATCH,
        "n_quantiles": spread.INTERVALS,
        "top_acts_group_size": source.top_k,
        "quantile_group_size": PER_INTERVAL,
        "model_dtype": subject.identity.model_dtype,
        "sae_dtype": "float32",
        "model_id": subject.model_id,
        "layer": subject.named.layer,
        "shuffle_tokens": False,
        "ignore_high_activation_norm_multiple": 10.0,
    }
