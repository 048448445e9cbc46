"""Finish a part's tar: flags, moments, digest, upload. Everything after the last activation has been copied in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubesae.errors import KubesaeError
from kubesae.experiment import sha256_hex
from kubesae.ledger import LayerRecord, keys
from kubesae.shards.flags import outlier_flags
from kubesae.shards.layout import FLAGS
from kubesae.shards.moments import Moments

if TYPE_CHECKING:
    from kubesae.ledger import Part
    from kubesae.shards.layout import PartTar
    from kubesae.store import Store


@dataclass(frozen=True)
class FinishedLayer:
    """A tar and its moments, ready to upload, and what the commit record will say of them."""

    record: LayerRecord
    tar: npt.NDArray[np.uint8]
    moments: bytes

    def upload(self, store: Store) -> None:
        """Upload both, named by content: the same bytes twice are the same object."""
        store.put(self.record.moments, self.moments, sha256=self.record.moments_sha256)
        store.put(self.record.key, memoryview(self.tar), sha256=self.record.sha256)


def finish_layer(
    tar: PartTar, tokens: npt.NDArray[np.uint32], flags: npt.NDArray[np.uint8], part: Part, layer: int
) -> FinishedLayer:
    """Write tokens and flags into `tar`, whose activations are complete, and take its digest.

    Args:
        tar: the archive of this part and layer.
        tokens: [rows] token ids of the part.
        flags: [rows] bits 0 and 1, from `position_flags`.
        part: the part.
        layer: the captured layer.

    Raises:
        KubesaeError: an activation is not finite.

    """
    starts = np.cumsum([0, *map(len, tar.stored)])
    blocks = [
        Moments.of(stored, flags[start : start + len(stored)])
        for stored, start in zip(tar.stored, starts, strict=False)
    ]
    norms = np.concatenate([norms for _, norms in blocks])
    errors = np.concatenate(tar.errors) if tar.errors else np.zeros(len(norms))
    finite = np.isfinite(norms) & np.isfinite(errors)
    if not finite.all():
        raise _not_finite(layer, part, tokens, int(np.argmin(finite)))
    outliers = outlier_flags(norms, flags)
    all_flags, moments = flags | outliers, Moments.zero(tar.stored[0].acts.shape[1])
    for i, (stored, start) in enumerate(zip(tar.stored, starts, strict=False)):
        rows = slice(start, start + len(stored))
        tar.tokens[i][:] = tokens[rows]
        tar.flags[i][:] = all_flags[rows]
        # Outliers are known only once all norms are: the few blocks that have more of them are summed again.
        again = ((outliers[rows] != 0) & (flags[rows] == 0)).any()
        moments += Moments.of(stored, all_flags[rows])[0] if again else blocks[i][0]
    digest, moments_bytes = sha256_hex(memoryview(tar.buffer)), moments.to_bytes()
    moments_digest = sha256_hex(moments_bytes)
    record = LayerRecord(
        layer=layer,
        key=keys.tar(layer, part.shard, part.index, digest[:12]),
        bytes=tar.buffer.nbytes,
        sha256=digest,
        blocks=tuple(tar.offsets),
        flags=tuple(int((all_flags & bit != 0).sum()) for bit in FLAGS),
        moments=keys.moments(layer, part.shard, part.index, moments_digest[:12]),
        moments_sha256=moments_digest,
        storage_fvu=_storage_fvu(errors[all_flags == 0], moments) if tar.errors else None,
    )
    return FinishedLayer(record, tar.buffer, moments_bytes)


def _not_finite(layer: int, part: Part, tokens: npt.NDArray[np.uint32], row: int) -> KubesaeError:
    return KubesaeError(
        f"Layer {layer}, shard {part.shard}, part {part.index}: the activation of row {part.start + row} (token "
        f"{tokens[row]}) is not finite. Nothing of the part was stored. Try model_dtype bfloat16 or float32."
    )


def _storage_fvu(errors: npt.NDArray[np.float64], moments: Moments) -> float | None:
    """Squared error of the unflagged rows over their variance, both summed over dimensions, to four digits.

    None where there is no variance: of fewer than two rows, or equal ones.
    """
    variance = float(moments.variance.sum()) * moments.count
    return float(f"{errors.sum() / variance:.4g}") if variance > 0 else None
