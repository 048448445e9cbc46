"""What one unit of the pass gives, as bytes for the worker who merges: npz without pickle, the same bytes for the same.

Statistics, and which file of the sparse-code cache holds the unit's codes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.errors import DamagedError
from kubesae.experiment import canonical_json, parse_json_object, validate
from kubesae.features import CodesFile
from kubesae.interpret.kept import Kept, by_hash, by_value
from kubesae.interpret.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Mapping

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
                kept: Kept = getattr(statistics, name)
                cell_N, value_N, row_N = _entries(file, name, len(kept.row_CK))
                order_N = by_value(value_N) if name == "top" else by_hash(row_N)
                kept.add(cell_N.astype(np.int64), order_N, value_N, row_N)
    except Exception as error:  # for damaged bytes numpy and zipfile raise a dozen kinds, none a fault of ours
        raise DamagedError(f"{where} does not hold statistics: {error!r}. Delete it and interpret again.") from error
    return statistics, codes


def _entries(
    file: Mapping[str, npt.NDArray[Any]], name: str, cells: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return cell, value and row of entries; ValueError where they are none of so many cells: kernels do not look."""
    cell_N, value_N, row_N = (file[f"{name}_{column}"] for column in ("cell", "value", "row"))
    if (kinds := [str(one.dtype) for one in (cell_N, value_N, row_N)]) != ["int32", "float32", "int64"]:
        raise ValueError(f"{name} of {', '.join(kinds)}")
    if not cell_N.shape == value_N.shape == row_N.shape == (cell_N.size,):
        raise ValueError(f"{name} {cell_N.shape}, {value_N.shape} and {row_N.shape}")
    if cell_N.min(initial=0) < 0 or cell_N.max(initial=0) >= cells:
        raise ValueError(f"{name} {cell_N.min()} to {cell_N.max()} of {cells}")
    return cell_N, value_N, row_N
