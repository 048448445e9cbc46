"""Commit records: small, canonical, and refused with the field that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubesae.errors import EXIT_USER, DamagedError
from kubesae.experiment import RECORD_BYTES, Experiment, canonical_json
from kubesae.ledger import LayerRecord, Numerics, Record, keys, parse_record, storage_fvu

SHA = "f" * 64
NUMERICS = Numerics(
    engine="resident",
    forward_batch=4096,
    device="NVIDIA H100 80GB HBM3 MIG 1g.20gb",
    threads=192,
    versions={"torch": "2.15.0.dev20260101+cu130", "transformers": "5.24.0.dev0"},
)


def make_record(layers: int, blocks: int, size: int = 10**10, storage_fvu: float | None = None) -> Record:
    return Record(
        identity=SHA,
        shard=9999,
        part=999_999,
        rows=10**8,
        tokens_sha256=SHA,
        layers=tuple(
            LayerRecord(
                layer=100 + number,
                key=keys.tar(100 + number, 9999, 999_999, SHA[:12]),
                bytes=size,
                sha256=SHA,
                blocks=(size,) * blocks,
                flags=(10**7,) * 3,
                moments=keys.moments(100 + number, 9999, 999_999, SHA[:12]),
                moments_sha256=SHA,
                storage_fvu=storage_fvu,
            )
            for number in range(layers)
        ),
        numerics=NUMERICS,
    )


VALUES: dict[str, Any] = json.loads(make_record(1, 2).to_json())


def test_a_record_is_canonical_json_and_comes_back() -> None:
    record = make_record(3, 16)
    data = record.to_json()
    assert data == canonical_json(json.loads(data))
    assert parse_record(data, "here") == record
    assert len(data) <= RECORD_BYTES


def test_a_record_says_nothing_of_time_host_or_attempt() -> None:
    assert set(VALUES) == {"format", "identity", "shard", "part", "rows", "tokens_sha256", "layers", "numerics"}
    assert set(VALUES["layers"][0]) == {
        "layer", "key", "bytes", "sha256", "blocks", "flags", "moments", "moments_sha256",
    }  # fmt: skip
    assert set(VALUES["numerics"]) == {"engine", "forward_batch", "device", "threads", "versions"}


def test_a_record_that_is_too_large_is_not_written() -> None:
    with pytest.raises(ValueError, match="more than 4096"):
        make_record(2, 300).to_json()


@pytest.mark.parametrize(("storage", "fvu"), [("bfloat16", None), ("int8-block32", 1.234e-100)])
@pytest.mark.parametrize("layers", range(1, 12))
@pytest.mark.parametrize("blocks", [1, 2, 8, 16, 17, 26, 27, 41, 42, 66, 67, 116, 117, 266, 267, 400])
def test_every_experiment_that_is_accepted_has_records_that_fit(
    layers: int, blocks: int, storage: str, fvu: float | None
) -> None:
    try:
        Experiment.model_validate(
            {
                "data": "out",
                "model": "m",
                "layers": list(range(layers)),
                "corpora": [{"name": "c", "source": "c"}],
                "contexts_per_part": blocks,
                "storage": storage,
            }
        )
    except ValueError as error:
        assert "do not fit into a commit record" in str(error)  # noqa: PT017 - an error need not be raised
        with pytest.raises(ValueError, match="more than 4096"):
            make_record(layers + 1, blocks + 20, storage_fvu=fvu).to_json()
    else:
        make_record(layers, blocks, storage_fvu=fvu).to_json()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"identity": "abc"}, "identity: String should match pattern"),
        ({"rows": "many"}, "rows: Input should be a valid integer"),
        ({"time": 3}, "time: Extra inputs are not permitted"),
        ({"layers": [{"layer": 1}]}, "layers.0.key: Field required"),
        ({"numerics": None}, "numerics: Input should be a valid dictionary"),
        ({"layers": [VALUES["layers"][0] | {"flags": [1, 2]}]}, "layers.0.flags.2: Field required"),
    ],
)
def test_what_is_no_record_is_damaged_and_says_where(change: dict[str, Any], field: str) -> None:
    with pytest.raises(DamagedError) as caught:
        parse_record(canonical_json(VALUES | change), "the key")
    assert caught.value.exit_code == EXIT_USER
    assert str(caught.value).startswith(f"the key is not a commit record: {field}")
    assert "delete it and collect again" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"not JSON", b"\x00\x01", b"[]", b"null"])
def test_what_is_not_json_is_damaged(data: bytes) -> None:
    with pytest.raises(DamagedError, match=r"^the key "):
        parse_record(data, "the key")


def test_two_attempts_agree_when_their_bytes_do() -> None:
    ours, theirs = make_record(2, 1), make_record(2, 1).model_copy(update={"numerics": NUMERICS})
    assert ours.hashes() == theirs.hashes()
    other = ours.layers[1].model_copy(update={"sha256": "0" * 64})
    assert ours.model_copy(update={"layers": (ours.layers[0], other)}).hashes() != theirs.hashes()
    assert ours.model_copy(update={"tokens_sha256": "0" * 64}).hashes() != theirs.hashes()


def test_the_error_of_storing_is_in_the_record_only_where_there_is_one() -> None:
    record = make_record(2, 2, storage_fvu=0.0004965)
    assert parse_record(record.to_json(), "here") == record
    assert json.loads(record.to_json())["layers"][0]["storage_fvu"] == 0.0004965
    assert storage_fvu([make_record(2, 2)]) == {}


def test_the_error_of_a_layer_is_the_mean_of_its_parts_by_rows() -> None:
    records = [
        make_record(2, 1, storage_fvu=fvu).model_copy(update={"rows": rows})
        for fvu, rows in ((0.001, 300), (0.002, 100), (None, 7))
    ]
    assert storage_fvu(records) == {"100": 0.00125, "101": 0.00125}
