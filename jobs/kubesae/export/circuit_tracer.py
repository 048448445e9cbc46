"""Features for circuit-tracer's viewer (PyPI: circuit-tracer 0.5.0), which reads them one by one by range.

    features/index.json.gz           {"12": {"filename": "layer-12.bin", "offsets": [0, 5123, ...]}}
    features/layer-12.bin            of each feature 4 bytes, how many follow, little-endian, then zlib: its JSON

A feature's JSON has the fields of `circuit_tracer.frontend.feature_models.Model`. `quantile_values` are percentiles 1
to 99 of the activations, within a bin of the histogram taken as evenly spread. The index finds a feature by its place,
so all of them are there: a dead one has no examples.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.export import spread
from kubesae.export.contexts import exact
from kubesae.export.dashboards import Dashboards, compact
from kubesae.export.neuronpedia import gzipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from kubesae.export.contexts import Contexts
    from kubesae.export.subject import Subject
    from kubesae.export.target import Target

_DECILES = 10


def write(subject: Subject, target: Target) -> None:
    """Write all features, through a temporary file."""
    records, offsets = Records(subject), [0]
    name = f"layer-{subject.named.layer}.bin"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name
        with path.open("wb") as file:
            for feature in range(subject.stored.info.features):
                data = zlib.compress(compact(records.record(feature)))
                file.write(len(data).to_bytes(4, "little") + data)
                offsets.append(file.tell())
        target.put_file(f"features/{name}", path)
    index = {str(subject.named.layer): {"filename": name, "offsets": offsets}}
    target.put("features/index.json.gz", gzipped(compact(index)))


def loading(url: str) -> str:
    """Return how it is opened."""
    return f'features = "{url}/features"  # what the viewer fetches as <scan>/features'


class Records:
    """Makes the JSON of any feature."""

    def __init__(self, subject: Subject) -> None:
        """Read what they are made of."""
        self._made, self._subject = Dashboards.of(subject), subject
        samples = subject.stored.samples
        random_E = samples["kind"].to_numpy(zero_copy_only=False) == "random"
        self._group_E = np.where(random_E, -1, samples["decile"].to_numpy())

    def record(self, feature: int) -> dict[str, Any]:
        """Return a feature's JSON."""
        numbers = self._subject.stored.statistics.slice(feature, 1).to_pylist()[0]
        most = exact([numbers["max"]])[0]
        return {
            "transcoder_id": self._subject.named.name,
            "index": feature,
            "examples_quantiles": list(self._quantiles(feature)),
            "top_logits": self._made.logits(feature, "high")[0],
            "bottom_logits": self._made.logits(feature, "low")[0],
            "act_min": 0.0,
            "act_max": most,
            "quantile_values": percentiles(self._made.count_FB[feature], most),
            "histogram": self._made.count_FB[feature].tolist(),
            "activation_frequency": numbers["frequency"],
        }

    def _quantiles(self, feature: int) -> Iterator[dict[str, Any]]:
        """Yield the largest activations, some of each decile from the largest on, and random ones."""
        shown: set[int] = set()
        yield self._quantile("Top activations", self._made.examples, self._made.examples.rows_of(feature), shown)
        rows = np.array(self._made.samples.rows_of(feature), np.int64)
        for group in [*reversed(range(_DECILES)), -1]:
            name = f"Decile {group + 1}" if group >= 0 else "Random"
            yield self._quantile(name, self._made.samples, rows[self._group_E[rows] == group].tolist(), shown)

    def _quantile(self, name: str, contexts: Contexts, numbers: range | list[int], shown: set[int]) -> dict[str, Any]:
        examples = []
        for one in (contexts.context(number, self._made.texts) for number in numbers):
            examples.append(
                {
                    "tokens_acts_list": one.values,
                    "train_token_ind": one.at,
                    "is_repeated_datapoint": one.row in shown,
                    "tokens": one.tokens,
                }
            )
            shown.add(one.row)
        return {"quantile_name": name, "examples": examples}


def percentiles(count_B: npt.NDArray[np.int64], most: float) -> list[float]:
    """Return the activations below which 1%, 2%, ... 99% of a feature's activations are; of none: []."""
    if not count_B.any():
        return []
    below = np.concatenate([[0], np.cumsum(count_B)])
    at = np.interp(np.arange(1, 100) / 100 * below[-1], below, np.linspace(0, most, spread.BINS + 1))
    return [float(f"{value:.6g}") for value in at.tolist()]
