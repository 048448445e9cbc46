"""What everything is checked against: identity, plan, manifest, the listing of what lies in the store, the tokens."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubesae.corpus import ShardTokens, read_documents, read_manifest, read_token_ids
from kubesae.errors import DamagedError, KubesaeError, MissingError, StoreError
from kubesae.experiment import sha256_hex
from kubesae.ledger import Damage, Finding, Plan, keys, require_identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubesae.corpus import TokensManifest
    from kubesae.experiment import DataIdentity
    from kubesae.store import ObjectInfo, Store

KEPT_SHARDS = 2
_NO_IDS = np.zeros(0, np.uint32)


@dataclass(frozen=True)
class Tokens:
    """What is known of a shard's tokens; a file that is damaged is None, and what is wrong with it among `findings`."""

    ids: npt.NDArray[np.uint32] | None
    documents: ShardTokens | None
    findings: tuple[Finding, ...]


@dataclass
class Context:
    """What a verification reads once. Thread-safe."""

    store: Store
    identity: DataIdentity
    plan: Plan
    manifest: TokensManifest | None
    objects: Mapping[str, ObjectInfo]
    findings: tuple[Finding, ...]
    """what is wrong with the manifest and the tokenizer"""
    _tokens: dict[int, Tokens] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, store: Store) -> Context:
        """Read identity, manifest and listing.

        Raises:
            ConfigError: nothing has been collected here.
            DamagedError: the identity is damaged, so that nothing can be checked against it.

        """
        identity = require_identity(store)
        manifest, findings = _manifest(store, identity)
        if manifest is not None:
            findings += _check_tokenizer(store, manifest)
        return cls(store, identity, Plan.of(identity), manifest, store.list("activations/"), tuple(findings))

    @cached_property
    def tars(self) -> dict[str, str]:
        """Key of the tar of each digest's first 12 digits: whose bytes are these?"""
        return {key.rsplit(".", 2)[1]: key for key in self.objects if key.endswith(".tar") and keys.parse_content(key)}

    def size(self, key: str) -> int | None:
        """Size of an object; None when it is not there. One that is not listed may have been committed since."""
        if key in self.objects:
            return self.objects[key].size
        try:
            return self.store.size(key)
        except MissingError:
            return None

    def url(self, key: str) -> str:
        """URL of an object."""
        return f"{self.store.url}/{key}"

    def tokens(self, shard: int) -> Tokens:
        """Tokens of a shard. Parts come by shard, so those of the last two that were asked for are kept."""
        with self._lock:
            found = self._tokens.pop(shard, None) or self._read_tokens(shard)
            self._tokens[shard] = found
            if len(self._tokens) > KEPT_SHARDS:
                del self._tokens[next(iter(self._tokens))]
            return found

    def _read_tokens(self, shard: int) -> Tokens:
        if self.manifest is None:
            return Tokens(None, None, ())
        ids, documents, findings = None, None, []
        try:
            ids = read_token_ids(self.store, self.manifest, shard)
            _check_npy(self.store, keys.tokens(shard), ids)
        except (DamagedError, MissingError) as error:
            findings.append(_token_finding(keys.tokens(shard), error))
        try:
            documents = read_documents(self.store, self.manifest, shard, _NO_IDS if ids is None else ids)
        except (DamagedError, MissingError) as error:
            findings.append(_token_finding(keys.documents(shard), error))
        return Tokens(ids, documents, tuple(findings))


def _manifest(store: Store, identity: DataIdentity) -> tuple[TokensManifest | None, list[Finding]]:
    key = keys.TOKENS_MANIFEST
    try:
        manifest = read_manifest(store)
    except StoreError:
        raise
    except KubesaeError as error:  # no JSON, or other fields
        return None, [_token_finding(key, error)]
    if manifest is None:
        return None, [Finding(kind=Damage.MISSING_TOKENS, key=key, detail="the manifest is not there")]
    digest = sha256_hex(store.read(key))
    if digest != identity.tokens_manifest:
        detail = f"its SHA-256 is {digest[:12]}, the identity names {identity.tokens_manifest[:12]}"
        return None, [Finding(kind=Damage.DAMAGED_TOKENS, key=key, detail=detail)]
    return manifest, []


def _check_tokenizer(store: Store, manifest: TokensManifest) -> list[Finding]:
    try:
        if sha256_hex(store.read(keys.TOKENIZER)) == manifest.tokenizer.sha256:
            return []
    except MissingError as error:
        return [_token_finding(keys.TOKENIZER, error)]
    return [Finding(kind=Damage.DAMAGED_TOKENS, key=keys.TOKENIZER, detail="its SHA-256 is not the manifest's")]


def _check_npy(store: Store, key: str, ids: npt.NDArray[np.uint32]) -> None:
    """Readers of npy forgive a changed space in the header and bytes behind the array; this raises DamagedError."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(ids))
    header = out.getvalue()
    if store.read(key, 0, len(header)) != header or store.size(key) != len(header) + ids.nbytes:
        raise DamagedError("its token ids are right, the bytes around them are not")


def _token_finding(key: str, error: Exception) -> Finding:
    missing = isinstance(error, MissingError)
    kind = Damage.MISSING_TOKENS if missing else Damage.DAMAGED_TOKENS
    return Finding(kind=kind, key=key, detail="it is not there" if missing else str(error))
