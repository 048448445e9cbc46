"""The experiment of the fault tests: a random model of four layers, and tokens for a minute of collecting in two Pods.

    run = tiny.run(namespace, "collect")
    run.install()

Model and corpus are made and the tokens prepared once, on this machine. Every run starts from a copy of those tokens at
a prefix of its own, so that what it does begins with the phase that a test is about.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from charts import PHASES, merged
from faults import objects
from kubesae.experiment import Experiment
from kubesae.ledger import Plan, keys, record_list
from kubesae.store import open_store
from releases import Release, give_credentials, kubesae, open_prefix, s3_client, store_values, write_values
from tiny_models import save_model, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from faults import Objects
    from harness import Kube
    from kubesae.store import Store

SIZES = {"hidden_size": 512, "intermediate_size": 2048}
EXPERIMENT: dict[str, Any] = {
    "model": "/models/tiny",
    "model_dtype": "float32",
    "layers": [1, 3],
    "corpora": [{"name": "words", "source": "/nowhere/words.jsonl"}],  # the Pods need it no more
    "tokens": 120_001,
    "num_shards": 2,
    "context": 64,
    "contexts_per_part": 4,
    "contexts_per_block": 2,
    "chunk": 10_000,
    "pilot": {"tokens": 5_000, "chunk": 2_500},
    "collect": {"threads": 1, "forward_batch": 4},
    "sae": [{"name": "small", "layer": 3}],
}
_PLAN = Plan.of(Experiment.model_validate(EXPERIMENT | {"data": "nowhere"}))
PARTS = sum(map(_PLAN.parts, range(_PLAN.num_shards)))
RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


@dataclass
class Run(Release):
    """A release of the experiment, and the prefix that it writes to."""

    store: Store = field(kw_only=True)

    @property
    def committed(self) -> int:
        """The number of committed parts, of PARTS."""
        return len(record_list(self.store))

    def left(self, shard: int) -> int:
        """Return the number of parts of a shard that are not committed."""
        return _PLAN.parts(shard) - len(self.store.list(keys.record_folder(shard)))


@dataclass(frozen=True)
class Tiny:
    """The model in a bucket of the cluster's S3 server, and the prepared tokens."""

    kube: Kube
    image: Mapping[str, str]
    folder: Path
    bucket: str
    tokens: Objects

    @classmethod
    def made(cls, kube: Kube, image: Mapping[str, str], folder: Path) -> Tiny:
        """Make the model and the corpus, prepare the tokens, and copy the model to a new bucket."""
        save_model(folder / "tiny", "llama", **SIZES)
        corpus = folder / "words.jsonl"
        corpus.write_text("".join(json.dumps({"text": text(i)}) + "\n" for i in range(2_000)))
        here = EXPERIMENT | {"model": str(folder / "tiny"), "corpora": [{"name": "words", "source": str(corpus)}]}
        file = folder / "experiment.yaml"
        file.write_text(yaml.safe_dump(here | {"data": str(folder / "data")}))
        prepared = kubesae(kube, "prepare", str(file))
        assert prepared.returncode == 0, prepared.stderr
        left = objects(open_store(str(folder / "data")))
        tokens = {key: data for key, data in left.items() if key.startswith("tokens/")}
        bucket, s3 = f"tiny-{secrets.token_hex(4)}", s3_client(kube)
        s3.create_bucket(Bucket=bucket)
        for path in sorted((folder / "tiny").iterdir()):
            s3.upload_file(str(path), bucket, f"models/tiny/{path.name}")
        return cls(kube, image, folder, bucket, tokens)

    def store(self, name: str) -> Store:
        """Return the store at a prefix of the bucket."""
        return open_prefix(self.kube, f"s3://{self.bucket}/{name}")

    def run(self, namespace: str, *phases: str, prepared: bool = True, **values: Any) -> Run:
        """Return a release that is not yet installed, with these phases, at a prefix named after the namespace.

        Args:
            namespace: one that lets in restricted Pods; it gets the Secret with the store's credentials.
            phases: all others are switched off.
            prepared: whether the tokens are there already.
            values: of the chart, over ours.

        """
        give_credentials(self.kube, namespace)
        store = self.store(namespace)
        for key, data in self.tokens.items() if prepared else ():
            store.put(key, data)
        settings: dict[str, Any] = {phase: {"enabled": phase in phases} for phase in PHASES}
        for phase in PHASES:
            settings[phase] |= {"resources": RESOURCES}
        settings["fetch"] |= {"enabled": True, "source": f"s3://{self.bucket}/models/tiny"}
        for phase in ("pilot", "collect", "train"):
            settings[phase] |= {"gpus": 0, "sharedMemory": ""}
        ours = {
            "experiment": EXPERIMENT | {"data": store.url},
            "image": dict(self.image),
            "store": store_values(self.kube),
            "hub": {"offline": True},
            "modelCache": {"sizeLimit": "1Gi"},
            "phases": {**settings, "all": {"scratch": "1Gi"}},
        }
        file = write_values(self.folder / f"{namespace}.yaml", merged(ours, values))
        return Run(self.kube, namespace, "tiny", [file], store=store)
