"""What a container may use, from the files of both versions of control groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kubesae import limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  100 kB\nMemAvailable:   9000000 kB\n"
KB = 1024


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that makes the files of a machine and returns its root."""

    def make(**files: str) -> Path:
        for name, content in {"proc/meminfo": MEMINFO, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return make


def test_without_limits_the_machine_is_all_ours(machine: Callable[..., Path]) -> None:
    root = machine(
        **{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max"}
    )
    assert limits.cpu_limit(root) is None
    assert limits.memory_limit(root) is None
    assert limits.memory(root) == (16_000_000 * KB, 9_000_000 * KB)
    assert limits.memory(machine(**{"proc/self/cgroup": ""})) == (16_000_000 * KB, 9_000_000 * KB)


def test_the_lowest_limit_on_the_way_up_counts(machine: Callable[..., Path]) -> None:
    root = machine(
        **{
            "proc/self/cgroup": "0::/pods/one\n",
            "sys/fs/cgroup/memory.max": "max",
            "sys/fs/cgroup/pods/memory.max": "4000000000",
            "sys/fs/cgroup/pods/one/memory.max": "8000000000",
            "sys/fs/cgroup/pods/one/memory.current": "1500000000",
            "sys/fs/cgroup/pods/one/memory.stat": "anon 900000000\ninactive_file 500000000\nactive_file 100000000",
            "sys/fs/cgroup/pods/cpu.max": "150000 100000",
            "sys/fs/cgroup/pods/one/cpu.max": "max 100000",
        }
    )
    assert limits.memory(root) == (4_000_000_000, 3_000_000_000)
    assert limits.cpu_limit(root) == 1.5


def test_inside_a_container_its_own_group_is_the_root(machine: Callable[..., Path]) -> None:
    root = machine(**{"proc/self/cgroup": "0::/kubepods/not-mounted-here\n", "sys/fs/cgroup/memory.max": "2000000000"})
    assert limits.memory_limit(root) == 2_000_000_000


def test_version_1_has_a_folder_for_each_controller(machine: Callable[..., Path]) -> None:
    root = machine(
        **{
            "proc/self/cgroup": "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n",
            "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": "3000000000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        }
    )
    assert limits.memory_limit(root) == 3_000_000_000
    assert limits.cpu_limit(root) == 2.0


def test_the_flags_of_the_cpu(machine: Callable[..., Path]) -> None:
    root = machine(**{"proc/cpuinfo": "processor : 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n\nprocessor : 1\n"})
    assert limits.cpu_flags(root) == {"fpu", "avx512_bf16", "amx_bf16"}
    assert limits.cpu_flags(root / "nowhere") == frozenset()


def test_this_machine_can_be_read() -> None:
    total, available = limits.memory()
    assert 0 < available <= total
    assert limits.cpus() >= 1
