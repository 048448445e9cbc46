"""Checks of one experiment: is its model there and does it fit, are its corpora there, is there room for what it makes.

Of the model only the config and the headers of its weights are read.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae import limits
from kubesae.corpus import LocalFiles, Renderer, Tokenizer, open_source, read_manifest
from kubesae.doctor.check import failed, guarded, ok, warning
from kubesae.doctor.libraries import gpu_memory
from kubesae.doctor.machine import existing
from kubesae.doctor.storage import DEADLINE
from kubesae.errors import AccessError, StoreError
from kubesae.model import resolve_model
from kubesae.shards import codec
from kubesae.store import open_store
from kubesae.units import size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.doctor.check import Check
    from kubesae.experiment import Corpus, Experiment
    from kubesae.model import ModelSource

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|layer|blocks)\.(\d+)\.")
_HEAD = ("lm_head", "output_layer")


def model_checks(experiment: Experiment) -> Iterator[Check]:
    """Check the model, whether it fits, and the room for its activations. Raises what `resolve_model` raises."""
    source = resolve_model(experiment, hashed=False)
    loaded = experiment.layers[-1] + 1
    yield ok(
        "Model",
        f"{source.name}: {type(source.config).__name__.removesuffix('Config')}, d_model {source.d_model}; layers "
        f"0 to {loaded - 1} of {source.num_layers} are loaded",
    )
    yield from guarded("Model memory", lambda: _fits(experiment, source))
    yield from guarded("Activations", lambda: _room(experiment, source))


def corpus_checks(experiment: Experiment) -> Iterator[Check]:
    """Check the corpora, unless they have been prepared: then they are not read again."""
    manifest = None
    with suppress(StoreError, AccessError):  # named by the store's own check; the corpora may be there all the same
        manifest = read_manifest(open_store(experiment.data, deadline=DEADLINE))
    if manifest is not None:
        total = sum(shard.tokens for shard in manifest.shards)
        yield ok("Corpora", f"prepared: {total:,} tokens lie in the store, the corpora are not needed any more")
        return
    for corpus in experiment.corpora:
        yield from guarded(f"Corpus {corpus.name}", lambda corpus=corpus: _corpus(experiment, corpus))  # type: ignore[misc]


def _corpus(experiment: Experiment, corpus: Corpus) -> Iterator[Check]:
    source = open_source(corpus, experiment.seed)
    if corpus.messages:
        trust = experiment.trust_remote_code
        Renderer(Tokenizer.load(experiment.model, experiment.model_revision, trust_remote_code=trust))
    if isinstance(source, LocalFiles):
        total = sum(path.stat().st_size for path in source.files)
        found = f"{size(total)} in {len(source.files):,} file{'s' * (len(source.files) > 1)}, {source.root}"
    else:
        found = f"{corpus.source} on the hub, commit {source.commit[:12]}, {source.units:,} data files"
    yield ok(f"Corpus {corpus.name}", found)


def _fits(experiment: Experiment, source: ModelSource) -> Iterator[Check]:
    """Compare the weights that are loaded with the memory there is; says nothing of weights that are not here."""
    needed = weight_bytes(Path(source.path).expanduser(), experiment.layers[-1], DTYPE_BYTES[experiment.model_dtype])
    if needed is None or getattr(source.config, "quantization_config", None) is not None:
        return
    gpus = gpu_memory() if experiment.collect.device != "cpu" else 0
    total, available = (gpus, gpus) if gpus else limits.memory()
    where = "GPU memory" if gpus else "memory"
    found = f"{size(needed)} of weights are loaded, {size(available)} of {where} is available"
    if needed > total:
        advice = "Use a machine with more memory, or capture earlier layers: no layer after the last one is loaded."
        yield failed("Model memory", found, advice)
    elif needed > available:
        yield warning("Model memory", found, "Stop other programs first.")
    else:
        yield ok("Model memory", found)


def weight_bytes(folder: Path, last_layer: int, itemsize: int) -> int | None:
    """Return the bytes of the weights that are loaded for `last_layer`; None where none are in `folder`.

    Raises:
        ValueError: a file there is no safetensors file.

    """
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    total = 0
    for path in files:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            layer = _LAYER.search(name)
            wanted = layer is None or int(layer[1]) <= last_layer
            if name != "__metadata__" and wanted and not name.startswith(_HEAD):
                total += math.prod(tensor["shape"]) * itemsize
    return total if files else None


def _room(experiment: Experiment, source: ModelSource) -> Iterator[Check]:
    """Compare what the activations take with what is free, where they go to a disk of this machine."""
    store = open_store(experiment.data)
    row = len(experiment.layers) * codec(experiment.storage).row_bytes(source.d_model)
    needed = experiment.tokens * row
    found = f"{experiment.tokens:,} tokens x {size(row)} = {size(needed)}"
    if store.url.startswith("s3://"):
        yield ok("Activations", found)
        return
    there = sum(info.size for info in store.list("activations/").values())
    free = shutil.disk_usage(existing(Path(store.url))).free
    found += f", of which {size(there)} are there; {size(free)} free" if there else f"; {size(free)} free"
    if needed - there > free:
        yield failed("Activations", found, "Free some space, set `data` to a larger disk or to S3, or lower `tokens`.")
    else:
        yield ok("Activations", found)
