"""The custom resource definition, as data: from it comes the YAML that the operator's chart installs.

python -m kubesae_operator.crd        # writes the files anew; a test fails when they differ
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import yaml

from kubesae.ledger import PHASES
from kubesae_operator.api import CONDITIONS, GROUP, KIND, PLURAL, REASONS, VERSION, WORDS
from kubesae_operator.phases import State
from kubesae_operator.progress import MOST_ROWS

FILES = ("k8s/crd/saeexperiments.yaml", "helm/operator/files/saeexperiments.yaml")
HEAD = "# Made by `python -m kubesae_operator.crd`; a test keeps it true.\n"

Schema = dict[str, Any]

COLUMNS = (
    ("Phase", "string", ".status.phase", "what the experiment does now", 0),
    ("Shards", "string", ".status.progress", "complete shards of all", 0),
    ("Tokens", "integer", ".status.tokens", "tokens that are committed", 0),
    ("Percent", "string", ".status.percent", "share of the tokens that is committed", 0),
    ("Rate", "string", ".status.rate", "tokens a second, over recent commits", 0),
    ("ETA", "string", ".status.eta", "time left for collection at that rate", 0),
    ("Resume", "string", ".status.resume", "from where work would go on: shard:next part, or the checkpoint's step", 0),
    ("Train", "string", ".status.train.summary", "loss/L0", 0),
    ("Age", "date", ".metadata.creationTimestamp", "since it was made", 0),
    ("Data", "string", ".spec.experiment.data", "the data prefix", 1),
    (
        "Unready",
        "string",
        '.status.conditions[?(@.type=="Ready")].message',
        "what keeps the operator from seeing it",
        1,
    ),
    ("Failed", "string", '.status.conditions[?(@.type=="Failed")].message', "what has failed", 1),
    ("Degraded", "string", '.status.conditions[?(@.type=="Degraded")].message', "what holds it up", 1),
)


def definition() -> dict[str, Any]:
    """Return the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["saex"],
                "categories": ["kubesae"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def text() -> str:
    """Return the definition as YAML."""
    return HEAD + yaml.safe_dump(definition(), sort_keys=False, width=120, allow_unicode=True)


def _column(name: str, kind: str, path: str, description: str, priority: int) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": priority} if priority else column


def _root() -> Schema:
    root = _object(
        "One experiment: a language model, a corpus, and the sparse autoencoders trained on its activations. The "
        "chart `experiment` makes it; the operator releases its phases and fills in its status.",
        {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _spec(),
            "status": _status(),
        },
    )
    return {**root, "required": ["spec"]}


def _spec() -> Schema:
    text_map = {"type": "string", "maxLength": 64}
    saes = {
        "description": "settings of each SAE, as a SHA-256, by name. A name keeps its settings",
        "type": "object",
        "maxProperties": 256,
        "additionalProperties": text_map,
        "x-kubernetes-validations": [
            {
                "rule": "oldSelf.all(name, !(name in self) || self[name] == oldSelf[name])",
                "message": "the settings of an SAE are fixed by its name: give the changed one another name",
            }
        ],
    }
    identity = {
        **_text("SHA-256 of the fields that decide the data"),
        "maxLength": 64,
        "x-kubernetes-validations": [
            {
                "rule": "self == oldSelf",
                "message": "what decides the data cannot change: install another release with another data prefix",
            }
        ],
    }
    phases = {
        "description": "the phases that this experiment has; the others count as done",
        "type": "array",
        "maxItems": len(PHASES),
        "items": {"type": "string", "enum": list(PHASES)},
        "x-kubernetes-list-type": "set",
    }
    fields = {
        "suspend": {"description": "stops everything, until it is false again", "type": "boolean", "default": False},
        "experiment": {
            "description": "the description of the experiment, as in an experiment file",
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
        },
        "identity": identity,
        "saes": saes,
        "store": _store(),
        "queueName": _text("Kueue's LocalQueue; phases are then released by giving their Jobs to it"),
        "phases": phases,
    }
    return {**_object("what is asked for", fields), "required": ["experiment"]}


def _store() -> Schema:
    bundle = _object(
        "the certificate authority of the store's endpoint",
        {"name": _text("name of a ConfigMap"), "key": {**_text("key in it"), "default": "ca.crt"}},
    )
    return _object(
        "how the operator reaches the store",
        {
            "secretName": _text(
                "Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_SESSION_TOKEN; empty: the "
                "operator's own credentials"
            ),
            "endpoint": _text("URL of the S3 server; empty: AWS"),
            "region": _text("region of the bucket"),
            "caConfigMap": bundle,
        },
    )


def _status() -> Schema:
    words = ["Pending", *WORDS.values(), "Complete", "Failed", "Suspended"]
    state = _object(
        "",
        {
            "name": {"type": "string", "enum": list(PHASES)},
            "state": {"type": "string", "enum": list(get_args(State))},
        },
    )
    train = _object(
        "the SAE that is being trained, or was last",
        {
            "sae": _text("its name"),
            "step": _number("the step of these numbers"),
            "loss": _text("loss: of training, or of validation once it is trained"),
            "l0": _text("mean active features of a row"),
            "summary": _text("loss/L0"),
        },
    )
    fields = {
        "observedGeneration": _number("the generation that this status is about"),
        "phase": {**_text("what the experiment does now"), "enum": words},
        "phases": _map("the enabled phases", "name", {**state, "required": ["name", "state"]}),
        "shards": _object("shards", {"done": _number("complete ones"), "total": _number("all")}),
        "progress": _text("complete shards of all"),
        "tokens": _number("tokens committed without a gap"),
        "totalTokens": _number("tokens to collect"),
        "percent": _text("share of the tokens that is committed"),
        "rate": _text("tokens a second of the shards that are running"),
        "eta": _text("time left for collection at that rate"),
        "bytes": _number("bytes of the activations, computed from a record and the tokens"),
        "resume": _text("from where work would go on: shard:next part, or the newest checkpoint's step"),
        "train": train,
        "shardRows": {
            "description": (
                f"each shard, where there are at most {MOST_ROWS}: tokens committed without a gap, complete chunks, "
                "when its last part was committed, how often its Pods were started again"
            ),
            "type": "array",
            "items": {"type": "string"},
            "x-kubernetes-list-type": "atomic",
        },
        "conditions": _map(_conditions_text(), "type", _condition()),
    }
    return _object("what the operator saw last", fields)


def _condition() -> Schema:
    fields = {
        "type": {"type": "string", "enum": list(CONDITIONS)},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "reason": {"type": "string", "enum": list(REASONS)},
        "message": {"type": "string", "maxLength": 32768},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
    }
    return {"type": "object", "properties": fields, "required": ["type", "status", "reason", "lastTransitionTime"]}


def _conditions_text() -> str:
    kinds = "; ".join(f"{kind}: {meaning}" for kind, meaning in CONDITIONS.items())
    reasons = "; ".join(f"{reason}: {meaning}" for reason, meaning in REASONS.items())
    return f"Conditions. {kinds}. Reasons. {reasons}."


def _object(description: str, properties: Schema) -> Schema:
    return {**({"description": description} if description else {}), "type": "object", "properties": properties}


def _map(description: str, key: str, items: Schema) -> Schema:
    return {
        "description": description,
        "type": "array",
        "items": items,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
    }


def _text(description: str) -> Schema:
    return {"description": description, "type": "string"}


def _number(description: str) -> Schema:
    return {"description": description, "type": "integer", "format": "int64"}


def main() -> None:
    """Write the files."""
    root = Path(__file__).parents[2]
    for name in FILES:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text())


if __name__ == "__main__":
    main()
