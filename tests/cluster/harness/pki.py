"""Keys, certificates and kubeconfigs of a cluster, made by openssl and thrown away with it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from harness.shell import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DAYS = "3650"
_FAST = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
_PLAIN = ["-newkey", "rsa:2048"]
_CONFIG = """\
[req]
distinguished_name = name
x509_extensions = extensions
[name]
[extensions]
basicConstraints = critical, {constraints}
keyUsage = critical, {usage}
{more}
"""


class Authority:
    """A certificate authority in a folder. `plain`: its own key is RSA in the old format, which some still ask for."""

    def __init__(self, folder: Path, name: str = "ca", organisation: str = "", *, plain: bool = False) -> None:
        self.folder = folder
        self.certificate = folder / f"{name}.crt"
        self.key = folder / f"{name}.key"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = folder / f"{name}.cnf"
        usage = "keyCertSign, cRLSign, digitalSignature"
        # Where training-operator does not find its authority's name here, it makes certificates that nobody serves.
        more = f"subjectAltName = DNS:{name}"
        config.write_text(_CONFIG.format(constraints="CA:TRUE", usage=usage, more=more))
        subject = _subject(f"{organisation or 'test cluster'} {name}", organisation)
        files: list[str | Path] = ["-keyout", self.key, "-out", self.certificate]
        kind = _PLAIN if plain else _FAST
        run(["openssl", "req", "-x509", *kind, "-nodes", "-config", config, "-subj", subject, "-days", DAYS, *files])
        if plain:
            run(["openssl", "rsa", "-traditional", "-in", self.key, "-out", self.key])

    def issue(self, name: str, common: str, *, organisation: str = "", hosts: Sequence[str] = ()) -> tuple[Path, Path]:
        """Return certificate and key for a client, or for a server with these addresses and names."""
        certificate, key, config = (self.folder / f"{name}.{ending}" for ending in ("crt", "key", "cnf"))
        more = "extendedKeyUsage = clientAuth, serverAuth"
        if hosts:
            kinds = [f"{'IP' if host.replace('.', '').isdigit() else 'DNS'}:{host}" for host in hosts]
            more += f"\nsubjectAltName = {', '.join(kinds)}"
        config.write_text(_CONFIG.format(constraints="CA:FALSE", usage="digitalSignature, keyEncipherment", more=more))
        by: list[str | Path] = ["-CA", self.certificate, "-CAkey", self.key]
        out: list[str | Path] = [
            "-subj",
            _subject(common, organisation),
            "-days",
            DAYS,
            "-keyout",
            key,
            "-out",
            certificate,
        ]
        run(["openssl", "req", "-x509", *_FAST, "-nodes", "-config", config, *by, *out])
        return certificate, key

    def kubeconfig(self, path: Path, server: str, common: str, *, organisation: str = "") -> Path:
        """Write a kubeconfig for a new client, and return its path."""
        certificate, key = self.issue(path.stem, common, organisation=organisation)
        cluster = {"server": server, "certificate-authority-data": _encoded(self.certificate)}
        user = {"client-certificate-data": _encoded(certificate), "client-key-data": _encoded(key)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "kubesae", "cluster": cluster}],
            "users": [{"name": path.stem, "user": user}],
            "contexts": [{"name": "kubesae", "context": {"cluster": "kubesae", "user": path.stem}}],
            "current-context": "kubesae",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(document, indent=1))
        return path


def _subject(common: str, organisation: str) -> str:
    return f"/O={organisation}/CN={common}" if organisation else f"/CN={common}"


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
