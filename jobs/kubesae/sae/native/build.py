"""Compile and load `kernels.cpp`: once a machine, into the user's cache, or while an image is built, beside this file.

    python jobs/kubesae/sae/native/build.py FOLDER        compile for every kind of CPU that it is made for

Run like this it needs a compiler and nothing else: no torch. The file's name holds the kind of CPU and the hash of
source and flags, so that nothing stale is ever loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

_SOURCE = Path(__file__).with_name("kernels.cpp")
# Sums may be taken in another order, which is what vector units need; infinities and NaN stay what they are.
_FLAGS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-static-libstdc++", "-static-libgcc"),
    *("-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros"),
)
# what the compiler is told, and what torch says of a CPU that can run it: the first that fits
_LEVELS = {
    "x86-64-v4": (("-march=x86-64-v4", "-mprefer-vector-width=512"), "avx512_bw"),
    "x86-64-v3": (("-march=x86-64-v3",), "avx2"),
    "aarch64": ((), "asimd"),
}
OFF = "KUBESAE_NATIVE"


class NoLibraryError(Exception):
    """Why there is no library: one sentence."""


@cache
def compiled() -> ctypes.CDLL | None:
    """Return the library; None where it cannot be had (`reason`)."""
    return _loaded()[0]


def reason() -> str | None:
    """Return why there is no library; None where there is one."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str | None]:
    try:
        return _load(), None
    except (NoLibraryError, OSError) as error:
        return None, str(error)


def _load() -> ctypes.CDLL:
    """Return the library for this CPU: from an image's build, from the cache, or compiled now."""
    if os.environ.get(OFF) == "0":
        raise NoLibraryError(f"{OFF}=0 asks for none")
    level = _level()
    for folder in (_SOURCE.parent, _cache()):
        with suppress(OSError):  # it is not there, or it is damaged
            return ctypes.CDLL(str(folder / file_name(level)))
    return ctypes.CDLL(str(compile_for(level, _cache())))


def _level() -> str:
    import torch  # noqa: PLC0415 - the build of an image has none

    machine = platform.machine().lower()
    have = torch.cpu.get_capabilities()
    for level, (_, needed) in _LEVELS.items():
        if level == machine.replace("arm64", "aarch64") or (machine in {"x86_64", "amd64"} and have.get(needed)):
            return level
    raise NoLibraryError(f"there is none for this CPU ({machine})")


def file_name(level: str) -> str:
    """Return the file name of the library for a kind of CPU."""
    digest = hashlib.sha256(_SOURCE.read_bytes() + repr((_FLAGS, _LEVELS[level])).encode()).hexdigest()[:16]
    return f"kernels-{level}-{digest}.so"


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "kubesae" / "native"


def compile_for(level: str, folder: Path) -> Path:
    """Compile for a kind of CPU into `folder`, and return the file.

    Raises:
        NoLibraryError: there is no compiler, or it fails.

    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        raise NoLibraryError("there is no C++ compiler (g++)")
    target = folder / file_name(level)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            made = Path(work) / target.name
            command = [compiler, *_FLAGS, *_LEVELS[level][0], "-o", str(made), str(_SOURCE)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                raise NoLibraryError(f"{compiler} failed: {done.stderr.strip()[-500:]}")
            made.replace(target)  # whole or not at all: other processes may be looking for it
    except OSError as error:
        raise NoLibraryError(f"nothing can be compiled into {folder}: {error}") from error
    return target


def main(arguments: list[str]) -> None:
    """Compile into a folder for all kinds of CPU of this machine's family."""
    x86 = platform.machine().lower() in {"x86_64", "amd64"}
    for level in _LEVELS:
        if (level == "aarch64") != x86:
            print(compile_for(level, Path(arguments[0])))  # noqa: T201 - what an image's build shows


if __name__ == "__main__":
    main(sys.argv[1:])
