"""The tokens manifest: what was asked for, without paths, and a difference named by field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kubesae.corpus import Request, read_manifest, require_manifest
from kubesae.errors import ConfigError, DamagedError, IdentityError
from kubesae.experiment import sha256_hex
from kubesae.ledger import keys
from kubesae.store import open_store
from small_experiment import small_experiment, write_small

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


@pytest.fixture
def small(tmp_path: Path) -> Store:
    """Give a store with the small experiment."""
    store = open_store(str(tmp_path / "data"))
    write_small(store)
    return store


def test_the_manifest_is_the_hash_of_its_stored_bytes(small: Store) -> None:
    manifest = require_manifest(small)
    assert sha256_hex(small.read(keys.TOKENS_MANIFEST)) == manifest.sha256
    assert [shard.tokens for shard in manifest.shards] == [502, 501]


def test_a_request_says_nothing_of_the_machine(tmp_path: Path) -> None:
    experiment = small_experiment(
        "x", model=str(tmp_path / "tiny"), corpora=[{"name": "a", "source": str(tmp_path / "*.txt")}]
    )
    request = Request.of(experiment)
    assert str(tmp_path) not in request.model_dump_json()
    assert (request.model, request.corpora[0].source) == ("tiny", "*.txt")


def test_another_request_is_refused_by_field(small: Store) -> None:
    manifest = require_manifest(small)
    manifest.check_request(Request.of(small_experiment("elsewhere", layers=[7], storage="float32")), "there")
    other = small_experiment("x", tokens=2000, seed=3, corpora=[{"name": "planted", "source": "planted", "weight": 2}])
    with pytest.raises(IdentityError) as caught:
        manifest.check_request(Request.of(other), "there")
    message = str(caught.value)
    assert message.startswith("The tokens at there were made for another experiment; nothing was touched.")
    assert [line.split(":")[0] for line in message.splitlines() if line.startswith("  ")] == [
        "  corpora", "  tokens", "  seed",
    ]  # fmt: skip
    assert "  tokens: 1003 there, 2000 here" in message


def test_nothing_prepared_and_a_damaged_manifest(small: Store, tmp_path: Path) -> None:
    empty = open_store(str(tmp_path / "empty"))
    assert read_manifest(empty) is None
    with pytest.raises(ConfigError, match=r"There are no tokens at .* Run `kubesae prepare` first"):
        require_manifest(empty)
    small.put(keys.TOKENS_MANIFEST, b"x")
    with pytest.raises(DamagedError, match=r"tokens/manifest\.json is not JSON"):
        read_manifest(small)
    small.put(keys.TOKENS_MANIFEST, b"{}")
    with pytest.raises(ConfigError, match=r"tokens/manifest\.json: 4 fields are not right"):
        read_manifest(small)
