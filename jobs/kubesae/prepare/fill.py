"""Which units of a corpus are tokenised, and by whom.

A corpus takes its units in order until they hold the contexts that are wanted. How many these are is known only when
they are tokenised, so of several workers each goes on ahead: worker I takes units I, I+N, I+2N, ... and stops as soon
as the segments that are there before its next unit are enough. None then stops short of a unit that is needed, and the
units that count, the first ones that hold enough, are the same for any number of workers. What was tokenised beyond
them is left alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubesae.corpus import Renderer, open_source
from kubesae.errors import ConfigError
from kubesae.experiment import canonical_json, sha256_hex
from kubesae.ledger import share_of
from kubesae.prepare.deal import Pool
from kubesae.prepare.digests import Digests
from kubesae.prepare.segments import SegmentMaker, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.corpus import Tokenizer
    from kubesae.experiment import Corpus, Experiment
    from kubesae.prepare.segments import Segment
    from kubesae.store import Store


@dataclass(frozen=True, slots=True)
class Filled:
    """The tokenised units of a corpus that count, the contexts to deal of them, and what the manifest says."""

    pool: Pool
    wanted: int
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filling:
    """Tokenises the units of one corpus.

    Attributes:
        corpus: the corpus.
        maker: makes and finds its segments.
        wanted: contexts that are dealt.
        goal: contexts that are tokenised.

    """

    corpus: Corpus
    maker: SegmentMaker
    wanted: int
    goal: int

    @classmethod
    def open(
        cls,
        experiment: Experiment,
        store: Store,
        tokenizer: Tokenizer,
        corpus: Corpus,
        wanted: int,
        *,
        shared: bool,
    ) -> Filling:
        """Open a corpus's source. Raises ConfigError when there is none, or no template for its messages."""
        source = open_source(corpus, experiment.seed)
        renderer = Renderer(tokenizer) if corpus.messages else None
        goal = math.ceil(wanted * corpus.pool)
        info = tokenizer.info
        settings = Settings(
            tokenizer=info.sha256,
            revision=source.revision(),
            documents=_documents_hash(experiment, corpus, renderer),
            context=experiment.context,
            bos=info.bos if experiment.bos else None,
            separator=info.eos if experiment.separator else None,
            limit=goal,
        )
        tag = sha256_hex(f"{settings.revision} {settings.documents}".encode())[:12]
        digests = Digests(store, source, corpus.name, tag, shared=shared) if corpus.dedup else None
        maker = SegmentMaker(store, tokenizer, source, corpus.name, settings, renderer, digests)
        return cls(corpus, maker, wanted, goal)

    def work(self, index: int, of: int, say: Callable[[str], None]) -> None:
        """Tokenise the units of worker `index` of `of`, as far as they may be needed."""
        there = self.maker.stored()
        for unit in share_of(self.maker.source.units, index, of):
            if sum(segment.contexts for number, segment in there.items() if number < unit) >= self.goal:
                return
            self.maker.make(unit)
            there = self.maker.stored() if of > 1 else self.maker.known
            say(
                f"Corpus {self.corpus.name}: {_contexts(there) * self.maker.settings.context:,} tokens, "
                f"{len(there)} of {self.maker.source.units} units"
            )

    def result(self) -> Filled | None:
        """Return the units that count; None while some are missing.

        Raises:
            ConfigError: all are there, and hold too little.

        """
        there = self.maker.stored()
        chosen: list[Segment] = []
        contexts = 0
        for unit in range(self.maker.source.units):
            if contexts >= self.goal:
                break
            if unit not in there:
                return None
            chosen.append(there[unit])
            contexts += there[unit].contexts
        pool = Pool(self.corpus.name, tuple(segment.contexts for segment in chosen))
        if pool.contexts < self.wanted:
            raise ConfigError(self._too_small(chosen))
        about: dict[str, Any] = {"revision": self.maker.settings.revision}
        if self.maker.renderer:
            about["chat_template"] = sha256_hex(self.maker.renderer.template.encode())
        if self.corpus.dedup:
            about["duplicates"] = sum(segment.duplicates for segment in chosen)
            about["duplicate_tokens"] = sum(segment.duplicate_tokens for segment in chosen)
        return Filled(pool, self.wanted, about)

    def _too_small(self, segments: list[Segment]) -> str:
        context = self.maker.settings.context
        contexts = sum(segment.contexts for segment in segments)
        dropped = sum(segment.duplicates for segment in segments)
        without = f" without {dropped:,} documents that came before" if dropped else ""
        return (
            f"Corpus {self.corpus.name} is too small: {self.corpus.source!r} gives {contexts} contexts of "
            f"{context} tokens ({contexts * context:,} tokens){without}, {self.wanted} are needed "
            f"({self.wanted * context:,}). Lower `tokens`, the corpus's `weight` or `context`, or add text."
        )


def _contexts(segments: dict[int, Segment]) -> int:
    return sum(segment.contexts for segment in segments.values())


def _documents_hash(experiment: Experiment, corpus: Corpus, renderer: Renderer | None) -> str:
    """Return a hash of what decides, beside the revision, which documents a unit has and how they are rendered."""
    values = corpus.model_dump(mode="json", exclude={"name", "source", "revision", "weight", "pool"})
    template = renderer and renderer.template
    return sha256_hex(canonical_json({"corpus": values, "seed": experiment.seed, "template": template}))
