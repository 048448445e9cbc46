"""Both readers give a layer's tensors as safetensors itself does; the direct one leaves nothing in the page cache."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from kubesae import limits
from kubesae.errors import ConfigError
from kubesae.model import weight_readers
from kubesae.model.weight_files import INDEX, WHOLE, WeightFiles
from kubesae.model.weight_readers import DTYPES, CachedReader, DirectReader, reader_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEPTH = 3


def some_tensors() -> dict[str, torch.Tensor]:
    """Return tensors of three layers in every dtype, of sizes that fit no page; one is larger than a read."""
    generator = torch.Generator().manual_seed(0)
    tensors = {"embed.weight": torch.ones(5, 7)}
    for layer in range(DEPTH):
        for number, (name, dtype) in enumerate(DTYPES.items()):
            values = torch.randint(0, 2, (3 + number, 5 + 2 * layer), generator=generator)
            tensors[f"model.layers.{layer}.{name.lower()}"] = values.to(dtype)
        tensors[f"model.layers.{layer}.scalar"] = torch.tensor(float(layer))
        tensors[f"model.layers.{layer}.empty"] = torch.zeros(0, 4)
    tensors["model.layers.1.large"] = torch.rand(1_234_567, 2, generator=generator)
    return tensors


@pytest.fixture(params=["a file", "three files"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give a checkpoint; of the three files none has all tensors of a layer."""
    tensors = some_tensors()
    if request.param == "a file":
        save_file(tensors, tmp_path / WHOLE)
        return tmp_path
    places = {name: f"part-{number % 3}.safetensors" for number, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == file}, tmp_path / file)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    return tmp_path


def cached(path: Path) -> bool:
    """Whether the first byte of a file is in the page cache."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def forget(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("make", [CachedReader, lambda files: DirectReader(files, DEPTH)])
def test_tensors_are_those_of_safetensors(folder: Path, make: Callable[[WeightFiles], Any]) -> None:
    expected = {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
    reader = make(WeightFiles(folder, "layers", DEPTH))
    for layer in (0, 1, 2, 0):
        reader.read(layer)
        found = {name: tensor[...] for name, tensor in reader.tensors(layer).items()}
        assert found.keys() == {name for name in expected if f".{layer}." in name}
        for name, tensor in found.items():
            assert tensor.dtype == expected[name].dtype, name
            assert tensor.shape == expected[name].shape, name
            assert torch.equal(tensor.view(torch.uint8) if tensor.dim() else tensor, bytes_of(expected[name])), name


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return what `torch.equal` compares: not every dtype can be."""
    return tensor.view(torch.uint8) if tensor.dim() else tensor


def test_the_reading_before_stays(folder: Path) -> None:
    reader = DirectReader(WeightFiles(folder, "layers", DEPTH), DEPTH)
    reader.read(0)
    first = reader.tensors(0)
    kept = {name: bytes_of(tensor[...]).clone() for name, tensor in first.items()}
    reader.read(1)
    assert all(torch.equal(bytes_of(tensor[...]), kept[name]) for name, tensor in first.items())


@pytest.mark.parametrize("refused", ["nothing", "to open", "to read"])
def test_nothing_is_left_in_the_page_cache(folder: Path, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """Also where a file system has no direct reads, which some say at once and others when it comes to reading."""
    open_, read, refusals = os.open, os.preadv, []

    def open_some(path: Any, flags: int) -> int:
        if refused == "to open" and flags & os.O_DIRECT:
            refusals.append(path)
            raise OSError(errno.EINVAL, "no direct reads")
        return open_(path, flags)

    def read_some(file: int, *arguments: Any) -> int:
        if refused == "to read" and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT:
            refusals.append(file)
            raise OSError(errno.EINVAL, "no direct reads")
        return read(file, *arguments)

    reader = DirectReader(WeightFiles(folder, "layers", DEPTH), DEPTH)
    forget(folder)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_some)
        patched.setattr(os, "preadv", read_some)
        for layer in range(DEPTH):
            reader.read(layer)
            name = f"model.layers.{layer}.i64"
            assert reader.tensors(layer)[name][...].tolist() == some_tensors()[name].tolist()
    assert bool(refusals) == (refused != "nothing")
    assert not any(cached(path) for path in folder.glob("*.safetensors"))
    CachedReader(WeightFiles(folder, "layers", DEPTH)).read(0)
    assert any(cached(path) for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize(("available", "reader"), [(8e6, DirectReader), (1e9, CachedReader)])
def test_the_memory_decides(
    folder: Path, monkeypatch: pytest.MonkeyPatch, available: float, reader: type[object]
) -> None:
    files = WeightFiles(folder, "layers", DEPTH)
    monkeypatch.setattr(limits, "memory", lambda: (1 << 40, int(available)))
    assert type(reader_for(files, DEPTH)) is reader
    assert type(reader_for(files, DEPTH, "cached")) is CachedReader
    assert type(reader_for(files, DEPTH, "direct")) is DirectReader


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    save_file(some_tensors(), tmp_path / WHOLE)
    data = (tmp_path / WHOLE).read_bytes()
    (tmp_path / WHOLE).write_bytes(data[:-1])
    with pytest.raises(ConfigError, match=rf"is cut off: it has {len(data) - 1:,} bytes of {len(data):,}"):
        WeightFiles(tmp_path, "layers", DEPTH).size(range(DEPTH))


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 1 << 24), st.integers(0, 1 << 16)), min_size=1, max_size=20
    )
)
def test_runs_hold_every_range_once_and_begin_at_pages(pieces: list[tuple[str, int, int]]) -> None:
    ranges = sorted((file, first, first + length) for file, first, length in pieces)
    runs = list(weight_readers._runs(ranges))
    page = weight_readers._PAGE
    for run in runs:
        assert not any(number % page for number in (run.first, run.last, run.place))
    for file, first, last in ranges:
        assert any(run.file == file and run.first <= first and last <= run.last for run in runs)
    places = [0, *(run.place + run.last - run.first for run in runs)]
    assert [run.place for run in runs] == places[:-1], "one after the other"
