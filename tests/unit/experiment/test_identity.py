"""Data identity: canonical, free of paths and time, and a difference is named field by field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kubesae.errors import EXIT_USER, DamagedError, IdentityError
from kubesae.experiment import DataIdentity, canonical_json, parse_json_object, public_name, sha256_hex

if TYPE_CHECKING:
    from pathlib import Path

VALUES: dict[str, Any] = {
    "tokens_manifest": "a" * 64,
    "model": "some/model",
    "model_revision": "b" * 40,
    "model_dtype": "bfloat16",
    "attention_across_documents": True,
    "layers": (1, 4),
    "d_model": 8,
    "storage": "bfloat16",
    "tokens": 1003,
    "num_shards": 2,
    "context": 16,
    "contexts_per_part": 12,
    "contexts_per_block": 5,
}


def test_the_identity_is_the_hash_of_the_stored_bytes() -> None:
    identity = DataIdentity(**VALUES)
    data = identity.to_json()
    assert data == canonical_json(json.loads(data))
    assert identity.sha256 == sha256_hex(data)
    assert DataIdentity.model_validate_json(data) == identity
    assert DataIdentity(**dict(reversed(VALUES.items()))).sha256 == identity.sha256


def test_the_identity_is_pinned() -> None:
    """Another digest here means that data collected before is refused: give the format a new version instead."""
    assert DataIdentity(**VALUES).sha256 == "c095031078b5310e610f0724c361cc12955e5999314748f410e26645b28571dd"


@pytest.mark.parametrize("field", list(VALUES))
def test_every_field_decides_it(field: str) -> None:
    value = VALUES[field]
    other = {bool: False, str: "x", int: 7, tuple: (1,)}[type(value)]
    assert DataIdentity(**VALUES | {field: other}).sha256 != DataIdentity(**VALUES).sha256


def test_a_difference_is_named_by_field_with_both_values() -> None:
    mine = DataIdentity(**VALUES)
    mine.check_same(DataIdentity(**VALUES), "out")
    theirs = DataIdentity(**VALUES | {"layers": (1,), "tokens": 99})
    with pytest.raises(IdentityError) as caught:
        mine.check_same(theirs, "out")
    assert caught.value.exit_code == EXIT_USER
    message = str(caught.value)
    assert message.startswith("The data at out belongs to another experiment; nothing was touched. It differs in\n")
    assert "  layers: [1] there, [1, 4] here\n  tokens: 99 there, 1003 here\n" in message
    assert "context" not in message


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("some/model", "some/model"),
        ("gpt2", "gpt2"),
        ("/home/me/models/tiny", "tiny"),
        ("./models/tiny/", "tiny"),
        ("../tiny", "tiny"),
        ("~/tiny", "tiny"),
        ("data/*.jsonl", "*.jsonl"),
        ("data/part-[0-9]?.jsonl", "part-[0-9]?.jsonl"),
    ],
)
def test_of_a_local_path_only_the_last_part_is_stored(source: str, name: str) -> None:
    assert public_name(source) == name


def test_a_relative_path_that_exists_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some" / "model").mkdir(parents=True)
    assert public_name("some/model") == "some/model"
    monkeypatch.chdir(tmp_path)
    assert public_name("some/model") == "model"


@pytest.mark.parametrize(
    ("data", "what"), [(b"{", "is not JSON"), (b"\xff", "is not JSON"), (b"[1]", "holds a JSON list")]
)
def test_a_stored_object_that_is_none_is_damaged(data: bytes, what: str) -> None:
    with pytest.raises(DamagedError, match=f"^the key {what}"):
        parse_json_object(data, "the key")
