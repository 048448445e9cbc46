"""The project's two images: built from their Dockerfiles, and given to the cluster.

PYTHONPATH=tests/cluster .venv/bin/python -m harness images

Needs no Docker: buildah builds, on a base that debootstrap makes. The jobs image has five gigabytes, nearly all of them
in the one layer of its dependencies. So everything lies in the cache, outside the checkout, and is kept: buildah's
layers, and an OCI layout with uncompressed layers, into which skopeo copies, and from which the node gets, only what is
not there yet. After a change of code that is a few seconds.

On the disk that is 22 GB: the layers here and there, and the node's copy of them, packed and unpacked. What an image
before was made of is removed in all four places, and what a build that was killed has left is removed by the next.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import image_store
from harness.given import Given
from harness.instance import CHECKOUT, cache
from harness.shell import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.local import Local

JOBS = "kubesae.test/kubesae-jobs:dev"
OPERATOR = "kubesae.test/kubesae-operator:dev"
ARGUMENTS = {"VARIANT": "cpu", "REVISION": "0123abc", "SOURCE": "https://kubesae.test/source"}
SECRET = "# A secret of a build. No image may hold this line."  # in all that is given to builds as secrets

_SUITE = "bookworm"
_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy")
_BUILD = ("--isolation=chroot", "--network=host", "--layers", "--force-rm", "--quiet")
_STAGE = "compiled"  # the stage of the jobs' Dockerfile that has the compilers, and what they make
_AUTHORITY = "/run/secrets/ca"  # where the Dockerfiles mount the secret `ca`


def chart_values(name: str) -> dict[str, str]:
    """Return what the charts' value `image` has to be for one of the images."""
    registry, _, rest = name.partition("/")
    repository, _, tag = rest.partition(":")
    return {"registry": registry, "repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}


def load_images(cluster: Local | Given) -> None:
    """Build both images, as far as something has changed, and give them to the cluster."""
    with Builder.locked() as builder:
        if not builder.has(JOBS):
            _say("Building the images (torch and its libraries have 5 GB; some 5 minutes the first time) ...")
        for name, dockerfile in ((JOBS, "jobs"), (OPERATOR, "operator")):
            builder.build(name, dockerfile)
            builder.keep(name)
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
        for part in ("tmp", "secrets"):
            (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say("Another process builds images; waiting for it ...")
                fcntl.flock(lock, fcntl.LOCK_EX)
            builder = cls(folder)
            builder._remove_leftovers()
            yield builder

    @property
    def layout(self) -> Path:
        """The OCI layout that has both images, as it would go to a registry but for compression."""
        return self.folder / "layout"

    @property
    def secrets(self) -> Path:
        """The folder of what builds are given as secrets."""
        return self.folder / "secrets"

    def build(
        self,
        name: str,
        dockerfile: str,
        *,
        context: Path = CHECKOUT,
        arguments: Mapping[str, str] = ARGUMENTS,
        pip: Mapping[str, str] | None = None,
    ) -> None:
        """Build an image from `images/<dockerfile>.Dockerfile`, as far as something has changed.

        Args:
            name: what it is called.
            dockerfile: `jobs` or `operator`.
            context: the folder with the files that go into it.
            arguments: the build's arguments, but for the base image.
            pip: what pip is told, such as an index; by default what this machine's pip is told.

        Raises:
            ClusterError: it cannot be built; the message has what the Dockerfile's commands said.

        """
        base = self._base()
        given = [f"--build-arg={key}={value}" for key, value in {"BASE_IMAGE": base, **arguments}.items()]
        secrets = self._secrets(pip_settings() if pip is None else pip)
        options = (*_BUILD, *secrets, *given, f"--file={context}/images/{dockerfile}.Dockerfile")
        if name == JOBS:  # a stage without a name of its own would be pruned, and made again each time
            stage = (f"--target={_STAGE}", f"--tag={name}-{_STAGE}")
            self._buildah("build", *options, *stage, str(context), timeout=3600)
        self._buildah("build", *options, f"--tag={name}", str(context), timeout=3600)
        self._buildah("rmi", "--prune")  # what the image before was made of

    def keep(self, name: str) -> None:
        """Put an image into the layout."""
        self.put(f"containers-storage:[overlay@{self.folder}/storage+{self.folder}/run]{name}", name)

    def put(self, source: str, name: str) -> None:
        """Put an image from anywhere, as skopeo names it, into the layout, and remove the one that had its name."""
        self._run("skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers", source, self._reference(name))
        path = self.layout / "index.json"
        index = json.loads(path.read_text())
        # skopeo takes the name away from the manifest that had it, and leaves it there
        index["manifests"] = [manifest for manifest in index["manifests"] if "annotations" in manifest]
        path.write_text(json.dumps(index))
        kept = set(image_store.blobs(self.layout, index["manifests"]))
        for blob in (self.layout / "blobs" / "sha256").iterdir():
            if f"sha256:{blob.name}" not in kept:
                blob.unlink()

    def remove(self, name: str) -> None:
        """Remove an image that was built, but not what others share with it."""
        self._buildah("rmi", name)

    def has(self, name: str) -> bool:
        """Tell whether there is an image of this name."""
        return bool(self._buildah("images", "--quiet", name, check=False).strip())

    def archive(self, name: str) -> Path:
        """Return an archive of an image, such as `docker load` and `kind load image-archive` take."""
        path = self.folder / "image.tar"
        path.unlink(missing_ok=True)
        self._run("skopeo", "copy", "--quiet", self._reference(name), f"docker-archive:{path}:{name}")
        return path

    @contextmanager
    def mounted(self, name: str) -> Iterator[Path]:
        """Give the root folder of an image, to look at."""
        container = self._buildah("from", "--pull-never", name).strip()
        try:
            yield Path(self._buildah("mount", container).strip())
        finally:
            self._buildah("rm", container)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return an image's configuration, as the OCI specifies it."""
        found: dict[str, Any] = json.loads(self._buildah("inspect", "--type=image", name))
        return found["OCIv1"]

    def _base(self) -> str:
        """Return the name of the base image, and make it where it is not there: Debian with Python."""
        key = hashlib.sha256(" ".join([_SUITE, *_PACKAGES]).encode()).hexdigest()[:8]
        name = f"localhost/kubesae-base:{_SUITE}-{key}"
        if self.has(name):
            return name
        _say(f"Making a base image (Debian {_SUITE} with Python, by debootstrap; once, 1-2 minutes) ...")
        container = self._buildah("from", "scratch").strip()
        try:
            root = Path(self._buildah("mount", container).strip())
            packages = f"--include={','.join(_PACKAGES)}"
            self._run("debootstrap", "--variant=minbase", packages, _SUITE, str(root))
            for package in (root / "var/cache/apt/archives").glob("*.deb"):
                package.unlink()
            self._buildah("umount", container)
            self._buildah("config", "--env=PATH=/usr/local/bin:/usr/bin:/bin", "--cmd=bash", container)
            self._buildah("commit", "--quiet", container, name)
        finally:
            self._buildah("rm", container)
        return name

    def _secrets(self, pip: Mapping[str, str]) -> list[str]:
        """Return the options that give a build what pip is told, and the authority that it trusts, as secrets."""
        settings = dict(pip)
        authority = settings.pop("cert", "") or os.environ.get("SSL_CERT_FILE", "")
        secrets = []
        if authority:
            settings["cert"] = _AUTHORITY
            secrets.append(self._secret("ca", Path(authority).read_text()))
        lines = ["[global]", *(f"{key} = {value}" for key, value in settings.items()), ""]
        return [*secrets, self._secret("pip_conf", "\n".join(lines))]

    def _secret(self, name: str, content: str) -> str:
        file = self.secrets / name
        file.touch(mode=0o600)
        file.write_text(f"{SECRET}\n{content}")
        return f"--secret=id={name},src={file}"

    def _remove_leftovers(self) -> None:
        """Remove what a build that was killed has left: gigabytes each time."""
        self._buildah("rm", "--all")
        for path in (self.folder / "tmp").iterdir():
            if not path.name.startswith("buildah-cache"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self.layout.glob("oci-put-blob*"):
            path.unlink()

    def _reference(self, name: str) -> str:
        return f"oci:{self.layout}:{name}"

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
