"""The project's two images: built from their Dockerfiles, and given to the cluster.

PYTHONPATH=tests/cluster .venv/bin/python -m harness images

Needs no Docker: buildah builds, on a base that debootstrap makes. The jobs image has five gigabytes, nearly all of them
in the one layer of its dependencies. So everything lies in the cache, outside the checkout, and is kept: buildah's
layers, and an OCI layout with uncompressed layers, into which skopeo copies, and from which the node gets, only what is
not there yet. After a change of code that is a few seconds.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import image_store
from harness.given import Given
from harness.instance import CHECKOUT, cache
from harness.shell import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.local import Local

JOBS = "kubesae.test/kubesae-jobs:dev"
OPERATOR = "kubesae.test/kubesae-operator:dev"
ARGUMENTS = {"VARIANT": "cpu", "REVISION": "0123abc", "SOURCE": "https://kubesae.test/source"}

_SUITE = "bookworm"
_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_MIRROR = "http://deb.debian.org/debian"
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy")
_AUTHORITY = "/run/secrets/ca"  # where the Dockerfiles mount the secret `ca`


def chart_values(name: str) -> dict[str, str]:
    """Return what the charts' value `image` has to be for one of the images."""
    registry, _, rest = name.partition("/")
    repository, _, tag = rest.partition(":")
    return {"registry": registry, "repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}


def load_images(cluster: Local | Given) -> None:
    """Build both images, as far as something has changed, and give them to the cluster."""
    with Builder.locked() as builder:
        for name, dockerfile in ((JOBS, "jobs"), (OPERATOR, "operator")):
            builder.build(name, dockerfile)
            if isinstance(cluster, Given):
                archive = builder.archive(name)
                cluster.load_image(archive, name)
                archive.unlink()
            else:
                cluster.load_image(builder.layout, name)


@dataclass(frozen=True)
class Builder:
    """buildah and skopeo on a folder of the cache."""

    folder: Path

    @classmethod
    @contextmanager
    def locked(cls) -> Iterator[Builder]:
        """Give the builder to one process at a time; install what it runs where that is missing."""
        run([CHECKOUT / "tools" / "install-packages"], timeout=900)
        folder = cache() / "images"
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say("Another process builds images; waiting for it ...")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield cls(folder)

    @property
    def layout(self) -> Path:
        """The OCI layout that has both images."""
        return self.folder / "layout"

    def build(self, name: str, dockerfile: str) -> None:
        """Build an image from `images/<dockerfile>.Dockerfile` and put it into the layout under its name."""
        base = self._base()
        if not self._has(name):
            _say(f"Building {name} (5 GB with torch in it; 3-5 minutes the first time) ...")
        arguments = [f"--build-arg={key}={value}" for key, value in {"BASE_IMAGE": base, **ARGUMENTS}.items()]
        self._buildah(
            *("build", "--isolation=chroot", "--network=host", "--layers", "--force-rm", "--quiet"),
            *(*self._secrets(), *arguments, f"--file=images/{dockerfile}.Dockerfile", f"--tag={name}", str(CHECKOUT)),
            timeout=3600,
        )
        self._buildah("rmi", "--prune")  # what the image before was made of
        source = f"containers-storage:[overlay@{self.folder}/storage+{self.folder}/run]{name}"
        self._run("skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers", source, self._reference(name))
        self._forget_old_blobs()

    def archive(self, name: str) -> Path:
        """Return an archive of an image, such as `docker load` and `kind load image-archive` take."""
        path = self.folder / "image.tar"
        path.unlink(missing_ok=True)
        self._run("skopeo", "copy", "--quiet", self._reference(name), f"docker-archive:{path}:{name}")
        return path

    def mount(self, name: str) -> tuple[str, Path]:
        """Return a container of an image and its root folder, to look at; `unmount` ends it."""
        container = self._buildah("from", "--pull-never", name).strip()
        return container, Path(self._buildah("mount", container).strip())

    def unmount(self, container: str) -> None:
        """End what `mount` began."""
        self._buildah("rm", container)

    def _base(self) -> str:
        """Return the name of the base image, and make it where it is not there: Debian with Python."""
        key = hashlib.sha256(" ".join([_SUITE, *_PACKAGES]).encode()).hexdigest()[:8]
        name = f"localhost/kubesae-base:{_SUITE}-{key}"
        if self._has(name):
            return name
        _say(f"Making a base image (Debian {_SUITE} with Python, by debootstrap; once, 1-2 minutes) ...")
        container = self._buildah("from", "scratch").strip()
        try:
            root = Path(self._buildah("mount", container).strip())
            packages = f"--include={','.join(_PACKAGES)}"
            self._run("debootstrap", "--variant=minbase", packages, _SUITE, str(root), _MIRROR)
            for package in (root / "var/cache/apt/archives").glob("*.deb"):
                package.unlink()
            self._buildah("umount", container)
            self._buildah("config", "--env=PATH=/usr/local/bin:/usr/bin:/bin", "--cmd=bash", container)
            self._buildah("commit", "--quiet", container, name)
        finally:
            self._buildah("rm", container)
        return name

    def _secrets(self) -> list[str]:
        """Hand pip's settings on as build secrets: an index and an authority that are this machine's own business."""
        settings = pip_settings()
        authority = settings.pop("cert", "") or os.environ.get("SSL_CERT_FILE", "")
        secrets = []
        if authority:
            settings["cert"] = _AUTHORITY
            secrets.append(f"--secret=id=ca,src={authority}")
        if settings:
            file = self.folder / "pip.conf"
            file.touch(mode=0o600)
            file.write_text("\n".join(["[global]", *(f"{key} = {value}" for key, value in settings.items()), ""]))
            secrets.append(f"--secret=id=pip_conf,src={file}")
        return secrets

    def _forget_old_blobs(self) -> None:
        index = json.loads((self.layout / "index.json").read_text())
        kept = {digest.partition(":")[2] for digest in image_store.blobs(self.layout, index["manifests"])}
        for blob in (self.layout / "blobs" / "sha256").iterdir():
            if blob.name not in kept:
                blob.unlink()

    def _reference(self, name: str) -> str:
        return f"oci:{self.layout}:{name}"

    def _has(self, name: str) -> bool:
        return bool(self._buildah("images", "--quiet", name, check=False).strip())

    def _buildah(self, *arguments: str, timeout: float = 600, check: bool = True) -> str:
        where = (f"--root={self.folder}/storage", f"--runroot={self.folder}/run", "--storage-driver=overlay")
        return self._run("buildah", *where, *arguments, timeout=timeout, check=check)

    def _run(self, *command: str, timeout: float = 1200, check: bool = True) -> str:
        # layers on their way pass through TMPDIR, which may be small elsewhere
        env = {**os.environ, "TMPDIR": str(self.folder / "tmp")}
        return run(command, env=env, timeout=timeout, check=check)


def pip_settings() -> dict[str, str]:
    """Return where this machine's pip gets packages from and whom it trusts, by its own account; {} without pip."""
    python = Path(sys.base_prefix) / "bin" / "python3"  # a virtual environment has no pip
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, setting = key.rpartition(".")
        if setting in {*_PIP_SETTINGS, "cert"} and (setting not in found or section == ":env:"):
            found[setting] = str(ast.literal_eval(value))
    return found


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
