"""delphi's cache of latents (PyPI: eai-delphi 0.1.3), as its `LatentDataset` opens it, from the sparse codes.

    latents/layers.12/0_4607.safetensors   of latents 0 to 4607: `locations` [n, 3] (row of `tokens`, position in it,
                                           latent less the first one; uint16, or uint32 where one needs it),
                                           `activations` float16 [n], `tokens` [rows, length]
    latents/layers.12/config.json          what delphi's own cache says of itself, and `kubesae`

A row of tokens is a context. delphi looks at windows of 32 tokens that do not reach over rows, so contexts of another
length, and the cut last one of a shard, are filled up with a token that ends texts: nothing is cut off. As in delphi's
own cache activations up to 1e-5 are left out and the others are rounded to float16. Every split has all tokens, 2 or 4
bytes each, because the loader takes them from whichever it opens first (delphi writes 8). A split takes 28 bytes an
entry of memory and at most _ENTRIES entries, unless one latent has more.

R = rows of tokens, N = entries of a split.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from kubesae.corpus import read_token_ids
from kubesae.errors import ConfigError
from kubesae.experiment import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.export.subject import Subject
    from kubesae.export.target import Target
    from kubesae.features import Codes
    from kubesae.ledger import Plan

WINDOW = 32
LEAST = 1e-5
_ENTRIES = 1 << 24


def write(subject: Subject, target: Target) -> None:
    """Write the cache, a split at a time.

    Raises:
        ConfigError: float16 cannot hold the activations.

    """
    statistics = subject.stored.statistics
    _check_range(subject, statistics["max"].to_numpy())
    places = Places.of(subject.plan)
    tokens_RT = _tokens(subject, places)
    folder = f"latents/layers.{subject.named.layer}"
    count_F = np.zeros(subject.stored.info.features, np.int64)
    count_F[subject.features] = statistics["count"].to_numpy()[subject.features]
    edges = split_edges(count_F, _ENTRIES)
    for first, after in pairwise(edges):
        tensors = _split(subject.cache.between(first, after), places, count_F[first:after])
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "split.safetensors"
            save_file(tensors | {"tokens": tokens_RT}, path)
            target.put_file(f"{folder}/{first}_{after - 1}.safetensors", path)
    config = {
        "dataset_repo": subject.corpora,
        "dataset_split": "",
        "dataset_name": "",
        "dataset_column": "text",
        "batch_size": 1,
        "cache_ctx_len": places.length,
        "n_tokens": tokens_RT.size,
        "n_splits": len(edges) - 1,
        "model_name": subject.identity.model,
        "kubesae": subject.provenance() | {"context": subject.plan.context, "filled_with": _filler(subject)},
    }
    target.put(f"{folder}/config.json", canonical_json(config))


def loading(url: str) -> str:
    """Return the line that opens it."""
    return (
        "from delphi.latents import LatentDataset; from delphi.config import ConstructorConfig, SamplerConfig; "
        f'latents = LatentDataset("{url}/latents", SamplerConfig(), ConstructorConfig())'
    )


@dataclass(frozen=True)
class Places:
    """Where global rows lie in a matrix with a row a context, each `length` long."""

    starts: npt.NDArray[np.int64]
    """global row at which each shard begins"""
    first: npt.NDArray[np.int64]
    """row of the matrix at which each shard begins, and after the last one how many there are"""
    context: int
    length: int

    @classmethod
    def of(cls, plan: Plan) -> Places:
        """Return where the rows of this plan lie."""
        shards = range(plan.num_shards)
        starts = np.array([plan.global_row(shard, 0) for shard in shards])
        first = np.concatenate([[0], np.cumsum([plan.contexts(shard) for shard in shards])])
        return cls(starts, first, plan.context, -(-plan.context // WINDOW) * WINDOW)

    def locate(self, row_N: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return row and position of each global row."""
        shard_N = np.searchsorted(self.starts, row_N, side="right") - 1
        context_N, position_N = np.divmod(row_N - self.starts[shard_N], self.context)
        return self.first[shard_N] + context_N, position_N


def split_edges(count_F: npt.NDArray[np.int64], most: int) -> list[int]:
    """Return where splits begin, and the last one ends: each has at most `most` entries, or a single latent."""
    edges, entries = [0], 0
    for latent, count in enumerate(count_F.tolist()):
        if entries + count > most and latent > edges[-1]:
            edges.append(latent)
            entries = 0
        entries += count
    return [*edges, len(count_F)]


def _split(parts: Iterator[Codes], places: Places, count_F: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """Return locations and activations of a split, by latent and row; `count_F`: how many each latent has at most."""
    begin_F = np.cumsum(count_F) - count_F
    wide = max(places.first[-1], places.length, len(count_F)) > 1 << 16
    locations_N3 = np.empty((int(count_F.sum()), 3), np.uint32 if wide else np.uint16)
    value_N = np.zeros(len(locations_N3), np.float16)
    next_F = begin_F.copy()
    for codes in parts:  # in the order of rows
        latent_N = codes.features_N()
        kept_N = np.flatnonzero((codes.value_N > LEAST) & (count_F[latent_N] > 0))
        latent_N, row_N = latent_N[kept_N], codes.first_row + codes.row_N[kept_N].astype(np.int64)
        found_F = np.bincount(latent_N, minlength=len(count_F))
        place_N = np.arange(len(kept_N)) + np.repeat(next_F - (np.cumsum(found_F) - found_F), found_F)
        for column, part_N in enumerate((*places.locate(row_N), latent_N)):
            locations_N3[place_N, column] = part_N
        value_N[place_N] = codes.value_N[kept_N]
        next_F += found_F
    # activations up to LEAST have left places at the ends of their latents
    there_N = np.arange(len(value_N)) < np.repeat(next_F, count_F)
    if not there_N.all():
        locations_N3, value_N = locations_N3[there_N], value_N[there_N]
    return {"locations": locations_N3, "activations": value_N}


def _tokens(subject: Subject, places: Places) -> npt.NDArray[np.unsignedinteger]:
    """Return all tokens, a row a context; filled up where a context is shorter."""
    size = max(subject.manifest.tokenizer.size, _filler(subject) + 1)
    tokens_RT = np.full(
        (places.first[-1], places.length), _filler(subject), np.uint16 if size <= 1 << 16 else np.uint32
    )
    for shard, first in enumerate(places.first[:-1]):
        ids = read_token_ids(subject.data, subject.manifest, shard)
        whole = len(ids) // places.context
        tokens_RT[first : first + whole, : places.context] = ids[: whole * places.context].reshape(whole, -1)
        rest = ids[whole * places.context :]
        if len(rest):
            tokens_RT[first + whole, : len(rest)] = rest
    return tokens_RT


def _filler(subject: Subject) -> int:
    """Return the token that fills up contexts: the one that ends texts, or another special one, else 0."""
    tokenizer = subject.manifest.tokenizer
    known = [token for token in (tokenizer.eos, tokenizer.bos, *tokenizer.special[:1]) if token is not None]
    return known[0] if known else 0


def _check_range(subject: Subject, max_F: npt.NDArray[np.float32]) -> None:
    most = float(np.finfo(np.float16).max)
    over = subject.features[max_F[subject.features] > most]
    if len(over):
        raise ConfigError(
            f"delphi keeps activations in float16, and feature {over[0]} is up to {max_F[over[0]]:.4g}, above "
            f"{most:.0f}. Leave it out with --features, or take --format parquet."
        )
