"""The sparse-code cache: which features are active on which rows, and how much. An eighth of the activations or less.

    interpret/<sae>/codes/unit-000012.<sha12>.safetensors    the codes of a run of rows

A file is ordered by feature, then by row, so that everything about one feature lies together: `offsets` (int64 [F + 1]:
where the entries of each feature begin), `rows` (uint32 [N], counted from the file's first row), `values` (float32 [N],
the very activations), `kept` (uint8, bit i of byte i // 8: row i was not flagged). 8 bytes an entry: 256 a token at
k = 32, where the activations of 4,096 dimensions take 8,192.

F = features, R = rows, N = entries, E = windows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kubesae.errors import DamagedError
from kubesae.experiment import Section, sha256_hex
from kubesae.parallel import READERS, in_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.store import Store

# Entries are put in the order of the file in lots of so many: they stay in a CPU's cache while they are sorted.
_LOT = 1 << 20


class CodesFile(Section):
    """One file of the cache."""

    key: str = Field(description="its key")
    first_row: int = Field(description="global row of the first one")
    rows: int = Field(description="rows, flagged ones included")
    entries: int = Field(description="pairs of a row and a feature that is active on it")
    sha256: str = Field(description="SHA-256 of the file")


@dataclass(frozen=True, slots=True)
class Codes:
    """Codes of consecutive rows, by feature and row.

    Attributes:
        first_row: global row of the first one.
        kept_R: bool [R], rows that were not flagged.
        offset_F: int64 [F + 1], where the entries of each feature begin.
        row_N: uint32 [N] (of files) or int64, row of each entry, counted from `first_row`; ascending within a feature.
        value_N: float32 [N], its activation, above 0.

    """

    first_row: int
    kept_R: npt.NDArray[np.bool_]
    offset_F: npt.NDArray[np.int64]
    row_N: npt.NDArray[np.uint32] | npt.NDArray[np.int64]
    value_N: npt.NDArray[np.float32]

    @property
    def features(self) -> int:
        """Features of the SAE."""
        return len(self.offset_F) - 1

    def of(self, feature: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the global rows on which a feature is active, ascending, and its activations."""
        here = slice(self.offset_F[feature], self.offset_F[feature + 1])
        return self.first_row + self.row_N[here].astype(np.int64), self.value_N[here]

    def features_N(self) -> npt.NDArray[np.int32]:
        """Return the feature of each entry."""
        return np.repeat(np.arange(self.features, dtype=np.int32), np.diff(self.offset_F))

    def windows(
        self, feature_E: npt.NDArray[np.int64], begin_E: npt.NDArray[np.int64], end_E: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Return activations over windows of rows, one after the other; 0 where the feature is not active.

        Args:
            feature_E: the feature of each window.
            begin_E: its first global row.
            end_E: the one after its last, not before `begin_E`; all rows lie in these codes.

        """
        first_E, after_E = self.offset_F[feature_E], self.offset_F[feature_E + 1]
        low_E = _lower_bound(self.row_N, first_E, after_E, begin_E - self.first_row)
        high_E = _lower_bound(self.row_N, low_E, after_E, end_E - self.first_row)
        width_E, found_E = end_E - begin_E, high_E - low_E
        start_E = np.cumsum(width_E) - width_E
        values = np.zeros(int(width_E.sum()), np.float32)
        entry = np.arange(int(found_E.sum())) + np.repeat(low_E - (np.cumsum(found_E) - found_E), found_E)
        row = self.first_row + self.row_N[entry].astype(np.int64)
        values[row + np.repeat(start_E - begin_E, found_E)] = self.value_N[entry]
        return values

    def to_bytes(self) -> bytes:
        """Return the file."""
        return save(
            {
                "offsets": self.offset_F,
                "rows": self.row_N,
                "values": self.value_N,
                "kept": np.packbits(self.kept_R, bitorder="little"),
            }
        )


@dataclass
class CodesBuilder:
    """Collects the codes of consecutive rows, in any order of features; 8 bytes an entry, twice while it ends."""

    first_row: int
    rows: int
    features: int
    kept_R: npt.NDArray[np.bool_] = field(init=False)
    _lots: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.float32]]] = field(
        default_factory=list
    )
    _waiting: list[tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32], npt.NDArray[np.float32]]] = field(
        default_factory=list
    )

    def __post_init__(self) -> None:
        """No row is kept yet."""
        self.kept_R = np.zeros(self.rows, np.bool_)

    def add(
        self,
        kept_N: npt.NDArray[np.int64],
        row_N: npt.NDArray[np.int64],
        feature_N: npt.NDArray[np.int64],
        value_N: npt.NDArray[np.float32],
    ) -> None:
        """Add rows; calls come in the order of rows, and so do the entries of a feature in one of them.

        Args:
            kept_N: global rows that are not flagged.
            row_N: global row of each entry.
            feature_N: its feature.
            value_N: its activation; entries that are not above 0 are left out.

        """
        self.kept_R[kept_N - self.first_row] = True
        active = value_N > 0
        row_N = row_N[active] - self.first_row
        self._waiting.append((row_N.astype(np.uint32), feature_N[active].astype(np.int32), value_N[active]))
        if sum(len(part[0]) for part in self._waiting) >= _LOT:
            self._settle()

    def finish(self) -> Codes:
        """Return the codes of all rows that were added."""
        self._settle()
        count_F = sum((np.diff(offset_F) for offset_F, _, _ in self._lots), np.zeros(self.features, np.int64))
        offset_F = np.concatenate([[0], np.cumsum(count_F)])
        row_N, value_N = np.empty(offset_F[-1], np.uint32), np.empty(offset_F[-1], np.float32)
        next_F = offset_F[:-1].copy()
        while self._lots:
            own_F, row, value = self._lots.pop(0)
            place = np.arange(len(row)) + np.repeat(next_F - own_F[:-1], np.diff(own_F))
            row_N[place], value_N[place] = row, value
            next_F += np.diff(own_F)
        return Codes(self.first_row, self.kept_R, offset_F, row_N, value_N)

    def _settle(self) -> None:
        """Order what is waiting by feature; it is by row already, which a stable sort keeps."""
        if not self._waiting:
            return
        row, feature, value = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting.clear()
        order = stable_order(feature)
        count_F = np.bincount(feature, minlength=self.features)
        self._lots.append((np.concatenate([[0], np.cumsum(count_F)]), row[order], value[order]))


def stable_order(feature_N: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Order by feature, kept otherwise. numpy sorts 16 bits by counting, which is several times as fast as 32."""
    order: npt.NDArray[np.int64] = np.argsort(feature_N.astype(np.uint16), kind="stable")  # the lower 16 bits
    if len(feature_N) and feature_N.max() >= 1 << 16:
        order = order[np.argsort((feature_N[order] >> 16).astype(np.uint16), kind="stable")]
    return order


def _lower_bound(
    row_N: npt.NDArray[np.uint32] | npt.NDArray[np.int64],
    low_E: npt.NDArray[np.int64],
    high_E: npt.NDArray[np.int64],
    target_E: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """First entry of each stretch [low, high), whose rows ascend, at or above its target; `high`: there is none."""
    low_E, high_E = low_E.copy(), high_E.copy()
    while len(open_E := np.flatnonzero(low_E < high_E)):
        middle = (low_E[open_E] + high_E[open_E]) // 2
        before = row_N[middle] < target_E[open_E]
        low_E[open_E[before]] = middle[before] + 1
        high_E[open_E[~before]] = middle[~before]
    return low_E


def codes_from_bytes(data: bytes, file: CodesFile, features: int, where: str) -> Codes:
    """Read a file of the cache. Raises DamagedError, naming `where`, when it is not the one that is meant."""
    if sha256_hex(data) != file.sha256:
        raise DamagedError(f"{where} is not what was written there: its SHA-256 differs. {_AGAIN}")
    try:
        arrays = load(data)
        kept_R = np.unpackbits(arrays["kept"], count=file.rows, bitorder="little").astype(np.bool_)
        codes = Codes(file.first_row, kept_R, arrays["offsets"], arrays["rows"], arrays["values"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedError(f"{where} does not hold codes: {error!r}. {_AGAIN}") from error
    if codes.features != features or len(codes.row_N) != file.entries:
        raise DamagedError(f"{where} holds codes of {codes.features} features, not of {features}. {_AGAIN}")
    return codes


_AGAIN = "Delete the interpretation and interpret again."


@dataclass(frozen=True, slots=True)
class CodeCache:
    """The codes of all rows, read from the store file by file.

    for codes in cache.files():
        rows, activations = codes.of(12845)
    """

    store: Store
    listed: Sequence[CodesFile]
    features: int

    def files(self) -> Iterator[Codes]:
        """Yield the codes of each file, in row order, while the next one is read: two are in memory.

        Raises:
            DamagedError: a file is not what was written.
            MissingError: a file is not there.

        """
        return in_order(self.read, self.listed, 1, ahead=1)

    def read(self, file: CodesFile) -> Codes:
        """Return the codes of one file. Raises as `files`."""
        return codes_from_bytes(self.store.read(file.key), file, self.features, self.store.url_of(file.key))

    def of(self, feature: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return all global rows on which a feature is active, ascending, and its activations, by ranged reads."""
        parts = [codes.of(0) for codes in self.between(feature, feature + 1)]
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([values for _, values in parts])

    def between(self, first: int, after: int) -> Iterator[Codes]:
        """Yield the codes of features `first` to `after` - 1 alone, which count from 0 there.

        By ranged reads, of several files at a time. Which rows were kept is not read: `kept_R` is empty. Raises as
        `files`, but digests are not compared.
        """
        return in_order(lambda file: self._part(file, first, after), self.listed, READERS)

    def _part(self, file: CodesFile, first: int, after: int) -> Codes:
        where = self.store.url_of(file.key)
        try:
            length = int.from_bytes(self.store.read(file.key, 0, 8), "little")
            header = json.loads(self.store.read(file.key, 8, 8 + length))

            def part(name: str, begin: int, end: int, kind: str) -> npt.NDArray[np.generic]:
                start, width = 8 + length + header[name]["data_offsets"][0], np.dtype(kind).itemsize
                data = self.store.read(file.key, start + begin * width, start + end * width)
                found = np.frombuffer(data, kind)
                if len(found) != end - begin:
                    raise ValueError(f"{name} ends early")
                return found

            offset_F = part("offsets", first, after + 1, "<i8").astype(np.int64)
            low, high = int(offset_F[0]), int(offset_F[-1])
            rows, values = np.zeros(0, np.uint32), np.zeros(0, np.float32)
            if low < high:
                rows = part("rows", low, high, "<u4").astype(np.uint32)
                values = part("values", low, high, "<f4").astype(np.float32)
        except (ValueError, KeyError, IndexError) as error:
            raise DamagedError(f"{where} does not hold codes: {error!r}. {_AGAIN}") from error
        return Codes(file.first_row, np.zeros(0, np.bool_), offset_F - low, rows, values)
