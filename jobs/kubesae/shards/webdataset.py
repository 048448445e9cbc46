"""Activations as a `webdataset` pipeline, straight from a store: what other people's training code can start from.

    import kubesae, webdataset as wds
    pipeline = kubesae.open_webdataset("s3://bucket/prefix", layer=12).compose(wds.shuffle(100))

A sample is one block and has the keys and types that `wds.WebDataset(url).decode()` gives for a tar of ours. Blocks are
read one at a time by ranged reads, and checked. `float32_of(sample)` gives the activations, of our samples and of
webdataset's own; of bfloat16 `torch.from_numpy(sample["acts.npy"]).view(torch.bfloat16)` does too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubesae.errors import ConfigError
from kubesae.ledger import require_identity
from kubesae.shards.codecs import EXPONENTS, Stored, codec
from kubesae.shards.index import read_index
from kubesae.shards.reader import read_block
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt
    import webdataset as wds

    from kubesae.shards.index import BlockRef


@dataclass(frozen=True)
class _ReadBlocks:
    """Pipeline stage: URLs of tars -> samples. The store is opened where it is read, in a loader's worker process."""

    prefix: str
    blocks: dict[str, list[BlockRef]]

    def __call__(self, shards: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        store = open_store(self.prefix)
        for shard in shards:
            for ref in self.blocks[shard["url"]]:
                block = read_block(store, ref)
                exponents = {} if block.exponents is None else {EXPONENTS: block.exponents}
                yield {
                    "__key__": block.key,
                    "__url__": shard["url"],
                    "acts.npy": block.acts,
                    **exponents,
                    "tokens.npy": block.tokens,
                    "flags.npy": block.flags,
                    "json": block.meta,
                }


def float32_of(sample: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Return the activations of a sample as float32 [tokens, d_model], whatever they are stored as."""
    return Stored(codec(sample["json"]["dtype"]), sample["acts.npy"], sample.get(EXPONENTS)).float32()


def open_webdataset(prefix: str, layer: int, *, shards: Sequence[int] | None = None) -> wds.DataPipeline:
    """Return a pipeline over the committed blocks of a layer, in row order; tars are split by rank and by worker.

    Samples hold `__key__`, `__url__`, `acts.npy` [tokens, d_model] (bfloat16 as int16), of int8-block32 `exponents.npy`
    int8 [tokens, blocks], `tokens.npy` uint32 [tokens], `flags.npy` uint8 [tokens] and `json`. Nothing is shuffled:
    `compose` stages of your own.

    Args:
        prefix: where the activations lie: a folder or `s3://bucket/prefix`.
        layer: the captured layer.
        shards: only these shards of the experiment (default: all).

    Raises:
        ConfigError: there are no activations of that layer, or of none of the shards.

    """
    import webdataset as wds  # noqa: PLC0415 - an extra, and it imports torch

    store = open_store(prefix)
    identity = require_identity(store)
    blocks: dict[str, list[BlockRef]] = {}
    for ref in read_index(store, identity, layer):
        if shards is None or ref.shard in shards:
            blocks.setdefault(store.url_of(ref.tar), []).append(ref)
    if not blocks:
        raise ConfigError(
            f"There are no activations of shards {list(shards or ())} at {prefix}. Give some of shards 0 to "
            f"{identity.num_shards - 1}."
        )
    return wds.DataPipeline(
        wds.SimpleShardList(list(blocks)), wds.split_by_node, wds.split_by_worker, _ReadBlocks(store.url, blocks)
    )
