"""The cluster as the user's kubeconfig shows it: an experiment's jobs, its description, and its store's settings.

Objects are read and written as plain JSON, of both kinds that a phase can be: Job and PyTorchJob.
"""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubesae.errors import AccessError, ConfigError, KubesaeError
from kubesae.store import S3Settings

if TYPE_CHECKING:
    from collections.abc import Callable

EXPERIMENT = "kubesae.dev/experiment"
PHASE = "kubesae.dev/phase"
SAE = "kubesae.dev/sae"
QUEUE = "kueue.x-k8s.io/queue-name"
HOLD = "kubesae.dev/hold"
MANAGER = "kubesae"
_KINDS = (("batch", "v1", "jobs", "Job"), ("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob"))
_NO_DEFAULT = object()
_SECONDS = 30.0


@dataclass(frozen=True)
class PhaseJob:
    """A Job or PyTorchJob of a phase: `kind` is (group, version, plural, kind), `body` the whole object."""

    kind: tuple[str, str, str, str]
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the object."""
        return str(self.body["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the object."""
        return self.body["metadata"].get("labels") or {}

    @property
    def experiment(self) -> str:
        """Experiment that it belongs to."""
        return self.labels[EXPERIMENT]

    @property
    def phase(self) -> str:
        """Phase that it is, or is a part of."""
        return self.labels.get(PHASE, "")

    @property
    def suspended(self) -> bool:
        """Whether it waits to be released."""
        spec = self.body["spec"] if self.kind[2] == "jobs" else self.body["spec"].get("runPolicy") or {}
        return bool(spec.get("suspend")) and QUEUE not in self.labels

    @property
    def held(self) -> bool:
        """Whether the chart's values hold it back, for the operator too."""
        return (self.body["metadata"].get("annotations") or {}).get(HOLD) == "true"

    def is_now(self, *conditions: str) -> bool:
        """Whether one of these conditions is true."""
        found = (self.body.get("status") or {}).get("conditions") or []
        return any(condition["type"] in conditions and condition["status"] == "True" for condition in found)


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, client: Any, namespace: str) -> None:
        """`client` is an `ApiClient`."""
        from kubernetes.client import CoreV1Api, CustomObjectsApi  # noqa: PLC0415 - an extra

        self._objects = CustomObjectsApi(client)
        self._core = CoreV1Api(client)
        self.namespace = namespace

    @classmethod
    def connect(cls, namespace: str | None) -> Cluster:
        """Return the cluster of the kubeconfig's present context, and its namespace where none is given.

        Raises:
            ConfigError: the package `kubernetes` or a kubeconfig is missing.

        """
        try:
            from kubernetes import client, config  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ConfigError(
                "This command needs the package 'kubernetes', which is not installed: `pip install "
                "'kubesae[kubernetes]'`."
            ) from error
        configuration = client.Configuration()
        configuration.retries = False
        try:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            _, context = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise ConfigError(
                f"There is no cluster to talk to ({str(error).rstrip('.')}). Set KUBECONFIG to the file that `kubectl` "
                "uses."
            ) from error
        return cls(client.ApiClient(configuration), namespace or context["context"].get("namespace") or "default")

    def jobs(self) -> list[PhaseJob]:
        """Return the jobs of all experiments of the namespace; PyTorchJobs where the cluster has such."""
        found = []
        for kind in _KINDS:
            call, place = self._objects.list_namespaced_custom_object, (kind[0], kind[1], self.namespace, kind[2])
            items = self._ask(f"list {kind[2]}", call, *place, missing={"items": []}, label_selector=EXPERIMENT)[
                "items"
            ]
            # of a list's items only the list says what they are
            found += [PhaseJob(kind, {"apiVersion": f"{kind[0]}/{kind[1]}", "kind": kind[3], **item}) for item in items]
        return sorted(found, key=lambda job: job.name)

    def read(self, job: PhaseJob) -> PhaseJob | None:
        """Return the job as it is now; None when it is gone."""
        call = self._objects.get_namespaced_custom_object
        body = self._ask(f"read {job.name}", call, *self._place(job), missing=None)
        return PhaseJob(job.kind, body) if body else None

    def patch(self, job: PhaseJob, change: dict[str, Any]) -> None:
        """Change fields of a job (merge patch)."""
        options = {"field_manager": MANAGER, "_content_type": "application/merge-patch+json"}
        self._ask(
            f"change {job.name}", self._objects.patch_namespaced_custom_object, *self._place(job), change, **options
        )

    def apply(self, job: PhaseJob, manager: str) -> None:
        """Make the object of `job`, its fields those of `manager` (server-side apply)."""
        options = {"field_manager": manager, "force": True, "_content_type": "application/apply-patch+yaml"}
        self._ask(
            f"create {job.name}", self._objects.patch_namespaced_custom_object, *self._place(job), job.body, **options
        )

    def delete(self, job: PhaseJob) -> None:
        """Remove a job and its Pods."""
        call = self._objects.delete_namespaced_custom_object
        self._ask(f"delete {job.name}", call, *self._place(job), missing=None, propagation_policy="Foreground")

    def description(self, experiment: str) -> str:
        """Return the experiment's YAML, from its ConfigMap."""
        return self._config_map(experiment, "experiment.yaml")

    def spec(self, experiment: str) -> dict[str, Any]:
        """Return the spec of the SAEExperiment; empty where the cluster has none of that name."""
        call, place = self._objects.get_namespaced_custom_object, ("kubesae.dev", "v1alpha1", self.namespace)
        found = self._ask(
            f"read SAEExperiment {experiment}", call, *place, "saeexperiments", experiment, missing={"spec": {}}
        )
        spec: dict[str, Any] = found["spec"]
        return spec

    def store_settings(self, spec: dict[str, Any]) -> S3Settings | None:
        """Return how an experiment's Pods reach its store; None where its spec does not tell."""
        store: dict[str, Any] = spec.get("store") or {}
        if not store:
            return None
        authority = store.get("caConfigMap") or {}
        return S3Settings(
            endpoint=store.get("endpoint") or "",
            region=store.get("region") or "",
            ca_bundle=self._authority(authority["name"], authority["key"]) if authority.get("name") else "",
            **(self._keys(store["secretName"]) if store.get("secretName") else {}),
        )

    def _place(self, job: PhaseJob) -> tuple[str, str, str, str, str]:
        group, version, plural, _ = job.kind
        return group, version, self.namespace, plural, job.name

    def _config_map(self, name: str, key: str) -> str:
        data = self._ask(f"read ConfigMap {name}", self._core.read_namespaced_config_map, name, self.namespace).data
        if not data or key not in data:
            raise ConfigError(f"ConfigMap {name} in namespace {self.namespace} has no {key}. Add it to its data.")
        return str(data[key])

    def _keys(self, secret: str) -> dict[str, str]:
        data = self._ask(f"read Secret {secret}", self._core.read_namespaced_secret, secret, self.namespace).data or {}
        names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
        return {field: base64.b64decode(data.get(name, "")).decode() for field, name in names.items()}

    def _authority(self, name: str, key: str) -> str:
        """Return the path of a file with the store's certificate authority."""
        with tempfile.NamedTemporaryFile("w", prefix="kubesae-ca-", suffix=".pem", delete=False) as file:
            file.write(self._config_map(name, key))
        return file.name

    def _ask(
        self, what: str, call: Callable[..., Any], *arguments: Any, missing: Any = _NO_DEFAULT, **options: Any
    ) -> Any:
        """Return what the API server answers, `missing` where it has no such thing; its refusals as errors of ours."""
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415 - an extra
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            return call(*arguments, _request_timeout=_SECONDS, **options)
        except ApiException as error:
            if error.status == 404 and missing is not _NO_DEFAULT:
                return missing
            where, reason = f"in namespace {self.namespace}", f"{error.status} {error.reason}"
            if error.status in {401, 403}:
                raise AccessError(
                    f"The cluster refuses to {what} {where} ({reason}). Use a context whose user may do that, or give "
                    "another --namespace."
                ) from error
            raise KubesaeError(
                f"The cluster could not {what} {where} ({reason}). Look at it with kubectl, and try again."
            ) from error
        except HTTPError as error:
            raise KubesaeError(
                f"The cluster does not answer ({type(error).__name__}). See that `kubectl get pods` works, and try "
                "again."
            ) from error
