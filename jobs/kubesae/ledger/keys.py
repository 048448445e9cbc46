"""Every key in the bucket. What a program reads or writes, it names through here.

Data keys are relative to the experiment's `data` prefix, the others to its `output` prefix.
"""

from __future__ import annotations

import re

TOKENS_MANIFEST = "tokens/manifest.json"
TOKENIZER = "tokens/tokenizer.json"
DEALT = ("tokens/dealt-", "tokens/documents-", "tokens/shard-")
"""what the keys of each shard's tokens begin with"""
IDENTITY = "activations/identity.json"
INDEX = "activations/index.parquet"
LEDGER = "activations/ledger/"

QUARANTINE = "activations/quarantine/"

CHECKPOINT_STATE = "trainer.json"
SAE_METADATA = "metadata.json"
SWEEP = "sae/sweep.json"
SWEEP_PAGE = "sae/sweep.html"
INTERPRETED = "interpret.json"
TRACED = "traces.json"
REASONED = "summary.json"
INTERPRETATIONS = "interpret/"

_RECORD = re.compile(r"activations/ledger/shard-(\d{4,})/part-(\d{6,})\.json", re.ASCII)
_SEGMENT = re.compile(r"tokens/segments/[a-z0-9-]+/segment-(\d{6,})\.json", re.ASCII)
_CONTENT = re.compile(
    r"activations/(?:moments/)?layer-\d{3,}/shard-(\d{4,})/part-(\d{6,})\.[0-9a-f]{12}\.(?:tar|npz)", re.ASCII
)


def tokens(shard: int) -> str:
    """Packed token ids of a shard."""
    return f"tokens/shard-{shard:04d}.npy"


def documents(shard: int) -> str:
    """Where each run of tokens of a shard came from."""
    return f"tokens/documents-{shard:04d}.parquet"


def segments(corpus: str) -> str:
    """Folder of the tokenised documents of a corpus."""
    return f"tokens/segments/{corpus}/"


def segment(corpus: str, index: int) -> str:
    """Tokenised documents of one unit of a corpus, without the ending (`.npy`, `.parquet`, `.json`)."""
    return f"{segments(corpus)}segment-{index:06d}"


def parse_segment(key: str) -> int | None:
    """Number of a segment, from the key of its `.json`, without which it does not exist; None for any other key."""
    match = _SEGMENT.fullmatch(key)
    return int(match[1]) if match else None


def digests(corpus: str, index: int, tag: str) -> str:
    """Hashes of the documents of one unit of a corpus; `tag`: of what decides the documents."""
    return f"{segments(corpus)}digests-{index:06d}.{tag}.npy"


def dealt(shard: int) -> str:
    """What was dealt to a shard, written after its files, until the manifest says it of all."""
    return f"tokens/dealt-{shard:04d}.json"


def tar(layer: int, shard: int, part: int, sha12: str) -> str:
    """The tar of one part and layer, named by its content."""
    return f"{shard_folder(layer, shard)}part-{part:06d}.{sha12}.tar"


def shard_folder(layer: int, shard: int) -> str:
    """Folder of a shard's tars."""
    return f"{layer_folder(layer)}shard-{shard:04d}/"


def layer_folder(layer: int) -> str:
    """Folder of a layer's tars."""
    return f"activations/layer-{layer:03d}/"


def layer_urls(layer: int) -> str:
    """The URLs of a layer's tars, one a line."""
    return f"activations/layer-{layer:03d}.txt"


def moments(layer: int, shard: int, part: int, sha12: str) -> str:
    """Mergeable moments of one part and layer, named by their content."""
    return f"activations/moments/layer-{layer:03d}/shard-{shard:04d}/part-{part:06d}.{sha12}.npz"


def merged_moments(layer: int) -> str:
    """Moments of a whole layer, written by verify."""
    return f"activations/moments/layer-{layer:03d}.npz"


def record(shard: int, part: int) -> str:
    """The commit record of a part: only what a record names exists."""
    return f"{record_folder(shard)}part-{part:06d}.json"


def record_folder(shard: int) -> str:
    """Folder of a shard's records."""
    return f"{LEDGER}shard-{shard:04d}/"


def parse_record(key: str) -> tuple[int, int] | None:
    """Shard and part of a record's key; None for any other key."""
    match = _RECORD.fullmatch(key)
    found = (int(match[1]), int(match[2])) if match else None
    return found if found and record(*found) == key else None


def parse_content(key: str) -> tuple[int, int] | None:
    """Shard and part of the key of a tar or of a part's moments, both named by content; None for any other key."""
    match = _CONTENT.fullmatch(key)
    return (int(match[1]), int(match[2])) if match else None


def quarantine(shard: int, part: int, sha12: str) -> str:
    """Copy of a record that repair replaced, named by its content: no copy replaces another."""
    return f"{QUARANTINE}shard-{shard:04d}/part-{part:06d}.{sha12}.json"


def verify_report(scope: str) -> str:
    """Report of a verification: scope `pilot` or `all`."""
    return f"verify/{scope}.json"


def verify_share(scope: str, index: int, of: int) -> str:
    """What worker `index` of `of` found, until the report is made of it."""
    return f"verify/{scope}-share-{index:04d}-of-{of:04d}.json"


def run(release: str, sha12: str) -> str:
    """What a run was started with."""
    return f"runs/{release}-{sha12}.json"


def sae_folder(name: str) -> str:
    """Folder of one SAE."""
    return f"sae/{name}/"


def sae_config(name: str) -> str:
    """Settings of an SAE: create-only."""
    return f"sae/{name}/config.json"


def checkpoints(name: str) -> str:
    """Folder of an SAE's checkpoints."""
    return f"sae/{name}/checkpoints/"


def checkpoint_folder(name: str, step: int) -> str:
    """Folder of one checkpoint of an SAE; without `CHECKPOINT_STATE`, written last, it is none."""
    return f"{checkpoints(name)}step-{step:08d}/"


def starts(who: str) -> str:
    """Folder of the starts of one replica of a training that made no progress yet."""
    return f"starts/{who}/"


def start(who: str, where: str, number: int) -> str:
    """The start with this number from the checkpoints that `where` names; an empty object."""
    return f"{starts(who)}{where}-{number}"


def imported_folder(name: str) -> str:
    """Folder of an SAE that another library trained."""
    return f"sae/{name}/imported/"


def best(name: str) -> str:
    """Pointer to an SAE's best checkpoint, written only after that is whole."""
    return f"sae/{name}/best.json"


def metrics(name: str, step: int) -> str:
    """Metrics segment of an SAE that ends at `step`."""
    return f"sae/{name}/metrics/{step:08d}.jsonl"


def tensorboard_folder(name: str) -> str:
    """Folder of an SAE's event files for TensorBoard."""
    return f"sae/{name}/tensorboard/"


def tensorboard(name: str, step: int, kind: str) -> str:
    """Event file of an SAE that ends at `step`; TensorBoard knows such files by their name, and reads them by order."""
    return f"{tensorboard_folder(name)}events.out.tfevents.{step:08d}.{kind}"


def report(name: str) -> str:
    """Training report of an SAE."""
    return f"sae/{name}/report.html"


def evaluation(name: str) -> str:
    """Evaluation of an SAE."""
    return f"sae/{name}/evaluation.json"


def evaluation_page(name: str) -> str:
    """Evaluation of an SAE as a page for people."""
    return f"sae/{name}/evaluation.html"


def interpretation(name: str, file: str) -> str:
    """One file of the interpretation of an SAE; `INTERPRETED` is written last."""
    return f"interpret/{name}/{file}"


def page(name: str) -> str:
    """The page of the features of an SAE, in one file; written last."""
    return interpretation(name, "index.html")


def page_file(name: str, file: str) -> str:
    """What the page of an SAE reads besides its features, such as `overview.json`."""
    return interpretation(name, f"page/{file}")


def page_features(name: str) -> str:
    """Folder of what the page shows of each feature."""
    return interpretation(name, "features/")


def page_index(name: str) -> str:
    """Where each feature lies in the file of all features."""
    return f"{page_features(name)}index.json.gz"


def page_bin(name: str, layer: int, sha12: str) -> str:
    """What the page shows of each feature, named by its content."""
    return f"{page_features(name)}layer-{layer:03d}.{sha12}.bin"


def interpretation_units(name: str) -> str:
    """Folder of the statistics of parts of the data, until the interpretation is made of them."""
    return f"interpret/{name}/units/"


def interpretation_codes(name: str) -> str:
    """Folder of the sparse-code cache of an SAE."""
    return f"interpret/{name}/codes/"


def interpretation_code(name: str, index: int, sha12: str) -> str:
    """Sparse codes of one unit of the data, named by their content."""
    return f"{interpretation_codes(name)}unit-{index:06d}.{sha12}.safetensors"


def interpretation_unit(name: str, index: int, sha12: str) -> str:
    """Statistics of one unit of the data, named by what they are made of."""
    return f"{interpretation_units(name)}unit-{index:06d}.{sha12}.npz"


def reasoning(sae: str, name: str, file: str) -> str:
    """One file of what an SAE's features do on a set of problems; `TRACED` and `REASONED` are written last."""
    return f"{reasonings(sae)}{name}/{file}"


def reasonings(sae: str) -> str:
    """Folder of all sets of problems of an SAE."""
    return f"reason/{sae}/"


def reasoning_units(sae: str, name: str) -> str:
    """Folder of the traces of some problems each, until all are put together."""
    return reasoning(sae, name, "units/")


def reasoning_unit(sae: str, name: str, index: int, sha12: str) -> str:
    """Traces of one unit of problems, named by what they are made of."""
    return f"{reasoning_units(sae, name)}unit-{index:06d}.{sha12}.json"


def reasoning_code(sae: str, name: str, index: int, sha12: str) -> str:
    """Sparse codes of the tokens of one unit of problems, named by their content."""
    return reasoning(sae, name, f"codes/unit-{index:06d}.{sha12}.safetensors")


def reasoning_list(sae: str) -> str:
    """All sets of problems of an SAE, for the page of its interpretation."""
    return interpretation(sae, "page/reasoning.json")
