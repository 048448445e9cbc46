"""The two images, built from the real Dockerfiles: what is in them, what is not, and that Pods run them as they are."""

from __future__ import annotations

import functools
import http.server
import json
import platform
import re
import shutil
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

import kubesae
from harness import ClusterError, tiny_images
from harness.image_store import blobs
from harness.images import ARGUMENTS, JOBS, OPERATOR, SECRET, Builder, pip_settings
from harness.instance import CHECKOUT
from harness.shell import run

if TYPE_CHECKING:
    from harness import Kube

MB = 1e6
NAMES = {"jobs": JOBS, "operator": OPERATOR}
LOCKS = {"jobs": "batch", "operator": "operator"}
ENTRYPOINTS = {"jobs": ["kubesae"], "operator": ["python", "-m", "kubesae_operator"]}
LEFT_OUT = {"jobs": {"triton"}, "operator": {"numpy", "rich", "pygments", "markdown-it-py", "mdurl"}}
LOADS_MOST = """import torch, transformers, datasets, pyarrow
from kubesae.sae.backend import backend_name
print("kernels:", backend_name(torch.device("cpu")))"""
SAE = "opt/kubesae/app/kubesae/sae"
COMPILERS = {"as", "c++", "cc", "clang", "g++", "gcc", "go", "ld", "make", "nvcc", "ptxas", "rustc", "tcc"}
both = pytest.mark.parametrize("image", NAMES)


@pytest.fixture(scope="module")
def builder(images):
    """Give the builder that has made both images, to look into them and to make more."""
    with Builder.locked() as builder:
        yield builder


@pytest.fixture(scope="module")
def layers(builder):
    """Give the layers of each image, as (size in bytes, entries), the base's first; what is in a registry too."""

    @functools.cache
    def of(image):
        index = json.loads((builder.layout / "index.json").read_text())
        named = {one["annotations"]["org.opencontainers.image.ref.name"]: one for one in index["manifests"]}
        _, _, *digests = blobs(builder.layout, [named[NAMES[image]]])
        files = [builder.layout / "blobs" / digest.replace(":", "/") for digest in digests]
        found = []
        for file in files:
            with tarfile.open(file) as tar:
                found.append((file.stat().st_size, list(tar)))
        return found

    return of


def entries_above_the_base(layers):
    return [entry for _, entries in layers[1:] for entry in entries]


@both
def test_a_restricted_pod_with_a_read_only_root_runs_it(image, images, kube: Kube, namespace: str):
    """With the image's own user, and for the jobs the one folder to write to that the chart mounts."""
    says_version = {"jobs": "kubesae --version", "operator": "python -m kubesae_operator --help"}[image]
    loads_most = {"jobs": LOADS_MOST, "operator": "import kubernetes, s3fs"}[image]
    command = f"id -u; {says_version}; python -c '{loads_most}' && echo loaded; touch /opt/kubesae/file /usr/file /file"
    refused = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    container = {"name": "main", "image": NAMES[image], "command": ["sh", "-c", command], "securityContext": refused}
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [container], "restartPolicy": "Never", "securityContext": security}
    if image == "jobs":
        container["volumeMounts"] = [{"name": "scratch", "mountPath": "/scratch"}]
        spec["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": image}, "spec": spec}, namespace=namespace)

    def ended():
        return kube.get("pod", image, namespace=namespace)["status"]["phase"] in {"Succeeded", "Failed"}

    kube.wait_for("it ends", ended, namespace=namespace)
    said = kube.logs(image, namespace=namespace)
    assert said.startswith("10001\n")
    assert {"jobs": f"kubesae, version {kubesae.__version__}", "operator": "usage: "}[image] in said
    assert "loaded" in said
    assert said.count("Read-only file system") == 3
    assert ("kernels: native\n" in said) == (image == "jobs")


@both
def test_its_configuration_says_what_it_is(image, builder):
    config = builder.inspect(NAMES[image])["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ENTRYPOINTS[image]
    labels = {key: value for key, value in config["Labels"].items() if not key.startswith("io.buildah.")}
    what = labels.pop("org.opencontainers.image.description")
    assert what.startswith("Sparse autoencoders")
    base = labels.pop("org.opencontainers.image.base.name")
    assert base.startswith("localhost/kubesae-base:")
    variant = {"dev.kubesae.variant": ARGUMENTS["VARIANT"]} if image == "jobs" else {}
    assert labels == variant | {
        "org.opencontainers.image.title": f"kubesae-{image}",
        "org.opencontainers.image.version": kubesae.__version__,
        "org.opencontainers.image.revision": ARGUMENTS["REVISION"],
        "org.opencontainers.image.source": ARGUMENTS["SOURCE"],
        "org.opencontainers.image.licenses": "Apache-2.0",
    }


@both
def test_nothing_in_it_gives_rights_or_can_be_changed_by_its_user(image, layers):
    entries = entries_above_the_base(layers(image))
    assert [entry.name for entry in entries if entry.mode & 0o6000] == [], "setuid or setgid"
    assert [entry.name for entry in entries if entry.isdev()] == []
    anybodys = [entry for entry in entries if entry.mode & 0o002 and not entry.issym()]
    assert [entry.name for entry in anybodys if entry.name != "tmp"] == []
    owned = {entry.name for entry in entries if (entry.uid, entry.gid) != (0, 0)}
    assert owned == ({"scratch"} if image == "jobs" else set())


@both
def test_it_has_neither_compilers_nor_an_installer(image, layers):
    programs = {
        Path(entry.name).name: entry.name
        for _, entries in layers(image)
        for entry in entries
        if entry.mode & 0o111 and not entry.isdir()
    }
    assert "python3" in programs
    assert programs.keys() & (COMPILERS | {"pip", "pip3", "uv"}) == set()


def test_it_has_kernels_of_its_source_for_every_kind_of_cpu(builder):
    from kubesae.sae.native import build  # loads torch

    levels = {level for level in build._LEVELS if level.startswith("x86") == (platform.machine() == "x86_64")}
    with builder.mounted(JOBS) as root:
        there = {path.name for path in (root / SAE / "native").glob("*.so")}
        assert (root / SAE / "native/kernels.cpp").read_bytes() == build._SOURCE.read_bytes()
    assert there == set(map(build.file_name, levels))


@both
def test_its_bill_of_materials_is_what_is_installed_and_locked(image, builder):
    with builder.mounted(NAMES[image]) as root:
        bill = json.loads((root / "opt/kubesae/sbom.cdx.json").read_text())
        installed = distributions_in(root)
        (python,) = (path.name.removeprefix("python") for path in (root / "opt/kubesae/lib").iterdir())
    assert {one["name"]: one["version"] for one in bill["components"]} == installed
    assert all(one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}" for one in bill["components"])
    assert bill["metadata"]["component"]["name"] == f"kubesae-{image}"
    locked = locked_versions(LOCKS[image], python)
    assert installed == {name: version for name, version in locked.items() if name not in LEFT_OUT[image]}


def test_no_secret_of_the_build_stays_in_a_layer_or_the_history(builder):
    """Layers lie uncompressed in the layout, beside manifests and configurations: one search finds all there is."""
    secret_files = sorted(map(str, builder.secrets.iterdir()))
    needles = [SECRET, *(value for key, value in pip_settings().items() if key != "cert")]
    patterns = [f"--regexp={needle}" for needle in needles]
    found = run(["grep", "-rlaF", *patterns, builder.secrets, builder.layout], env={"LC_ALL": "C"}, timeout=120)
    assert sorted(found.splitlines()) == secret_files


@both
def test_no_file_of_the_build_stays(image, layers):
    above = {entry.name for entry in entries_above_the_base(layers(image)) if not entry.isdir()}
    elsewhere = {name for name in above if not name.startswith("opt/kubesae/")}
    assert elsewhere == {"etc/group", "etc/passwd", "etc/hosts"}  # the last one is buildah's, and empty


def test_the_operators_image_adds_little_to_its_base(layers):
    added = sum(size for size, _ in layers("operator")[1:])
    print(f"The operator's image adds {added / MB:.0f} MB to its base.")  # noqa: T201 - a figure to read
    assert added <= 150 * MB


@both
def test_after_a_change_of_code_the_dependencies_layer_is_the_same(image, builder, tmp_path: Path):
    context = copy_of_context(tmp_path / "context")
    with (context / "jobs/kubesae/__init__.py").open("a") as file:
        file.write("\nCHANGED = True\n")
    changed = f"kubesae.test/changed-{image}:dev"
    builder.build(changed, image, context=context)
    try:
        before, after = (builder.inspect(name)["rootfs"]["diff_ids"] for name in (NAMES[image], changed))
    finally:
        builder.remove(changed)
    assert len(before) == len(after)
    dependencies = 4  # the base, the user, the list, what it lists
    assert before[:dependencies] == after[:dependencies]
    assert before[-1] != after[-1]


def test_an_image_whose_name_another_takes_leaves_the_layout(tmp_path: Path):
    (tmp_path / "tmp").mkdir()
    builder = Builder(tmp_path)
    for content in ("first", "second"):
        (tmp_path / "content").write_text(content)
        archive = tiny_images._archive(tmp_path / "image.tar", "x", {"content": tmp_path / "content"}, {}, {})
        builder.put(f"oci-archive:{archive}", "kubesae.test/replaced:1")
    (manifest,) = json.loads((builder.layout / "index.json").read_text())["manifests"]
    assert manifest["annotations"] == {"org.opencontainers.image.ref.name": "kubesae.test/replaced:1"}
    there = {f"sha256:{path.name}" for path in (builder.layout / "blobs/sha256").iterdir()}
    assert there == set(blobs(builder.layout, [manifest]))
    assert len(there) == 3, "manifest, configuration, layer"


def test_what_a_killed_build_has_left_is_removed_by_the_next(tmp_path: Path):
    builder = Builder(tmp_path)
    for left in ("tmp/buildah123/layer", "tmp/storage456/layer", "tmp/buildah-cache/wheel", "layout/oci-put-blob789"):
        (tmp_path / left).parent.mkdir(parents=True)
        (tmp_path / left).touch()
    builder._buildah("from", "scratch")
    assert builder._buildah("containers", "--quiet")
    builder._remove_leftovers()
    assert not builder._buildah("containers", "--quiet")
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["buildah-cache"]
    assert list((tmp_path / "layout").iterdir()) == []


@both
def test_every_argument_and_secret_is_documented(image):
    text = (CHECKOUT / f"images/{image}.Dockerfile").read_text()
    documented = (CHECKOUT / "docs/images.md").read_text()
    for name in {*re.findall(r"^ARG (\w+)", text, re.MULTILINE), *re.findall(r"type=secret,id=(\w+)", text)}:
        assert f"| `{name}` |" in documented


class TestVariants:
    """The Dockerfile of the jobs with small distributions under the names of large ones, from an index made here."""

    LIST = ("click", "cuda-toolkit", "nvidia-cublas", "nvidia-cudnn-cu13", "torch", "triton")
    DRIVER = "#include <Python.h>\n#include <cuda.h>\nPyMODINIT_FUNC PyInit_cuda_utils(void) { return NULL; }\n"

    @pytest.fixture
    def build(self, builder, tmp_path: Path):
        """Give a function that builds a variant, and returns the versions of what is installed in it.

        Its `compiled` is then what was compiled for triton.
        """
        locked, cpu = tmp_path / "index/locked", tmp_path / "index/cpu"
        driver = {"driver.c": self.DRIVER, "include/cuda.h": ""}
        driver = {f"triton/backends/nvidia/{name}": text for name, text in driver.items()}
        wheels = [write_wheel(locked, name, "1.0", **(driver if name == "triton" else {})) for name in self.LIST]
        write_wheel(cpu, "torch", "1.0+cpu")
        context = copy_of_context(tmp_path / "context")
        lines = [
            f"{name}==1.0 ; sys_platform == 'linux' \\\n    --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n"
            for name, wheel in zip(self.LIST, wheels, strict=True)
        ]
        (context / "requirements/batch.txt").write_text("".join(lines))
        name = "kubesae.test/variant:dev"

        def call(**arguments):
            arguments = {key: value.replace("CPU_INDEX", f"{url}/cpu") for key, value in arguments.items()}
            pip = {"index-url": f"{url}/locked"}
            builder.build(name, "jobs", context=context, arguments=arguments, pip=pip)
            try:
                with builder.mounted(name) as root:
                    call.compiled = [path.name for path in (root / SAE / "gpu").glob("*.so")]
                    assert not (root / "usr/bin/gcc").exists()
                    return distributions_in(root)
            finally:
                builder.remove(name)

        call.context, call.locked = context, locked
        with serving(tmp_path / "index") as url:
            yield call

    def test_cuda_is_the_default_and_has_all(self, build):
        assert build() == dict.fromkeys(self.LIST, "1.0")
        (name,) = build.compiled
        assert re.fullmatch(f"cuda_utils-{sha256(self.DRIVER.encode()).hexdigest()[:16]}[.]cpython-3.*[.]so", name)

    @pytest.mark.slow
    def test_cpu_leaves_out_the_compiler_of_kernels_alone(self, build):
        """TORCH_INDEX is not set: PyPI's torch does not load without the CUDA libraries."""
        assert build(VARIANT="cpu") == dict.fromkeys(set(self.LIST) - {"triton"}, "1.0")
        assert build.compiled == []

    @pytest.mark.slow
    def test_cpu_with_an_index_of_cpu_builds_has_no_cuda_library(self, build):
        assert build(VARIANT="cpu", TORCH_INDEX="CPU_INDEX") == {"click": "1.0", "torch": "1.0+cpu"}

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            ({"VARIANT": "rocm"}, "VARIANT is 'rocm'; say cuda or cpu."),
            ({"TORCH_INDEX": "CPU_INDEX"}, "TORCH_INDEX is for VARIANT=cpu"),
        ],
    )
    def test_a_mistake_in_the_arguments_ends_the_build(self, build, arguments, why):
        with pytest.raises(ClusterError, match=re.escape(why)):
            build(**arguments)

    def test_a_distribution_that_is_not_the_locked_one_ends_the_build(self, build):
        write_wheel(build.locked, "click", "1.0", **{"click.py": "other = True\n"})
        with pytest.raises(ClusterError, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
            build(VARIANT="cpu")


def distributions_in(root: Path):
    """Return the version of each distribution, from the names of their folders."""
    (site,) = (root / "opt/kubesae/lib").glob("python3*/site-packages")
    pairs = (path.name.removesuffix(".dist-info").split("-") for path in site.glob("*.dist-info"))
    return {canonical(name): version for name, version in pairs}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_versions(lock, python):
    """Return what the lock has for a version of Python, here."""
    text = (CHECKOUT / f"requirements/{lock}.txt").read_text()
    wanted = map(Requirement, re.findall(r"^([a-z0-9].*?) \\$", text, re.MULTILINE))
    where = {"python_version": python, "python_full_version": f"{python}.0"}
    there = [one for one in wanted if one.marker is None or one.marker.evaluate(where)]
    return {one.name: str(one.specifier).removeprefix("==") for one in there}


def copy_of_context(folder: Path):
    """Copy what a build is given."""
    without = shutil.ignore_patterns("__pycache__")
    for part in ("images", "jobs/kubesae", "operator/kubesae_operator"):
        shutil.copytree(CHECKOUT / part, folder / part, ignore=without)
    (folder / "requirements").mkdir()
    for part in ("LICENSE", ".dockerignore", "requirements/batch.txt", "requirements/operator.txt"):
        shutil.copy2(CHECKOUT / part, folder / part)
    return folder


def write_wheel(index: Path, name, version, **more):
    """Write a distribution with one empty module, and more files, where an index would have it."""
    file_name = name.replace("-", "_")
    path = index / name / f"{file_name}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = f"{file_name}-{version}.dist-info"
    files = {
        f"{file_name}.py": "",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **more,
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in files.items():
            wheel.writestr(zipfile.ZipInfo(member), text)
        wheel.writestr(zipfile.ZipInfo(f"{about}/RECORD"), "".join(f"{member},,\n" for member in files))
    return path


@contextmanager
def serving(folder: Path):
    """Serve a folder; its listings are what pip takes for an index."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
