"""Names that the operator and the charts agree on, and what the operator keeps of each object that it watches.

Objects come as JSON and are cut down at once to the few fields below: a thousand Pods take three megabytes instead of
four hundred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kubesae.ledger import PHASES, Phase

GROUP = "kubesae.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "SAEExperiment"
PLURAL = "saeexperiments"

MANAGER = "kubesae-operator"
"""field manager of everything that the operator writes"""

EXPERIMENT_LABEL = f"{GROUP}/experiment"
PHASE_LABEL = f"{GROUP}/phase"
SAE_LABEL = f"{GROUP}/sae"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
HOLD_ANNOTATION = f"{GROUP}/hold"
"""on a Job: while it is "true" the operator does not let it run"""

Key = tuple[str, str]
"""namespace and name"""

WORDS: dict[Phase, str] = {
    "fetch": "Fetching",
    "prepare": "Preparing",
    "pilot": "Piloting",
    "collect": "Collecting",
    "verify": "Verifying",
    "train": "Training",
    "interpret": "Interpreting",
}
"""what an experiment does in a phase"""

CONDITIONS = {
    "Ready": "the operator can read the description and the store",
    "Collecting": "activations are being collected",
    "CollectionComplete": "every part of the plan is committed",
    "Training": "an SAE is being trained",
    "Complete": "every phase is complete",
    "Failed": "a phase has ended in failure: it does not go on by itself",
    "Suspended": "spec.suspend stops everything",
    "Degraded": "the work goes on, or would, but for what the message says",
}

REASONS = {
    "AsExpected": "nothing is wrong",
    "NotYet": "this has not come yet",
    "Done": "this is over",
    "InProgress": "this is what is happening now",
    "SuspendedByUser": "spec.suspend is true",
    "InvalidExperiment": "spec.experiment is no experiment",
    "NotInBucket": "the data are in a folder, which the operator cannot read",
    "SecretMissing": "a Secret that is named is not there, or lacks a key",
    "SecretForbidden": "the operator may not read the Secret with the store's credentials",
    "BucketMissing": "there is no such bucket",
    "CredentialsRefused": "the store does not accept the credentials",
    "AccessDenied": "the store's credentials may not do what is needed",
    "StoreSettings": "endpoint, region or certificate authority of the store cannot be used",
    "StoreUnreachable": "the store does not answer",
    "DataDamaged": "something in the store is not what it should be",
    "IdentityMismatch": "the data at the prefix belong to another experiment",
    "PrefixShared": "another experiment writes at the same prefix",
    "JobFailed": "a Job has failed",
    "JobMissing": "the chart has rendered no Job for a phase that is due",
    "NothingStored": "a Job has succeeded, but the store does not show its phase complete",
    "ImageMissing": "an image cannot be had",
    "QuotaExceeded": "a quota allows no more Pods",
    "PodsRefused": "the API server refuses the Pods of a Job",
    "Unschedulable": "no node has room for a Pod",
    "ConfigMissing": "a Secret or ConfigMap that a container needs is not there",
    "PodStuck": "a Pod does not end: its node is probably lost, and its shard waits for it",
    "OutOfMemory": "a container was killed for memory",
    "ContainerFailing": "a container fails and is started again",
    "NoProgress": "nothing has been committed for far longer than usual",
}


@dataclass(frozen=True, slots=True)
class StoreRef:
    """How an experiment's store is reached; `secret` empty: with the operator's own credentials."""

    secret: str = ""
    endpoint: str = ""
    region: str = ""
    ca_config_map: str = ""
    ca_key: str = "ca.crt"


@dataclass(frozen=True, slots=True)
class SaeExperiment:
    """A SAEExperiment."""

    key: Key
    uid: str
    generation: int
    created: str
    suspend: bool
    description: dict[str, Any]
    store: StoreRef
    queue: str
    phases: tuple[Phase, ...]
    status: dict[str, Any]

    @classmethod
    def of(cls, data: dict[str, Any]) -> SaeExperiment:
        """Cut down the API's object."""
        meta, spec = data["metadata"], data.get("spec", {})
        store = spec.get("store") or {}
        bundle = store.get("caConfigMap") or {}
        enabled = spec.get("phases", PHASES)
        return cls(
            key=(meta["namespace"], meta["name"]),
            uid=meta["uid"],
            generation=meta.get("generation", 0),
            created=meta["creationTimestamp"],
            suspend=bool(spec.get("suspend", False)),
            description=spec.get("experiment") or {},
            store=StoreRef(
                secret=store.get("secretName", ""),
                endpoint=store.get("endpoint", ""),
                region=store.get("region", ""),
                ca_config_map=bundle.get("name", ""),
                ca_key=bundle.get("key", "") or "ca.crt",
            ),
            queue=spec.get("queueName", ""),
            phases=tuple(phase for phase in PHASES if phase in enabled),
            status=data.get("status") or {},
        )


@dataclass(frozen=True, slots=True)
class JobState:
    """A Job or a PyTorchJob of an experiment."""

    kind: Literal["Job", "PyTorchJob"]
    key: Key
    uid: str
    created: str
    experiment: str
    phase: str
    sae: str = ""
    suspended: bool = False
    held: bool = False
    queue: str = ""
    deleting: bool = False
    ended: Literal["", "Complete", "Failed"] = ""
    ended_at: str = ""
    started_at: str = ""
    active: int = 0
    reason: str = ""
    message: str = ""

    @classmethod
    def of(cls, data: dict[str, Any]) -> JobState:
        """Cut down the API's object."""
        meta, spec, status = data["metadata"], data.get("spec", {}), data.get("status") or {}
        labels = meta.get("labels") or {}
        trains = data.get("kind") == "PyTorchJob"
        # By type and status: the last one in the list is not always the state.
        true = {item["type"]: item for item in status.get("conditions") or () if item.get("status") == "True"}
        end = true.get("Failed") or true.get("Complete") or true.get("Succeeded") or {}
        replicas = (status.get("replicaStatuses") or {}).values()
        return cls(
            kind="PyTorchJob" if trains else "Job",
            key=(meta["namespace"], meta["name"]),
            uid=meta["uid"],
            created=meta["creationTimestamp"],
            experiment=labels.get(EXPERIMENT_LABEL, ""),
            phase=labels.get(PHASE_LABEL, ""),
            sae=labels.get(SAE_LABEL, ""),
            suspended=bool(((spec.get("runPolicy") or {}) if trains else spec).get("suspend", False)),
            held=(meta.get("annotations") or {}).get(HOLD_ANNOTATION) == "true",
            queue=labels.get(QUEUE_LABEL, ""),
            deleting="deletionTimestamp" in meta,
            ended=("Failed" if end.get("type") == "Failed" else "Complete") if end else "",
            ended_at=(end.get("lastTransitionTime") or meta["creationTimestamp"]) if end else "",
            started_at=status.get("startTime") or "",
            active=sum(item.get("active", 0) for item in replicas) if trains else status.get("active", 0),
            reason=end.get("reason", ""),
            message=end.get("message", ""),
        )


@dataclass(frozen=True, slots=True)
class PodState:
    """A Pod that has not succeeded.

    `trouble` is a reason of `REASONS` and what the kubelet or scheduler says; `exit_code`, `ended_at` and `said` are
    those of a container that failed, now or before it was started again.
    """

    key: Key
    experiment: str
    phase: str
    job: str
    node: str = ""
    index: int | None = None
    restarts: int = 0
    trouble: tuple[str, str] | None = None
    exit_code: int | None = None
    ended_at: str = ""
    said: str = ""
    deleted_at: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps an experiment back: a reason of `REASONS`, and in one line what happened and what to do."""

    reason: str
    message: str

    def __post_init__(self) -> None:
        """Make one line of several."""
        object.__setattr__(self, "message", " ".join(self.message.split()))


@dataclass(frozen=True, slots=True)
class JobPatch:
    """A change to a Job: run or stop it, or give it to a queue ("" takes it from there)."""

    job: JobState
    suspend: bool | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What is worth telling once."""

    reason: str
    note: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Actions:
    """What `reconcile` wants done. `status` None: nothing to write; events belong to that status."""

    patches: tuple[JobPatch, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[Event, ...] = ()
