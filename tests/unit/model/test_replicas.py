"""A model on several devices gives what it gives on one, each device taking its share at the same time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch

from engine_outputs import CAPTURED, assert_equal, outputs, some_batches, source_of
from kubesae.model import replicas
from kubesae.model.inputs import devices
from kubesae.model.replicas import Replicas, load_resident
from kubesae.model.resident import ResidentEngine
from kubesae.model.truncate import load_truncated, loaded_bytes
from tiny_models import ARCHITECTURES, save_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("documents", [False, True])
def test_activations_are_those_of_one_device(tmp_path: Path, *, documents: bool) -> None:
    save_model(tmp_path, "llama")
    source, batches = source_of(tmp_path), some_batches(documents=documents)
    expected = outputs(load_resident(source, CAPTURED, "bfloat16", "cpu"), batches)
    engine = load_resident(source, CAPTURED, "bfloat16", "cpu,cpu")
    assert isinstance(engine, Replicas)
    assert [number for number, _, _ in engine.run(batches)] == sorted([0, 1, 2, 3] * len(CAPTURED)), "in order"
    assert_equal(outputs(engine, batches), expected)


def test_devices_compute_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path, "llama")
    engine = load_resident(source_of(tmp_path), CAPTURED, "bfloat16", "cpu,cpu")
    both, forward, used = threading.Barrier(2, timeout=60), ResidentEngine.forward, []

    def meet(self: ResidentEngine, *arguments: Any) -> dict[int, torch.Tensor]:
        both.wait()  # passes only when the other one computes, too
        used.append(id(self))
        return forward(self, *arguments)

    monkeypatch.setattr(ResidentEngine, "forward", meet)
    outputs(engine, some_batches())
    assert sorted(map(used.count, set(used))) == [2, 2]


def test_an_error_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As memory that runs out does; what is done again with smaller batches is not what was stopped."""
    save_model(tmp_path, "llama")
    engine = load_resident(source_of(tmp_path), CAPTURED, "bfloat16", "cpu,cpu")
    expected = outputs(engine, some_batches())
    forward, calls = ResidentEngine.forward, []

    def fail(self: ResidentEngine, *arguments: Any) -> dict[int, torch.Tensor]:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return forward(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ResidentEngine, "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            outputs(engine, some_batches())
    assert_equal(outputs(engine, some_batches()), expected)


@pytest.mark.parametrize(("room", "copies"), [(1e9, 2), (1000, 1)])
def test_without_a_wish_the_memory_of_the_gpus_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, copies: int
) -> None:
    """The decision alone: there are no GPUs here, so devices of that name are not loaded to."""
    save_model(tmp_path, "llama")
    monkeypatch.setattr(replicas, "devices", lambda _: [torch.device("cuda", 0), torch.device("cuda", 1)])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (room, room))
    loaded: list[str] = []
    monkeypatch.setattr(ResidentEngine, "load", lambda *wanted: loaded.append(wanted[-1]))
    load_resident(source_of(tmp_path), CAPTURED, "bfloat16", "auto")
    assert loaded == (["cuda:0", "cuda:1"] if copies == 2 else ["auto"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bytes_are_told_without_loading(tmp_path: Path, architecture: str) -> None:
    save_model(tmp_path, architecture)
    source = source_of(tmp_path)
    model = load_truncated(source, 2, "bfloat16", "cpu")
    assert loaded_bytes(source, 2, "bfloat16") == sum(parameter.nbytes for parameter in model.parameters())


def test_devices_are_named_with_commas() -> None:
    assert devices("cuda:0,cuda:1") == [torch.device("cuda", 0), torch.device("cuda", 1)]
    if not torch.cuda.is_available():
        assert devices("auto") == [torch.device("cpu")]
