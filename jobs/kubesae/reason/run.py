"""Reason: problems are solved by the live model, features of every generated token kept, ranked, and put to the test.

    kubesae reason experiment.yaml --problems problems.jsonl --name gsm8k

Where the whole model cannot be had, the solutions in the file are read in place of what it would write, through its
first layers alone: rankings of reasoning against ordinary text and their tests are then about these, and everything
that needs an answer is null, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - dataclasses look at it
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kubesae.corpus import Tokenizer, require_manifest
from kubesae.errors import ConfigError, HubError
from kubesae.features import read_answers, read_interpretation
from kubesae.ledger import Plan, keys, require_identity, share_of
from kubesae.model import resolve_model
from kubesae.model.whole import load_language_model, whole_bytes
from kubesae.reason.live import LiveModel, Sampling
from kubesae.reason.problems import INSTRUCTION, Problem, Prompts, read_problems
from kubesae.reason.reader import Reader, load_reader
from kubesae.reason.traces import (
    Traces,
    TraceSource,
    Written,
    merge,
    read_traces,
    remove_units,
    unit_key,
    units_of,
    write_unit,
)
from kubesae.sae.named import NamedSae, open_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubesae.corpus import TokensManifest
    from kubesae.experiment import DataIdentity, Experiment
    from kubesae.features import Stored
    from kubesae.model import ModelSource
    from kubesae.sae import Sae
    from kubesae.store import Store


GIVEN = 128
"""solutions read at a time where nothing is generated: a model of which only a layer fits is loaded each time"""


@dataclass(frozen=True)
class Asked:
    """What a run is about.

    Attributes:
        problems: the file.
        name: what the results are called.
        limit: the first so many problems only; None: all.
        instruction: what is said after each problem.
        batch: problems of one forward pass.
        most: tokens of an answer, at most.
        temperature: 0: the likeliest token always.
        seed: of all that is drawn.
        tested: features of each ranking that are tested.
        texts: ordinary texts that tokens are put into.
        text_tokens: their length.
        paraphrased: held-out problems that are rewritten.

    """

    problems: Path
    name: str
    limit: int | None = None
    instruction: str = INSTRUCTION
    batch: int = 8
    most: int = 256
    temperature: float = 0.0
    seed: int = 0
    tested: int = 10
    texts: int = 32
    text_tokens: int = 64
    paraphrased: int = 50


@dataclass
class Bench:
    """The model with its SAE and tokenizer, each part loaded when it is first needed."""

    experiment: Experiment
    data: Store
    output: Store
    identity: DataIdentity
    manifest: TokensManifest
    named: NamedSae
    source: ModelSource
    tokenizer: Tokenizer
    sae: Sae
    no_live: str = ""
    """why the whole model cannot be had, once that was tried"""
    _live: LiveModel | None = None
    _reader: Reader | None = None

    @classmethod
    def open(cls, experiment: Experiment, data: Store, output: Store, sae_name: str | None) -> Bench:
        """Open the data, the SAE and the tokenizer.

        Raises:
            ConfigError: there is no data or no such SAE, or the model is another one than the data's.

        """
        identity, manifest = require_identity(data), require_manifest(data)
        named = open_named(output, sae_name, identity)
        source = resolve_model(experiment)
        if source.revision != identity.model_revision:
            raise ConfigError(
                f"{experiment.model!r} here is revision {source.revision[:12]}, but the data was collected from "
                f"{identity.model_revision[:12]}. Give that one as `model`."
            )
        revision = None if source.path != source.name else source.revision
        tokenizer = Tokenizer.load(source.path, revision, trust_remote_code=source.trust_remote_code)
        sae = named.sae.to("cuda" if torch.cuda.is_available() else "cpu")
        return cls(experiment, data, output, identity, manifest, named, source, tokenizer, sae)

    @property
    def special(self) -> np.ndarray[Any, np.dtype[np.uint32]]:
        """Ids of special tokens."""
        return np.array(self.manifest.tokenizer.special, np.uint32)

    def live(self) -> LiveModel | None:
        """Return the whole model; None where it cannot be had, and `no_live` says why."""
        if self._live is None and not self.no_live:
            try:
                model = load_language_model(self.source, self.identity.model_dtype, "Give the process more memory.")
                self._live = LiveModel(model, self.source.num_layers, self.named.layer)
                self._reader = None
            except (ConfigError, HubError) as error:
                self.no_live = f"{error} {self._needed()}"
        return self._live

    def _needed(self) -> str:
        try:
            size = whole_bytes(self.source, self.identity.model_dtype)
        except Exception:  # noqa: BLE001 - no causal model: transformers raises what it likes
            return "Generation and interventions need a causal language model."
        return (
            f"Generation, interventions and a loss need all weight files of {self.source.name}, head included, and "
            f"{size / 1e9:.1f} GB of memory for them in {self.identity.model_dtype}."
        )

    def reader(self) -> Reader:
        """Return what reads texts through the first layers: the live model where it is there, else the engine."""
        if self._reader is None:
            if self._live is not None:
                self._reader = Reader(self._live, self.sae, self.special)
            else:
                wanted = self.experiment, self.source, self.named.layer, self.sae
                self._reader = load_reader(*wanted, self.manifest.tokenizer.special)
        return self._reader

    def interpretation(self) -> Stored | None:
        """Return the SAE's interpretation; None where there is none of it."""
        return read_interpretation(self.output, self.named.name, self.named.sha256)

    def labels(self) -> dict[int, str] | None:
        """Return the labels of features; None where there are none."""
        found = self.interpretation()
        if found is None:
            return None
        answers = read_answers(self.output, self.named.name, found.info.to_json())
        if answers is None:
            return None
        return dict(zip(answers.labels["feature"].to_pylist(), answers.labels["label"].to_pylist(), strict=True))

    def plan(self) -> Plan:
        """Return the plan of the data."""
        return Plan.of(self.identity)


def trace_source(bench: Bench, prompts: Prompts, asked: Asked, problems_sha256: str, *, generated: bool) -> TraceSource:
    """Return what decides the traces; settings of generation are 0 where there is none."""
    return TraceSource(
        identity=bench.identity.sha256,
        model=bench.source.revision,
        dtype=bench.identity.model_dtype,
        sae=bench.named.name,
        sae_sha256=bench.named.sha256,
        layer=bench.named.layer,
        problems_sha256=problems_sha256,
        limit=asked.limit,
        instruction=asked.instruction,
        chat=prompts.chat,
        generated=generated,
        batch=asked.batch if generated else GIVEN,
        most=asked.most,
        temperature=asked.temperature if generated else 0.0,
        seed=asked.seed if generated and asked.temperature else 0,
    )


def taken_problems(asked: Asked) -> tuple[list[Problem], str]:
    """Return the problems of a run, and the SHA-256 of their file."""
    problems, sha256 = read_problems(asked.problems)
    return problems[: asked.limit], sha256


def make_traces(
    bench: Bench,
    prompts: Prompts,
    problems: Sequence[Problem],
    asked: Asked,
    sha256: str,
    share: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Traces | None:
    """Return the traces of problems; what is stored is not made again.

    Args:
        bench: the model and its SAE.
        prompts: how problems are put.
        problems: in the order of their file.
        asked: settings.
        sha256: of the file of problems.
        share: number of this worker, and of all: it makes units index, index + of, ...
        progress: called with problems done and all of this worker's.

    Returns:
        None when other workers have not done their units.

    """
    wanted = trace_source(bench, prompts, asked, sha256, generated=True)
    stored = read_traces(bench.output, wanted, asked.name)
    if stored is None and bench.live() is None:
        wanted = trace_source(bench, prompts, asked, sha256, generated=False)
        stored = read_traces(bench.output, wanted, asked.name)
    if stored is None:
        if wanted.generated:
            _check_lengths(bench, prompts, problems, asked.most)
        _make_units(bench, prompts, problems, asked, wanted, share, progress)
        stored = merge(bench.output, wanted, asked.name, problems, bench.sae.config.d_sae)
    if stored is not None:
        remove_units(bench.output, stored, asked.name)
    return stored


def _make_units(
    bench: Bench,
    prompts: Prompts,
    problems: Sequence[Problem],
    asked: Asked,
    wanted: TraceSource,
    share: tuple[int, int],
    progress: Callable[[int, int], None],
) -> None:
    units = units_of(wanted, len(problems))
    there = set(bench.output.list(keys.reasoning_units(bench.named.name, asked.name)))
    mine = [i for i in share_of(len(units), *share) if unit_key(wanted, asked.name, i) not in there]
    total, done = sum(len(units[number]) for number in mine), 0
    for number in mine:
        batch = [problems[place] for place in units[number]]
        if wanted.generated:
            written = _generated(bench, prompts, batch, units[number], asked)
        else:
            written = _given(bench, prompts, batch, asked.most)
        write_unit(bench.output, wanted, asked.name, number, batch, written, bench.sae, bench.special)
        done += len(batch)
        progress(done, total)


def _check_lengths(bench: Bench, prompts: Prompts, problems: Sequence[Problem], most: int) -> None:
    """Raise ConfigError where a prompt and its answer may take more tokens than the model has positions."""
    longest: int | None = getattr(bench.source.text_config, "max_position_embeddings", None)
    if longest is None:
        return
    for problem in problems:
        needed = len(prompts.ids(problem.text, f"problem {problem.name}")) + most
        if needed > longest:
            raise ConfigError(
                f"Problem {problem.name} and its answer may take {needed:,} tokens, but the model takes at most "
                f"{longest:,}. Lower --max-tokens, which is {most:,}, or leave the problem out."
            )


def sampling_of(bench: Bench, asked: Asked) -> Sampling:
    """Return how answers are written: they end where the model's settings, or the tokenizer, say so."""
    live = bench.live()
    stop = live.stop_tokens if live is not None else frozenset()
    eos = bench.tokenizer.info.eos
    return Sampling(asked.most, stop | ({eos} if eos is not None else set()), asked.temperature, asked.seed)


def _generated(
    bench: Bench, prompts: Prompts, batch: Sequence[Problem], numbers: Sequence[int], asked: Asked
) -> list[Written]:
    live = bench.live()
    if live is None:
        raise ConfigError(bench.no_live)
    sampling = sampling_of(bench, asked)
    asked_ids = [prompts.ids(problem.text, f"problem {problem.name}") for problem in batch]
    answers = live.generate(asked_ids, numbers, sampling)
    found = []
    for prompt, answer in zip(asked_ids, answers, strict=True):
        ids_T = prompts.own(answer.ids_T)
        ended = len(ids_T) < len(answer.ids_T) or int(ids_T[-1]) in sampling.stop
        found.append(Written(prompt, ids_T, answer.x_TD[: len(ids_T)], bench.tokenizer.text(ids_T), ended=ended))
    return found


def _given(bench: Bench, prompts: Prompts, batch: Sequence[Problem], most: int) -> list[Written]:
    """Read the solutions in the file, cut to `most` tokens."""
    asked_ids = [prompts.ids(problem.text, f"problem {problem.name}") for problem in batch]
    solutions = [prompts.encode(f" {problem.solution}" if problem.solution else "")[:most] for problem in batch]
    outputs = bench.reader().outputs([np.concatenate(pair) for pair in zip(asked_ids, solutions, strict=True)])
    return [
        Written(prompt, ids, x_TD[len(prompt) :], problem.solution, ended=True)
        for problem, prompt, ids, x_TD in zip(batch, asked_ids, solutions, outputs, strict=True)
    ]
