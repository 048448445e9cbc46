"""What is exported: an SAE, its interpretation and the answers about it, or some of its features.

    subject = Subject.open(data, output, "layer-012-topk-4608")
    subject.stored.statistics, subject.answers, subject.features

F = features of the SAE.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.corpus import Vocabulary, require_manifest
from kubesae.errors import ConfigError, MissingError
from kubesae.experiment import parse_json_object, sha256_hex
from kubesae.features import read_answers, read_interpretation
from kubesae.ledger import Plan, keys, require_identity
from kubesae.sae.named import open_named

if TYPE_CHECKING:
    import numpy.typing as npt

    from kubesae.corpus import TokensManifest
    from kubesae.experiment import DataIdentity
    from kubesae.features import Answers, CodeCache, Stored
    from kubesae.sae.named import NamedSae
    from kubesae.store import Store

NO_ANSWERS = "Labels, logits, neighbours and co-activation are not there: `kubesae interpret` writes them."
_EVALUATION_FORMAT = 2


@dataclass(frozen=True)
class Subject:
    """An SAE and what is known of its features. What is not given is read when it is first asked for."""

    data: Store
    output: Store
    identity: DataIdentity
    manifest: TokensManifest
    named: NamedSae
    asked: str | None
    """the features that were asked for, as text; None: all"""

    @classmethod
    def open(cls, data: Store, output: Store, name: str | None, features: str | None = None) -> Subject:
        """Find an SAE.

        Args:
            data: store of tokens.
            output: store of SAEs and interpretations.
            name: the SAE; None: the only one there is.
            features: as `parse_features` takes them; None: all.

        Raises:
            ConfigError: there is no data, or no such SAE.

        """
        identity, manifest = require_identity(data), require_manifest(data)
        return cls(data, output, identity, manifest, open_named(output, name, identity), features)

    @cached_property
    def stored(self) -> Stored:
        """The interpretation of these weights over this data. Raises ConfigError when there is none."""
        if self.optional_stored is None:
            raise ConfigError(
                f"SAE {self.named.name} at {self.output.url} has not been interpreted over {self.data.url}. "
                "Run `kubesae interpret` first."
            )
        return self.optional_stored

    @cached_property
    def optional_stored(self) -> Stored | None:
        """The interpretation of these weights over this data; None: there is none."""
        found = read_interpretation(self.output, self.named.name, self.named.sha256)
        return found if found is not None and found.info.source.identity == self.identity.sha256 else None

    @cached_property
    def answers(self) -> Answers | None:
        """What was answered about every feature; None: nothing yet."""
        stored = self.optional_stored
        return None if stored is None else read_answers(self.output, self.named.name, stored.info.to_json())

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """`evaluation.json` of these weights. Raises ConfigError when there is none."""
        key = keys.evaluation(self.named.name)
        try:
            found = parse_json_object(self.output.read(key), self.output.url_of(key))
        except MissingError:
            found = {}
        if found.get("sae_sha256") != self.named.sha256 or found.get("format") != _EVALUATION_FORMAT:
            raise ConfigError(
                f"SAE {self.named.name} at {self.output.url} has not been evaluated, or it was trained again since. "
                f"Run `kubesae evaluate --sae-name {self.named.name}` first."
            )
        return found

    @cached_property
    def features(self) -> npt.NDArray[np.int64]:
        """The features that were asked for, ascending."""
        total = self.named.sae.config.d_sae
        return np.arange(total) if self.asked is None else parse_features(self.asked, total)

    @cached_property
    def active(self) -> npt.NDArray[np.int64]:
        """Those of them that are active on any row, ascending."""
        count_F = self.stored.statistics["count"].to_numpy()
        active: npt.NDArray[np.int64] = self.features[count_F[self.features] > 0]
        return active

    @property
    def cache(self) -> CodeCache:
        """The sparse codes of all rows."""
        return self.stored.cache(self.output)

    @property
    def plan(self) -> Plan:
        """Where rows and contexts lie."""
        return Plan.of(self.identity)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's vocabulary."""
        return Vocabulary.read(self.data, self.manifest)

    @property
    def corpora(self) -> str:
        """What the tokens come from, as others name a data set."""
        return ",".join(corpus.source for corpus in self.manifest.request.corpora)

    @property
    def hook(self) -> str:
        """Where the model has these activations, by the name that SAELens and Neuronpedia give the place."""
        return f"blocks.{self.named.layer}.hook_resid_post"

    @property
    def model_id(self) -> str:
        """The model as others name it: without its owner, in lower case."""
        return self.identity.model.rpartition("/")[2].lower()

    def provenance(self) -> dict[str, Any]:
        """Return what all of it was made from."""
        stored, answers = self.optional_stored, self.answers
        return {
            "identity": self.identity.sha256,
            "model": self.identity.model,
            "model_revision": self.identity.model_revision,
            "tokens_manifest": self.manifest.sha256,
            "tokenizer_sha256": self.manifest.tokenizer.sha256,
            "sae": self.named.name,
            "sae_sha256": self.named.sha256,
            "layer": self.named.layer,
            "interpretation_sha256": None if stored is None else sha256_hex(stored.info.to_json()),
            "interpretation_format": None if stored is None else stored.info.format,
            "answers_sha256": None if answers is None else sha256_hex(answers.info.to_json()),
            "features": "all" if self.asked is None else self.features.tolist(),
        }

    def missing(self) -> list[str]:
        """Return what is not known of the features, a sentence each."""
        if self.answers is None:
            return [NO_ANSWERS]
        return [f"Logits are not there: {self.answers.info.no_head}"] if self.answers.info.no_head else []


_RUN = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


def parse_features(text: str, total: int) -> npt.NDArray[np.int64]:
    """Return the features of a list such as `0,5,10-20` (20 included), ascending and each once.

    Raises:
        ConfigError: it is no such list, or one of them is not a feature: there are `total`.

    """
    found: set[int] = set()
    for word in text.split(","):
        match = _RUN.fullmatch(word.strip())
        first = int(match[1]) if match else -1
        last = int(match[2] or first) if match else -1
        if match is None or last < first or last >= total:
            raise ConfigError(
                f"--features: {word.strip()!r} is no feature or run of features of this SAE, which has 0 to "
                f"{total - 1}. Give a list such as 0,5,10-20."
            )
        found.update(range(first, last + 1))
    return np.array(sorted(found), np.int64)
