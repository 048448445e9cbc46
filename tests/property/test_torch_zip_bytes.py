"""Whatever bytes there are: the reader of torch's files gives tensors, or says that it was damaged, and no more."""

from __future__ import annotations

import contextlib
import io
import pickletools
import zipfile

import torch
from hypothesis import given
from hypothesis import strategies as st

from kubesae.errors import DamagedError
from kubesae.sae.formats.torch_zip import read_torch_zip

BUFFER = io.BytesIO()
torch.save({"weight": torch.arange(6.0).reshape(2, 3), "k": torch.tensor(3)}, BUFFER)
WHOLE = BUFFER.getvalue()
OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


def read(data: bytes) -> None:
    with contextlib.suppress(DamagedError):
        found = read_torch_zip(data, "here")
        assert all(isinstance(name, str) and type(tensor) is torch.Tensor for name, tensor in found.items())


def with_pickle(text: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, text if info.filename.endswith("data.pkl") else old.read(info))
    return out.getvalue()


def pickle_of(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=4))
def test_changed_bytes_of_the_file(at: int, new: bytes) -> None:
    read(WHOLE[:at] + new + WHOLE[at + len(new) :])


@given(st.data())
def test_changed_bytes_of_the_pickle(data: st.DataObject) -> None:
    text = pickle_of(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        new = data.draw(st.binary(max_size=3) | st.sampled_from(OPCODES))
        text = text[:at] + new + text[at + data.draw(st.integers(0, 3)) :]
    read(with_pickle(text))


@given(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=2), max_size=30))
def test_any_instructions(pieces: list[bytes]) -> None:
    read(with_pickle(b"\x80\x02" + b"".join(pieces) + b"."))
