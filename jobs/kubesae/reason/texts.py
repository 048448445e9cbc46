"""Which texts are compared: windows of the traces, and windows of the corpus that are as long.

All choices are drawn from hashes of what the data are, so they are the same every time.
Legend: S texts, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubesae.corpus import read_token_range
from kubesae.experiment import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.features import CodesFile
    from kubesae.ledger import Plan
    from kubesae.store import Store

    Ints = npt.NDArray[np.int64]

MOST_FILES = 16
"""files of the corpus's codes that windows are taken from"""
MOST_TEXTS = 2000
"""windows of the corpus, at most"""
_FOR_EACH = 4
"""windows of the corpus for each trace, at most"""


@dataclass(frozen=True, slots=True)
class Windows:
    """Texts as windows of rows: `begin_S` ascending, `end_S` after the last row, `half_S` 0 or 1 (held out)."""

    begin_S: Ints
    end_S: Ints
    half_S: Ints


def drawn(*what: object) -> np.random.Generator:
    """Return a generator that belongs to what is given."""
    return np.random.default_rng(int(sha256_hex(",".join(map(str, what)).encode())[:16], 16))


def trace_windows(first_S: Ints, length_S: Ints, half_S: Ints, most: int) -> Windows:
    """Return a window of each trace: all of it, or `most` rows at a drawn place; empty traces have empty ones."""
    cut_S = np.minimum(length_S, most)
    room_S = length_S - cut_S
    begin_S = first_S + np.array([int(drawn("trace", i).integers(0, room + 1)) for i, room in enumerate(room_S)], int)
    return Windows(begin_S, begin_S + cut_S, half_S)


def corpus_windows(files: Sequence[CodesFile], context: int, lengths: Ints, identity: str) -> Windows:
    """Return windows of the corpus, each in a context of its own, as long as the traces are.

    Args:
        files: of its sparse codes; each begins with a context.
        context: tokens of a context.
        lengths: of the traces, as they are cut; each above 0 and below `context`.
        identity: of the data.

    """
    draw = drawn("corpus", identity)
    chosen = sorted(draw.permutation(len(files))[:MOST_FILES].tolist())
    start_S = np.concatenate(
        [np.zeros(0, int), *(files[i].first_row + np.arange(0, files[i].rows - context + 1, context) for i in chosen)]
    ).astype(np.int64)
    many = min(len(start_S), MOST_TEXTS, _FOR_EACH * len(lengths))
    start_S = np.sort(start_S[draw.permutation(len(start_S))[:many]])
    length_S = lengths[draw.permutation(many) % max(len(lengths), 1)] if many else np.zeros(0, np.int64)
    # not the first token of a context: it is flagged always
    begin_S = start_S + 1 + (draw.random(many) * (context - length_S)).astype(np.int64)
    half_S = draw.permutation(many) % 2
    return Windows(begin_S, begin_S + length_S, half_S.astype(np.int64))


def ordinary_texts(store: Store, plan: Plan, identity: str, many: int, tokens: int) -> list[npt.NDArray[np.uint32]]:
    """Return the beginnings of contexts of the corpus, token ids, drawn; `tokens` of each."""
    draw = drawn("ordinary", identity)
    whole = [plan.quota(shard) // plan.context for shard in range(plan.num_shards)]
    total = sum(whole)
    found = []
    for number in sorted(draw.permutation(total)[:many].tolist()) if total <= 1 << 22 else _sparse(draw, total, many):
        shard = int(np.searchsorted(np.cumsum(whole), number, side="right"))
        start = (number - sum(whole[:shard])) * plan.context
        found.append(read_token_range(store, shard, start, start + min(tokens, plan.context)))
    return found


def _sparse(draw: np.random.Generator, total: int, many: int) -> list[int]:
    """Return different numbers below a total that is too large to be permuted."""
    chosen: set[int] = set()
    while len(chosen) < many:
        chosen.add(int(draw.integers(0, total)))
    return sorted(chosen)
