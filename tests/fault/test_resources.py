"""A disk that fills up and memory that is not enough: the error is told, and with more of it the work goes on."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from fault_worker import Fault
from limits import Unavailable, little_memory, resize, small_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fault_experiment import Scene

pytestmark = pytest.mark.fault

FAULT = 1
ENOUGH = 64 << 20
MEMORY = 400 << 20
# Bytes of disk: each is used up amid another of the program's files.
SIZES = {"collect": (400_000, 700_000, 1_200_000), "prepare": (10_000, 60_000, 130_000), "train": (30_000, 60_000)}


@pytest.fixture
def small_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a small disk of the size that the test's parameter says."""
    try:
        with small_disk(tmp_path / "disk", ENOUGH) as folder:
            yield folder
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """Give the control group of a process that has little memory."""
    try:
        with little_memory(MEMORY) as file:
            yield file
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(("program", "size"), [(program, size) for program in SIZES for size in SIZES[program]])
def test_a_full_disk_is_told_and_the_work_goes_on(
    scene: Callable[..., Scene], small_folder: Path, program: str, size: int
) -> None:
    full = scene(program, str(small_folder / "data"))
    resize(small_folder, size)
    worker = full.start()
    assert worker.wait() == FAULT, worker.output
    assert worker.passages
    assert f"kubesae: {small_folder}" in worker.output
    assert "the disk is full (No space left on device). Free some space and start again." in worker.output
    assert "Traceback" not in worker.output
    full.faults.count(f"{program}: disk full")
    resize(small_folder, ENOUGH)
    full.finish()
    assert full.compare() == []
    assert not list(small_folder.rglob(".*.tmp"))


@pytest.mark.parametrize("size", [3_000, 50_000])
def test_a_file_system_that_takes_no_large_files_is_told(
    scene: Callable[..., Scene], tmp_path: Path, size: int
) -> None:
    collect = scene("collect", str(tmp_path / "data"))
    worker = collect.start(file_bytes=size)
    assert worker.wait() == FAULT, worker.output
    assert "the file system failed (File too large)" in worker.output
    collect.faults.count("collect: file too large")
    collect.finish()
    assert collect.compare() == []


@pytest.mark.parametrize(
    ("program", "point"),
    [("collect", "in forward"), ("collect", "after tar of layer 1"), ("prepare", "tokenise"), ("train", "step")],
)
def test_a_process_that_the_kernel_ends_for_its_memory_goes_on(
    scene: Callable[..., Scene], memory_group: Path, prefix: str, program: str, point: str
) -> None:
    killed = scene(program, prefix)
    worker = killed.start(fault=Fault(point, 3, "eat"), cgroup=memory_group)
    assert worker.wait() == -signal.SIGKILL, worker.output
    assert worker.passages.count(point) >= 3
    assert killed.in_progress
    killed.faults.count(f"{program}: killed for its memory")
    killed.finish(cgroup=memory_group)
    assert killed.compare() == []
