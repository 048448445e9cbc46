"""How to reach an experiment's store: from its Secret and its certificate authority, or as the operator itself.

Both are read with the operator's right to get them by name, which the experiment's chart grants, and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubesae.store import S3Settings
from kubesae_operator.api import Problem
from kubesae_operator.client import ApiError

if TYPE_CHECKING:
    from kubesae_operator.api import SaeExperiment
    from kubesae_operator.client import Api

KEY, SECRET, TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
FORBIDDEN, NOT_FOUND = 403, 404


class ProblemError(Exception):
    """The store cannot be read, for a reason that a person has to know."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.problem = Problem(reason, message)


def settings_of(api: Api, experiment: SaeExperiment) -> S3Settings:
    """Return the settings of an experiment's store.

    Raises:
        ProblemError: Secret or certificate authority are not there, or incomplete.

    """
    store = experiment.store
    given = {"endpoint": store.endpoint, "region": store.region}
    if store.ca_config_map:
        given["ca_bundle"] = _bundle(api, experiment)
    if not store.secret:
        return S3Settings(**given)
    keys = {name: _decoded(value) for name, value in (_object(api, experiment, "Secret").get("data") or {}).items()}
    missing = [name for name in (KEY, SECRET) if not keys.get(name)]
    if missing:
        raise ProblemError(
            "SecretMissing",
            f"Secret {store.secret} in namespace {experiment.key[0]} has no {' and no '.join(missing)}. Add it: the "
            "experiment goes on by itself.",
        )
    return S3Settings(**given, key=keys[KEY], secret=keys[SECRET], token=keys.get(TOKEN, ""))


def _object(api: Api, experiment: SaeExperiment, kind: str) -> dict[str, Any]:
    """Return the Secret or ConfigMap that the experiment names."""
    namespace, name = experiment.key[0], experiment.store.secret
    plural, value, what = "secrets", "store.existingSecret", f"with {KEY} and {SECRET}"
    if kind == "ConfigMap":
        name, plural, value = experiment.store.ca_config_map, "configmaps", "store.caBundle.configMap"
        what = f"with the certificate under {experiment.store.ca_key}"
    try:
        return api.get(f"/api/v1/namespaces/{namespace}/{plural}/{name}")
    except ApiError as error:
        if error.status == NOT_FOUND:
            raise ProblemError(
                "SecretMissing",
                f"There is no {kind} {name} in namespace {namespace}. Create it {what}, or correct {value}.",
            ) from error
        if error.status == FORBIDDEN:
            raise ProblemError(
                "SecretForbidden",
                f"The operator may not read {kind} {name} in namespace {namespace}. Set operator.serviceAccount in the "
                "experiment's values to the operator's name and namespace, and `helm upgrade`.",
            ) from error
        raise


def _bundle(api: Api, experiment: SaeExperiment) -> str:
    """Return the path of a file with the certificate authority of the store."""
    text = (_object(api, experiment, "ConfigMap").get("data") or {}).get(experiment.store.ca_key)
    if not text:
        raise ProblemError(
            "StoreSettings",
            f"ConfigMap {experiment.store.ca_config_map} has no key {experiment.store.ca_key}. Add it, or correct "
            "store.caBundle.key.",
        )
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"kubesae-ca-{digest}.pem"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(text)
        Path(file.name).rename(path)  # another worker sees the whole file, or none
    return str(path)


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode().strip()
    except (binascii.Error, ValueError):
        return ""
