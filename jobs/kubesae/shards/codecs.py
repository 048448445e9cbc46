"""How activations lie in the tar: one codec per storage dtype.

npy has no bfloat16 and WebDataset decodes npy, so bfloat16 is stored as its bits in an int16 array. int8-block32 is two
arrays, steps and exponents (`block_scaled`). `Stored` is rows as they lie there, and knows how to write and read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kubesae.errors import DamagedError
from kubesae.shards import block_scaled

if TYPE_CHECKING:
    from torch import Tensor

EXPONENTS = "exponents.npy"
"""ending of the member that holds them"""


@dataclass(frozen=True, slots=True)
class Codec:
    """A storage dtype.

    Attributes:
        name: as the experiment names it.
        disk: numpy dtype of `.acts.npy` (little-endian).
        loaded: dtype, as torch and numpy name it, that training takes rows in: it holds every stored value exactly.
        scaled: whether values are steps of a block's exponent, which lie in `.exponents.npy`.

    """

    name: str
    disk: np.dtype[np.generic]
    loaded: str
    scaled: bool = False

    def arrays(self, rows: int, d_model: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Return dtype and shape of the members that hold activations, in their order, by their endings."""
        arrays: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {"acts.npy": (self.disk, (rows, d_model))}
        if self.scaled:
            arrays[EXPONENTS] = (np.dtype("i1"), (rows, block_scaled.blocks_of_row(d_model)))
        return arrays

    def row_bytes(self, d_model: int) -> int:
        """Return the bytes of one row."""
        return sum(dtype.itemsize * shape[1] for dtype, shape in self.arrays(1, d_model).values())

    def memory(self, rows: int, d_model: int) -> npt.NDArray[Any]:
        """Return memory for rows as training takes them: float32, or bits of bfloat16 in int16."""
        return np.empty((rows, d_model), np.float32 if self.loaded == "float32" else np.int16)


@dataclass(frozen=True, slots=True)
class Stored:
    """Rows as they lie in a tar.

    Attributes:
        codec: how they are stored.
        acts: [rows, d_model], as `.acts.npy` has them.
        exponents: int8 [rows, blocks of a row], as `.exponents.npy` has them; None where the codec has none.

    """

    codec: Codec
    acts: npt.NDArray[Any]
    exponents: npt.NDArray[np.int8] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.acts)

    def write(self, rows: slice, x_ND: Tensor) -> npt.NDArray[np.float64] | None:
        """Store values in these rows; of a scaled codec return their squared errors, float64 [rows].

        bfloat16 is rounded to nearest even.
        """
        if self.exponents is not None:
            return block_scaled.encode(x_ND, self.acts[rows], self.exponents[rows])
        import torch  # noqa: PLC0415 - who only reads does not need it

        torch.from_numpy(self.acts[rows]).view(getattr(torch, self.codec.loaded)).copy_(x_ND)
        return None

    def float32(
        self, rows: slice | npt.NDArray[np.int64] = slice(None), out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return rows as float32 [rows, d_model], in `out` if given. Exact: every stored value is a float32."""
        acts = self.acts[rows]
        if out is None:
            out = np.empty(acts.shape, np.float32)
        if self.exponents is not None:
            block_scaled.decode(acts, self.exponents[rows], out)
        elif self.codec.loaded == "float32":
            np.copyto(out, acts.view(np.float32))
        else:
            bits = out.view(np.uint32)
            np.copyto(bits, acts.view(np.uint16))
            np.left_shift(bits, 16, out=bits)
        return out

    def gather(self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Copy the rows with these numbers to `out`, of `Codec.memory`, in the dtype that training takes."""
        if self.exponents is not None:
            block_scaled.gather_bfloat16(self.acts, self.exponents, rows, out)
        else:
            np.take(self.acts, rows, axis=0, out=out, mode="clip")  # "raise" would copy twice


CODECS = {
    "bfloat16": Codec("bfloat16", np.dtype("<i2"), "bfloat16"),
    "float32": Codec("float32", np.dtype("<f4"), "float32"),
    "int8-block32": Codec("int8-block32", np.dtype("i1"), "bfloat16", scaled=True),
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
