"""What an image has compiled beforehand: where it is looked for, and that nothing stale, damaged or foreign is used."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kubesae.sae.gpu import prebuilt
from kubesae.sae.native import build

TRITON = importlib.util.find_spec("triton")
CUDA_CALLS = """CtxGetCurrent CtxGetDevice CtxGetLimit CtxSetCurrent CtxSetLimit DeviceGet DeviceGetAttribute
DevicePrimaryCtxRetain DriverGetVersion FuncGetAttribute FuncSetAttribute FuncSetCacheConfig GetErrorString
ModuleGetFunction ModuleLoadData ModuleUnload PointerGetAttribute StreamIsCapturing"""

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or shutil.which("g++") is None, reason="no gcc and g++ to compile beforehand with"
)


class TestCpu:
    @pytest.fixture(autouse=True)
    def app(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Give a folder like the image's, with a source and what is compiled from it; there is no compiler any more."""
        app = tmp_path / "app"
        app.mkdir()
        monkeypatch.setattr(build, "_SOURCE", shutil.copy2(build._SOURCE, app / "kernels.cpp"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("KUBESAE_NATIVE", raising=False)
        build.compile_for(build._level(), app)
        monkeypatch.setenv("CXX", "false")
        return app

    def test_what_lies_beside_the_source_is_loaded_and_nothing_is_written(self, app: Path, tmp_path: Path) -> None:
        assert build._load()._name == str(app / build.file_name(build._level()))
        assert [path.name for path in tmp_path.iterdir()] == ["app"]

    def test_what_was_compiled_from_another_source_is_not_loaded(self, app: Path) -> None:
        with (app / "kernels.cpp").open("a") as file:
            file.write("// changed\n")
        with pytest.raises(build.NoLibraryError, match="false failed"):
            build._load()

    @pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not a library"])
    def test_a_damaged_file_is_passed_over(
        self, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        """One of the cache is compiled again."""
        name = build.file_name(build._level())
        cached = tmp_path / "cache/kubesae/native" / name
        cached.parent.mkdir(parents=True)
        for file in (app / name, cached):
            file.write_bytes(content)
        with pytest.raises(build.NoLibraryError, match="false failed"):
            build._load()
        monkeypatch.delenv("CXX")
        library = build._load()
        assert library._name == str(cached)
        assert library.kubesae_dots

    def test_an_image_is_built_without_torch(self, tmp_path: Path) -> None:
        """The stage that compiles has Python and a compiler."""
        command = [sys.executable, "-S", build.__file__, str(tmp_path / "out")]
        done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, check=True, capture_output=True, text=True)
        levels = [level for level in build._LEVELS if level.startswith("x86") == (build._level() != "aarch64")]
        assert done.stdout.split() == [str(tmp_path / "out" / build.file_name(level)) for level in levels]
        assert len(list((tmp_path / "out").iterdir())) == len(levels)


LOAD = """
import sys, torch
from pathlib import Path
from kubesae.sae.gpu import prebuilt
prebuilt._HERE = Path(sys.argv[1])
prebuilt.take()
from triton.backends.nvidia import driver
try:
    print(sorted(vars(driver.CudaUtils())))
except Exception as error:
    print(error)
"""


@pytest.mark.skipif(TRITON is None, reason="triton is not installed")
class TestGpu:
    """With a driver that has the names of CUDA's calls alone: what triton compiles is loaded, no kernel is launched."""

    @pytest.fixture
    def source(self) -> Path:
        assert TRITON is not None
        assert TRITON.origin is not None
        return Path(TRITON.origin).parent / "backends/nvidia/driver.c"

    @pytest.fixture
    def load(self, tmp_path: Path) -> object:
        """Give a function that has triton load what it needs, in a process without a compiler."""
        (tmp_path / "driver").mkdir()
        calls = "".join(f"int cu{name}(void) {{ return 999; }}\n" for name in CUDA_CALLS.split())
        driver = tmp_path / "driver/libcuda.so.1"
        command = ["gcc", "-shared", "-o", str(driver), "-x", "c", "-"]
        subprocess.run(command, input=calls, text=True, check=True)

        def call(folder: Path) -> str:
            environment = {
                "HOME": str(tmp_path / "home"),
                "LD_LIBRARY_PATH": str(driver.parent),
                "PATH": "/nowhere",
                "PYTHONPATH": os.pathsep.join(sys.path),
            }
            command = [sys.executable, "-c", LOAD, str(folder)]
            return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

        return call

    @pytest.fixture
    def compiled(self, source: Path, tmp_path: Path) -> Path:
        """Give the file, compiled as an image's build does, where triton lies in a folder of distributions."""
        library = tmp_path / "lib"
        place = library / "python3.99/site-packages/triton/backends"
        place.mkdir(parents=True)
        (place / "nvidia").symlink_to(source.parent)
        prebuilt.main([str(library), str(tmp_path / "gpu")])
        (file,) = (tmp_path / "gpu").iterdir()
        return file

    def test_triton_takes_the_file_in_place_of_a_compiler(self, compiled: Path, load, tmp_path: Path) -> None:
        assert "'load_binary'" in load(compiled.parent)
        (copy,) = (tmp_path / "home/.triton/cache").glob(
            "*/cuda_utils*.so"
        )  # in the home folder, which Pods can write to
        assert copy.read_bytes() == compiled.read_bytes()

    def test_without_a_file_triton_wants_a_compiler(self, load, tmp_path: Path) -> None:
        assert "Failed to find C compiler" in load(tmp_path)

    def test_a_file_for_another_triton_is_not_taken(self, compiled: Path, load) -> None:
        other = compiled.rename(compiled.with_name(compiled.name.replace("cuda_utils-", "cuda_utils-0")))
        said = load(other.parent)
        assert f"built for another triton or Python: it has no {compiled.name}" in said

    def test_a_damaged_file_is_an_error_that_is_said(self, compiled: Path, load) -> None:
        compiled.write_bytes(b"not a library")
        assert "'load_binary'" not in load(compiled.parent)

    def test_an_image_without_triton_gets_none(self, tmp_path: Path) -> None:
        prebuilt.main([str(tmp_path), str(tmp_path / "gpu")])
        assert list(tmp_path.iterdir()) == []
