"""The C that triton compiles before its first kernel, compiled while an image is built: Pods have no compiler.

    python jobs/kubesae/sae/gpu/prebuilt.py LIB FOLDER        for the triton of LIB/python3*/site-packages, if any

Run like this it needs gcc, the headers of this Python, and nothing else: no torch, no triton, no driver. What comes out
calls Python and the GPU's driver, which is the node's. Its name holds the hash of the source and says for which Python
it is, so that what another triton or Python needs is never taken from here.
"""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

_NAME = "cuda_utils"
_HERE = Path(__file__).parent


def take() -> None:
    """Let triton take what lies here in place of a compiler; where nothing does, leave triton alone."""
    if any(_HERE.glob(f"{_NAME}-*")):
        build = importlib.import_module("triton").knobs.build
        build.impl = build.impl or _ready


def _ready(name: str, source: str, *_: object) -> str:
    """Return the file that triton would compile `source` to."""
    path = _HERE / file_name(Path(source))
    if not path.exists():
        raise RuntimeError(f"the image was built for another triton or Python: it has no {path.name} ({name})")
    return str(path)


def file_name(source: Path) -> str:
    """Return the name of the file that this Python loads, compiled from `source`."""
    return f"{_NAME}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}{sysconfig.get_config_var('EXT_SUFFIX')}"


def compile_into(source: Path, folder: Path) -> Path:
    """Compile triton's `driver.c` for this Python into `folder`, and return the file."""
    made = folder / file_name(source)
    folder.mkdir(parents=True, exist_ok=True)
    # include directories, as triton has them; posix_prefix is where Debian's headers are too
    headers = (source.parent / "include", sysconfig.get_path("include", "posix_prefix"))
    shared = ("gcc", "-O3", "-shared", "-fPIC")
    with tempfile.TemporaryDirectory() as work:
        # only the name of the driver's library is needed, and a machine without a GPU has none
        driver = Path(work) / "libcuda.so.1"
        _run(*shared, f"-Wl,-soname,{driver.name}", "-o", str(driver), "-x", "c", "/dev/null")
        linked = ("-Wl,--no-as-needed", f"-L{work}", f"-l:{driver.name}")
        _run(*shared, *(f"-I{path}" for path in headers), "-o", str(made), str(source), *linked)
    return made


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603


def main(arguments: list[str]) -> None:
    """Compile for the triton that lies in a folder of distributions."""
    library, folder = map(Path, arguments)
    for source in library.glob("python3*/site-packages/triton/backends/nvidia/driver.c"):
        print(compile_into(source, folder))  # noqa: T201 - what an image's build shows


if __name__ == "__main__":
    main(sys.argv[1:])
