"""The reader of files of `torch.save`: it gives their tensors, runs nothing, and refuses everything else."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

from kubesae.errors import DamagedError
from kubesae.sae.formats.torch_zip import STORAGES, read_torch_zip

if TYPE_CHECKING:
    from pathlib import Path


def saved(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def with_pickle(data: bytes, change: object) -> bytes:
    """Return the file with another pickle: what `change` makes of the one that is there."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info.filename, change(content) if info.filename.endswith("data.pkl") else content)
    return out.getvalue()


def zipped(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for name, content in members:
            new.writestr(name, content)
    return out.getvalue()


def refuses(data: bytes, reason: str) -> None:
    with pytest.raises(DamagedError, match=reason) as caught:
        read_torch_zip(data, "their/ae.pt")
    assert str(caught.value).startswith("their/ae.pt was not read: ")


TENSORS = {
    "encoder.weight": torch.arange(6.0).reshape(2, 3),
    "decoder.weight": torch.arange(6.0).reshape(2, 3).T,
    "slice": torch.arange(10.0)[3:7],
    "k": torch.tensor(3, dtype=torch.int),
}


def test_it_reads_a_dict_of_tensors() -> None:
    for value in (TENSORS, collections.OrderedDict(TENSORS)):
        found = read_torch_zip(saved(value), "here")
        assert list(found) == list(TENSORS)
        for name, tensor in TENSORS.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)


def test_it_reads_the_state_of_a_module_whose_metadata_it_ignores() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 3, bias=False))
    found = read_torch_zip(saved(module.state_dict()), "here")
    assert found.keys() == module.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("dtype", STORAGES.values(), ids=str)
def test_every_dtype_of_plain_numbers(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0, 1, 3]).to(dtype)
    assert torch.equal(read_torch_zip(saved({"a": tensor}), "here")["a"], tensor)


def test_tensors_that_share_a_storage_are_read() -> None:
    whole = torch.arange(100.0)
    found = read_torch_zip(saved({"a": whole, "b": whole}), "here")
    assert torch.equal(found["b"], whole)


# --- what would run something -----------------------------------------------------------------------------------------


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch it-was-run",)


@pytest.mark.parametrize("value", [_Evil(), {"a": _Evil()}, {"a": torch.zeros(2), "b": _Evil()}], ids=["", "a", "b"])
def test_nothing_is_called(value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = saved(value)
    refuses(data, r"asks for 'posix\.system', which is no tensor")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # the classic
        b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"\x80\x02ctorch._utils\n_rebuild_tensor\n).",  # near to what is known
        b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00a\x85R.",
        b"(itorch\nload\n.",  # INST
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02ccollections\nOrderedDict\nctorch\nFloatStorage\n\x85R.",  # OrderedDict(FloatStorage)
        b"\x80\x02ctorch\nFloatStorage\n)R.",  # FloatStorage()
        b"\x80\x02ctorch\n\\oStorage\n.",  # a name that is no name
        b"\x80\x02}}b.",  # attributes of a dict
    ],
)
def test_other_instructions_and_names_are_refused(text: bytes) -> None:
    refuses(with_pickle(saved(TENSORS), lambda _: text), "its pickle")


# --- what is no dict of tensors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {"a": 1},
        {"a": "text"},
        {"a": {"b": torch.zeros(3)}},
        {1: torch.zeros(3)},
        {"a": torch.nn.Parameter(torch.zeros(3))},
        {"a": torch.zeros(3).to_sparse()},
        {"a": torch.zeros(3, dtype=torch.complex64)},
        {"a": None},
        torch.nn.Linear(2, 2),
        {"a": torch.zeros(0)},
    ],
    ids=lambda value: str(value)[:30],
)
def test_anything_but_a_dict_of_tensors_is_refused(value: object) -> None:
    with pytest.raises(DamagedError, match="was not read"):
        read_torch_zip(saved(value), "here")


def test_other_files_are_refused() -> None:
    refuses(b"", "not a zip file")
    refuses(b"no zip at all", "not a zip file")
    refuses(pickle.dumps({"a": 1}), "not a zip file")
    refuses(saved(TENSORS, _use_new_zipfile_serialization=False), "since version 1.6")
    refuses(zipped(("archive/data/0", b"1234")), "holds 0 files data.pkl")
    refuses(zipped(("a/data.pkl", b"}."), ("b/data.pkl", b"}.")), "holds 2 files data.pkl")
    refuses(zipped(("a/data.pkl", b"")), "no end|broken")


def test_a_cut_or_changed_file_is_refused() -> None:
    data = saved(TENSORS)
    refuses(data[:-100], "not a zip file")
    at = data.index(torch.arange(6.0).numpy().tobytes())
    refuses(data[:at] + b"\xff" + data[at + 1 :], "CRC")
    refuses(with_pickle(data, lambda text: text[:-1]), "its pickle")
    refuses(with_pickle(data, lambda _: b"\x80\x02}X\x01\x00\x00\x00aK\x01u."), "broken")


def test_compressed_members_are_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("archive/data.pkl", b"\x80\x02}." + bytes(10_000_000))
    refuses(out.getvalue(), "compressed")


def test_a_big_endian_file_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(TENSORS))) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, b"big" if info.filename.endswith("byteorder") else old.read(info))
    refuses(out.getvalue(), "little-endian")


# BININT1 of a size, an offset or a stride in the pickle of one tensor of six numbers, [2, 3]
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"K\x00K\x02K\x03\x86", b"K\x01K\x02K\x03\x86", "larger than its 6 numbers"),  # an offset that leads outside
        (b"K\x00K\x02K\x03\x86", b"K\x00K\xffK\xff\x86", "larger than its 6 numbers"),
        (b"K\x03K\x01\x86", b"K\x09K\x01\x86", "larger than its 6 numbers"),
        (b"K\x00K\x02K\x03\x86", b"K\x00\x88K\x03\x86", "no number"),
        (b"K\x00K\x02K\x03\x86", b"K\x00J\xff\xff\xff\xffK\x03\x86", "negative"),
        (b"cpuq\x06K\x06", b"cpuq\x06K\x07", "has 24 bytes, not 7"),
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x00.", "storage"),  # a path as the key
    ],
)
def test_a_tensor_outside_its_storage_is_refused(old: bytes, new: bytes, reason: str) -> None:
    def change(text: bytes) -> bytes:
        assert text.count(old) == 1, text
        return text.replace(old, new)

    refuses(with_pickle(saved({"a": torch.zeros(2, 3)}), change), reason)


def test_strides_of_zero_do_not_make_much_of_little() -> None:
    refuses(saved({"a": torch.zeros(1).expand(1 << 40)}), "larger than its 1 numbers")
    whole = torch.zeros(1000)
    refuses(saved({str(i): whole[:] for i in range(100)}), "many times larger than the file")
