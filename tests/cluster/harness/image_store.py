"""Give the node images, copying only what it has not got.

Images with torch in them have gigabytes, nearly all of them in one layer that seldom changes. From an OCI layout (a
folder, as `buildah push IMAGE oci:FOLDER:NAME` writes it) only those blobs are read that containerd does not hold yet.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

from harness.errors import ClusterError
from harness.node import ctr
from harness.shell import run

if TYPE_CHECKING:
    from pathlib import Path

    from harness.programs import Programs
    from harness.world import World

_NAME = "io.containerd.image.name"


def load_image(world: World, programs: Programs, source: Path, name: str = "") -> None:
    """Import an OCI archive, or an OCI layout: then `name` picks one of its images, or names the only one.

    An image that this one takes the name of is removed with all that no other image shares; Pods that run it run on.

    Raises:
        ClusterError: there is none, or containerd refuses it.

    """
    if not source.exists():
        raise ClusterError(f"there is no image at {source}: an OCI archive or the folder of an OCI layout is wanted")
    command = world.enter([*ctr(programs), "images", "import", "-"])
    if source.is_dir():
        _import_layout(source, name, held_blobs(world, programs), [str(word) for word in command])
    else:
        with source.open("rb") as stream:
            run(command, stream=stream, timeout=900)
    _remove_nameless(world, programs)


def held_blobs(world: World, programs: Programs) -> set[str]:
    """Return the digests of all blobs that containerd holds."""
    return set(world.run([*ctr(programs), "content", "list", "--quiet"]).split())


def _remove_nameless(world: World, programs: Programs) -> None:
    """Remove the images whose names others have got.

    Kubernetes' part of containerd gives each image a second name, `sha256:` and the digest of its configuration. That
    name stays when the first one goes to another image, and what has a name is never collected as garbage.
    """
    listed = world.run([*ctr(programs), "images", "list"]).splitlines()[1:]
    digests = {name: digest for name, _, digest, *_ in map(str.split, listed)}
    named = {digest for name, digest in digests.items() if not name.startswith("sha256:")}
    nameless = [name for name, digest in digests.items() if digest not in named]
    if nameless:
        world.run([*ctr(programs), "images", "remove", "--sync", *nameless], timeout=300)


def _import_layout(folder: Path, name: str, held: set[str], command: list[str]) -> None:
    index = json.loads((folder / "index.json").read_text())
    if name:
        index["manifests"] = [_pick(index["manifests"], name)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        with tarfile.open(fileobj=process.stdin, mode="w|", bufsize=1 << 20) as tar:
            _add(tar, "oci-layout", (folder / "oci-layout").read_bytes())
            _add(tar, "index.json", json.dumps(index).encode())
            for digest in blobs(folder, index["manifests"]):
                if digest not in held:
                    tar.add(_blob(folder, digest), arcname=str(_blob(folder, digest).relative_to(folder)))
    except BrokenPipeError:  # what it did not like is said below
        pass
    finally:
        said = process.communicate()[0].decode(errors="replace")
    if process.returncode:
        raise ClusterError(f"the image {name or folder} cannot be imported: {said[-2000:]}")


def _pick(manifests: list[dict[str, Any]], name: str) -> dict[str, Any]:
    named = [one for one in manifests if one.get("annotations", {}).get("org.opencontainers.image.ref.name") == name]
    chosen = (named or manifests)[0]
    return {**chosen, "annotations": {**chosen.get("annotations", {}), _NAME: name}}


def blobs(folder: Path, descriptors: list[dict[str, Any]]) -> list[str]:
    """Return the digests of manifests and of all that they name."""
    found = []
    for descriptor in descriptors:
        found.append(descriptor["digest"])
        if "manifest" in descriptor["mediaType"] or "index" in descriptor["mediaType"]:
            document = json.loads(_blob(folder, descriptor["digest"]).read_text())
            named = [document["config"], *document["layers"]] if "layers" in document else document["manifests"]
            found += blobs(folder, named)
    return list(dict.fromkeys(found))


def _blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
