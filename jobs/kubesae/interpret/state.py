"""What one unit of the pass gives, as bytes for the worker who merges: npz without pickle, the same bytes for the same.

Statistics, and which file of the sparse-code cache holds the unit's codes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from kubesae.errors import DamagedError
from kubesae.experiment import canonical_json, parse_json_object, validate
from kubesae.features import CodesFile
from kubesae.interpret.kept import by_hash, by_value
from kubesae.interpret.statistics import Statistics

if TYPE_CHECKING:
    import numpy.typing as npt

_KEPT = ("top", "sample", "strata")


def to_bytes(statistics: Statistics, codes: CodesFile) -> bytes:
    """Return the file; only rows that are there take space, 16 bytes each."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "rows": np.array([statistics.rows, statistics.flagged], np.int64),
        "codes": np.frombuffer(canonical_json(codes.model_dump(mode="json")), np.uint8),
        "sums": statistics.sums.words_WF,
        "squares": statistics.squares.words_WF,
        "histogram": statistics.histogram_FB,
    }
    for name in _KEPT:
        cell_N, _, value_N, row_N = getattr(statistics, name).entries()
        arrays |= {f"{name}_cell": cell_N.astype(np.int32), f"{name}_value": value_N, f"{name}_row": row_N}
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def from_bytes(data: bytes, features: int, top_k: int, samples: int, where: str) -> tuple[Statistics, CodesFile]:
    """Read what `to_bytes` wrote. Raises DamagedError, naming `where`, when it is not that, or of other sizes."""
    statistics = Statistics.zero(features, top_k, samples)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            statistics.rows, statistics.flagged = file["rows"].tolist()
            codes = validate(CodesFile, parse_json_object(file["codes"].tobytes(), where), where)
            for into, name in (
                (statistics.sums.words_WF, "sums"),
                (statistics.squares.words_WF, "squares"),
                (statistics.histogram_FB, "histogram"),
            ):
                if (found := file[name]).shape != into.shape:
                    raise ValueError(f"{name} {list(found.shape)}")
                np.copyto(into, found, casting="no")
            for name in _KEPT:
                cell_N, value_N, row_N = (file[f"{name}_{column}"] for column in ("cell", "value", "row"))
                order_N = by_value(value_N) if name == "top" else by_hash(row_N)
                getattr(statistics, name).add(cell_N.astype(np.int64), order_N, value_N, row_N)
    except Exception as error:  # for damaged bytes numpy and zipfile raise a dozen kinds, none a fault of ours
        raise DamagedError(f"{where} does not hold statistics: {error!r}. Delete it and interpret again.") from error
    return statistics, codes
