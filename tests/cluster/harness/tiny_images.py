"""Two images made here, without a network or a builder: `pause`, which holds a Pod's namespaces, and `busybox`.

Both are one static program each. They are written as OCI archives by hand, which is a tar with a few JSON files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CannotRunError
from harness.shell import run

if TYPE_CHECKING:
    from collections.abc import Mapping

PAUSE = "kubesae.test/pause:1"
BUSYBOX = "kubesae.test/busybox:1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_BUSYBOX = Path("/bin/busybox")
_SOURCE = """\
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int number) { (void)number; _exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0) {} }

int main(int count, char **arguments) {
    char byte;
    (void)arguments;
    struct sigaction action = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    sigaction(SIGCHLD, &action, 0);
    signal(SIGTERM, end);
    signal(SIGINT, end);
    while (count == 1) pause();
    /* `pause bound`: end with the process that holds the other end of stdin */
    while (read(0, &byte, 1) != 0) {}
    return 0;
}
"""


def build_pause(folder: Path) -> Path:
    """Compile the program that waits and reaps: the first process of a Pod, and of the whole cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "pause"
    run(["gcc", "-Os", "-static", "-x", "c", "-o", program, "-"], text=_SOURCE)
    return program


def pause_archive(program: Path) -> Path:
    """Return an archive of the image `pause`."""
    return _archive(program.with_suffix(".tar"), PAUSE, {"pause": program}, {}, {"Entrypoint": ["/pause"]})


def busybox_archive(folder: Path) -> Path:
    """Return an archive of the image `busybox`, with every one of its commands."""
    if not _BUSYBOX.exists():
        raise CannotRunError(f"there is no {_BUSYBOX}: `tools/install-packages` installs it (busybox-static)")
    names = run([_BUSYBOX, "--list"]).split()
    links = {f"bin/{name}": "/bin/busybox" for name in names if name != "busybox"}
    config = {"Entrypoint": ["/bin/sh"], "Env": ["PATH=/bin"]}
    return _archive(folder / "busybox.tar", BUSYBOX, {"bin/busybox": _BUSYBOX}, links, config)


def _archive(path: Path, name: str, files: Mapping[str, Path], links: Mapping[str, str], config: object) -> Path:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in ("bin", "tmp", "etc"):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, mode=0o1777 if folder == "tmp" else 0o755))
        users = b"root:x:0:0:root:/:/bin/sh\nuser:x:10001:10001:user:/tmp:/bin/sh\n"
        _add(tar, "etc/passwd", users, mode=0o644)
        for target, source in files.items():
            _add(tar, target, source.read_bytes(), mode=0o755)
        for link, target in links.items():
            entry = _entry(link, tarfile.SYMTYPE)
            entry.linkname = target
            tar.addfile(entry)
    blobs: dict[str, bytes] = {}
    layer_entry = _blob(blobs, gzip.compress(layer.getvalue(), mtime=0), "layer.v1.tar+gzip")
    document = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
    }
    config_entry = _blob(blobs, json.dumps(document).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": config_entry, "layers": [layer_entry]}
    image = _blob(blobs, json.dumps(manifest).encode(), "manifest.v1+json")
    image["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index = json.dumps({"schemaVersion": 2, "manifests": [image]}).encode()
    with tarfile.open(path, mode="w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", index)
        for digest, content in blobs.items():
            _add(tar, f"blobs/sha256/{digest.removeprefix('sha256:')}", content)
    return path


def _blob(blobs: dict[str, bytes], content: bytes, kind: str) -> dict[str, object]:
    digest = _digest(content)
    blobs[digest] = content
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _entry(name: str, kind: bytes, *, mode: int = 0o777) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


def _add(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = _entry(name, tarfile.REGTYPE, mode=mode)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
