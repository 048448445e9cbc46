"""How activations lie in the tar: one codec per storage dtype.

npy has no bfloat16 and WebDataset decodes npy, so bfloat16 is stored as its bits in an int16 array. A codec names the
numpy dtype on disk and turns stored values into float32; torch users view the same bytes as `torch.bfloat16`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kubesae.errors import DamagedError


@dataclass(frozen=True, slots=True)
class Codec:
    """A storage dtype: its name, as in torch, and the numpy dtype that holds it on disk (little-endian)."""

    name: str
    disk: np.dtype[np.generic]

    def to_float32(
        self, stored: npt.NDArray[np.generic], out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return stored values as float32, same shape, in `out` if given. Exact: every stored value is a float32."""
        if out is None:
            out = np.empty(stored.shape, np.float32)
        if self.name == "float32":
            np.copyto(out, stored.view(np.float32))
        else:
            bits = out.view(np.uint32)
            np.copyto(bits, stored.view(np.uint16))
            np.left_shift(bits, 16, out=bits)
        return out

    def from_float32(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
        """Return float32 values as stored, rounded to nearest even as torch does. NaN is not expected."""
        if self.name == "float32":
            return np.ascontiguousarray(values, dtype="<f4")
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return rounded.astype(np.uint16).view(np.int16)


CODECS = {
    "bfloat16": Codec("bfloat16", np.dtype("<i2")),
    "float32": Codec("float32", np.dtype("<f4")),
}


def codec(name: str) -> Codec:
    """Return the codec of a storage dtype. Raises DamagedError for a name this version does not know."""
    try:
        return CODECS[name]
    except KeyError:
        raise DamagedError(
            f"The storage dtype {name!r} is unknown to this version of kubesae (it reads {', '.join(CODECS)}). "
            "Read the data with the version that wrote it."
        ) from None
