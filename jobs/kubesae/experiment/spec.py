"""What an experiment is: one frozen pydantic model, and nothing else.

The YAML file, the command line's flags, the chart's `values.schema.json` and the reference page are all made from the
fields below; a field's description is its help text. Fields that decide what bytes are collected are marked in
`experiment/identity.py`; the rest (SAE settings, parallelism) may change between runs over the same data.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kubesae.experiment.presets import Preset, with_preset

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

# A commit record is one small object, so that listing and reading the ledger stays cheap.
RECORD_BYTES = 4096


class Section(BaseModel):
    """A part of the experiment: immutable, and no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def _or_preset(schema: dict[str, Any]) -> None:
    """Say in the schema of a corpus that a preset stands in for its required fields."""
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["preset"]}]


# Fields that came later are left out of what is stored where they have their default: older data keep their hashes.
def _is_none(value: object) -> bool:
    return value is None


def _is_false(value: object) -> bool:
    return value is False


class Corpus(Section):
    """Documents to run the model over."""

    model_config = ConfigDict(json_schema_extra=_or_preset)

    # Never kept: a preset and what it stands for, written out, are the same data.
    preset: Preset | None = Field(
        None,
        exclude=True,
        description="a well-known data set, which fills what is not written here (docs/corpora.md)",
    )
    name: Name = Field(description="name of the corpus in reports and in every row's origin")
    source: str = Field(description="a Hugging Face dataset id, or a local file, folder or glob")
    format: Literal["auto", "text", "jsonl", "parquet", "source", "hub"] = Field(
        "auto",
        description="auto: by the source; text: a document a file; jsonl, parquet: a document a row; "
        "source: text files of a source tree; hub: a Hugging Face dataset",
    )
    config: str | None = Field(None, description="configuration of a hub dataset")
    split: str = Field("train", description="split of a hub dataset")
    revision: str | None = Field(None, description="revision of a hub dataset (resolved to a commit and recorded)")
    field: str = Field("text", description="column that holds a document's text (jsonl, parquet, hub)")
    messages: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        max_length=2,
        exclude_if=_is_none,
        description="a document is a conversation, rendered by the tokenizer's chat template: the column of its "
        "messages, or the two columns of a question and its answer (in place of `field`)",
    )
    dedup: bool = Field(
        False,
        exclude_if=_is_false,
        description="drop every document whose text, byte for byte, came before in this corpus",
    )
    weight: float = Field(1.0, gt=0, description="share of the tokens, relative to the other corpora")
    pool: float = Field(
        1.0,
        ge=1,
        description="tokenise this many times the tokens needed and deal from them: above 1 the contexts come from "
        "more documents",
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve_preset(cls, values: Any) -> Any:
        return with_preset(values) if isinstance(values, dict) else values


class Pilot(Section):
    """The first part of shard 0, collected and verified before the rest."""

    tokens: Positive = Field(10_000_000, description="tokens of the pilot")
    chunk: Positive = Field(5_000_000, description="tokens of one chunk of the pilot, for its progress lines")


class Collect(Section):
    """How activations are collected. None of it is identity; all of it is recorded with each part."""

    engine: Literal["resident", "streamed"] = Field(
        "resident",
        description="resident: the truncated model fits the slot; streamed: a layer does, and each is loaded once for "
        "`block_tokens`",
    )
    block_tokens: Positive = Field(
        65_536,
        description="tokens, of whole parts, that pass a layer before the next one is loaded (streamed): their hidden "
        "states are held in memory, and all of them are done again after an interruption",
    )
    weights: Literal["auto", "cached", "direct"] = Field(
        "auto",
        description="how layers are read (streamed); cached: through the page cache, which workers of a node share; "
        "direct: past it; auto: cached where all of them fit this worker's memory",
    )
    device: str = Field(
        "auto",
        description="auto: all GPUs of the slot, else the CPU; or a torch device, or several with commas between them",
    )
    forward_batch: Positive = Field(8, description="contexts in one forward pass; halved when memory runs out")
    threads: int | None = Field(None, ge=1, description="CPU threads of one worker (default: cores / workers)")
    queue: Positive = Field(2, description="parts that may wait for their upload before the model has to wait")
    deadline: float = Field(600.0, gt=0, description="seconds that one upload may take in all, retries included")


class Verify(Section):
    """How collected data is checked."""

    mode: Literal["ledger", "full"] = Field(
        "ledger", description="ledger: records and object sizes; full: read and check every byte"
    )


class Sae(Section):
    """One sparse autoencoder and how it is trained. Learning settings are fixed by its name once it has started."""

    name: Name | None = Field(None, description="name of the SAE (default: layer-LLL-ARCHITECTURE-D_SAE)")
    layer: int | None = Field(None, ge=0, description="layer whose output is reconstructed (default: the only one)")
    architecture: Literal["relu", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"] = Field(
        "relu",
        description="relu: ReLU + L1; topk: k features each token; batchtopk: k a token on average; matryoshka: "
        "batchtopk whose first features reconstruct by themselves; jumprelu: a trained threshold each feature; gated: "
        "a trained gate each feature",
    )
    d_sae: Positive | None = Field(None, description="number of features (default: expansion x d_model)")
    expansion: Positive = Field(8, description="features per model dimension, when d_sae is not given")
    decoder: Literal["auto", "free", "unit"] = Field(
        "auto",
        description="norms of the decoder's rows: free, or 1 (unit; relu then has a plain L1 penalty); auto: unit but "
        "for relu and jumprelu by Anthropic's recipe",
    )
    b_dec_start: Literal["median", "mean"] = Field(
        "median", description="of a sample, what the decoder's bias starts as (median: the geometric one)"
    )
    l1_coeff: float = Field(1e-3, ge=0, description="sparsity coefficient of relu and gated")
    l0_coeff: float = Field(
        1e-3, ge=0, description="sparsity coefficient of jumprelu: how much FVU one more active feature has to save"
    )
    jumprelu_recipe: Literal["anthropic", "gdm"] = Field(
        "anthropic",
        description="how thresholds are trained; anthropic: a tanh penalty and a wide kernel; gdm: the L0 itself and a "
        "narrow kernel, which needs a long training",
    )
    threshold_reach: float = Field(
        20.0,
        gt=0,
        description="how far the logarithms of jumprelu's thresholds can move in the whole run: sets their rate",
    )
    target_l0: float | None = Field(
        None, gt=0, description="find the sparsity coefficient that gives this validation L0 (relu, jumprelu, gated)"
    )
    k: Positive = Field(64, description="active features per token (topk, batchtopk, matryoshka)")
    k_start: Positive | None = Field(
        None, description="active features per token at the start, which fall to k over k_anneal (default: k)"
    )
    k_anneal: Fraction = Field(0.1, description="share of the steps over which k_start falls to k")
    prefixes: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (1 / 16, 1 / 8, 1 / 4, 1 / 2), description="shares of the features that reconstruct by themselves (matryoshka)"
    )
    k_aux: Positive | None = Field(
        None, description="dead features that reconstruct what a row's living ones leave over (AuxK; default: k)"
    )
    auxk_coeff: float = Field(
        1 / 32, ge=0, description="weight of the AuxK loss, which revives dead features (topk, batchtopk, matryoshka)"
    )
    dead_after: Positive | None = Field(
        None,
        description="tokens without activation after which AuxK or resampling revives a feature (default: a twentieth "
        "of all that training takes, at most 10 million)",
    )
    resample: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (),
        description="shares of the steps after which dead features start anew from rows that are reconstructed "
        "badly (relu, jumprelu, gated; default: never)",
    )
    lr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="learning rate of Adam (default: 3e-4 for relu; else 0.11 / sqrt(steps), at most 0.005)"
    )
    lr_warmup: Fraction = Field(0.05, description="share of the steps over which the learning rate rises")
    lr_decay: Fraction = Field(0.2, description="share of the steps, at the end, over which the rate falls to 0")
    lr_decay_shape: Literal["linear", "cosine"] = Field("linear", description="how it falls")
    sparsity_warmup: Fraction = Field(0.1, description="share of the steps over which the sparsity coefficient rises")
    batch_size: Positive = Field(8192, description="tokens in one optimiser step, over all ranks")
    epochs: Positive = Field(3, description="passes over the training data")
    max_tokens: Positive | None = Field(None, description="use only about this many tokens of the data")
    validation: Fraction = Field(0.02, description="share of the blocks kept for validation (at least 2 blocks)")
    shuffle_rows: Positive = Field(65_536, description="rows of the window over which rows are shuffled")
    seed: int = Field(0, ge=0, description="seed of the initial weights")
    order_seed: int = Field(
        0, ge=0, description="seed of the order of the data; SAEs that want the same order read the data once, together"
    )


class Interpret(Section):
    """What interpretation keeps of each feature."""

    top_k: Positive = Field(20, description="top activating rows kept for each feature")
    samples: Positive = Field(20, description="random active rows kept for each feature")
    context_tokens: Positive = Field(16, description="tokens shown on each side of an activating token")
    unit_tokens: Positive = Field(
        1_048_576,
        description="tokens, at least, that a worker encodes before it stores what it found, in memory until then",
    )


class Experiment(Section):
    """A language model, a corpus, the layers to capture, and the SAEs to train on them."""

    name: Name = Field("experiment", description="name of the experiment (the release)")
    data: str = Field(description="prefix that holds tokens and activations: a folder or s3://bucket/path")
    output: str | None = Field(None, description="prefix for SAEs and interpretation (default: data)")

    model: str = Field(description="a Hugging Face model id, or a local folder in its format")
    model_revision: str | None = Field(None, description="revision of a hub model (resolved to a commit and recorded)")
    trust_remote_code: bool = Field(False, description="run Python code that the model's repository ships")
    model_dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="the model computes in this")
    layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1, description="layers whose output is captured, from 0, all in one forward pass"
    )
    storage: Literal["bfloat16", "float32", "int8-block32"] = Field(
        "bfloat16",
        description="activations are stored as this; int8-block32 has half the bytes of bfloat16, its error recorded",
    )

    corpora: tuple[Corpus, ...] = Field(min_length=1, description="the corpora, mixed by weight")
    tokens: Positive = Field(1_000_000_000, description="tokens to collect, exactly")
    num_shards: Positive = Field(4, description="shards, each the share of one worker slot (a GPU pair)")
    context: Positive = Field(2048, ge=2, description="tokens of one packed context")
    bos: bool = Field(True, description="begin every context with the tokenizer's BOS, where it has one")
    separator: bool = Field(True, description="end every document with the tokenizer's EOS, where it has one")
    attention_across_documents: bool = Field(
        True, description="tokens see earlier documents of their context; false: each document by itself"
    )
    seed: int = Field(0, ge=0, description="seed of the order of documents and of the deal of contexts to shards")
    contexts_per_part: Positive = Field(16, description="contexts of one part: one tar, the unit of commit")
    contexts_per_block: Positive = Field(1, description="contexts of one block: one sample of the tar")
    chunk: Positive = Field(10_000_000, description="tokens of one chunk, for progress lines")

    pilot: Pilot = Field(Pilot(), description="the pilot")
    collect: Collect = Field(Collect(), description="collection")
    verify: Verify = Field(Verify(), description="verification")
    sae: tuple[Sae, ...] = Field((Sae(),), description="the sparse autoencoders")
    interpret: Interpret = Field(Interpret(), description="interpretation")

    @property
    def output_prefix(self) -> str:
        """Where SAEs and interpretation go."""
        return self.output or self.data

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers names a layer twice: {list(self.layers)}; name each once")
        if list(self.layers) != sorted(self.layers):
            raise ValueError(f"layers must ascend: {list(self.layers)}; write them as {sorted(self.layers)}")
        names = [corpus.name for corpus in self.corpora]
        if len(set(names)) != len(names):
            raise ValueError(f"two corpora have the same name: {names}; give each its own")
        if self.contexts_per_block > self.contexts_per_part:
            raise ValueError(
                f"contexts_per_block ({self.contexts_per_block}) is more than contexts_per_part "
                f"({self.contexts_per_part}): lower it"
            )
        blocks = -(-self.contexts_per_part // self.contexts_per_block)
        if _record_bytes(len(self.layers), blocks, self.storage) > RECORD_BYTES:
            raise ValueError(
                f"{len(self.layers)} layers with {blocks} blocks a part do not fit into a commit record of "
                f"{RECORD_BYTES} bytes: raise contexts_per_block, lower contexts_per_part, or capture fewer layers"
            )
        if self.tokens < self.num_shards:
            raise ValueError(f"{self.tokens} tokens cannot fill {self.num_shards} shards: lower num_shards")
        for sae in self.sae:
            if sae.layer is not None and sae.layer not in self.layers:
                raise ValueError(
                    f"an SAE names layer {sae.layer}, which is not in layers {list(self.layers)}: choose one of these"
                )
        return self


def _record_bytes(layers: int, blocks: int, storage: str) -> int:
    """Return the most that the commit record of a part takes: its own fields, each layer's, an offset a block."""
    error = 30 if storage == "int8-block32" else 0
    return 500 + layers * (400 + error + 12 * blocks)
