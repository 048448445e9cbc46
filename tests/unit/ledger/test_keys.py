"""Every key in the bucket, exactly: other programs, the operator and people's scripts rely on them."""

from __future__ import annotations

import pytest

from kubesae.ledger import Block, keys

SHA12 = "3fa2b1c4d5e6"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (keys.TOKENS_MANIFEST, "tokens/manifest.json"),
        (keys.TOKENIZER, "tokens/tokenizer.json"),
        (keys.IDENTITY, "activations/identity.json"),
        (keys.INDEX, "activations/index.parquet"),
        (keys.LEDGER, "activations/ledger/"),
        (keys.tokens(3), "tokens/shard-0003.npy"),
        (keys.documents(3), "tokens/documents-0003.parquet"),
        (keys.dealt(3), "tokens/dealt-0003.json"),
        (keys.segment("wiki", 12), "tokens/segments/wiki/segment-000012"),
        (keys.digests("wiki", 12, SHA12), f"tokens/segments/wiki/digests-000012.{SHA12}.npy"),
        (keys.tar(45, 3, 7, SHA12), f"activations/layer-045/shard-0003/part-000007.{SHA12}.tar"),
        (keys.record(3, 7), "activations/ledger/shard-0003/part-000007.json"),
        (keys.moments(45, 3, 7, SHA12), f"activations/moments/layer-045/shard-0003/part-000007.{SHA12}.npz"),
        (keys.merged_moments(45), "activations/moments/layer-045.npz"),
        (keys.layer_urls(45), "activations/layer-045.txt"),
        (keys.verify_report("pilot"), "verify/pilot.json"),
        (keys.verify_report("all"), "verify/all.json"),
        (keys.run("release", SHA12), f"runs/release-{SHA12}.json"),
        (keys.sae_config("layer-045-topk-4608"), "sae/layer-045-topk-4608/config.json"),
        (keys.checkpoint_folder("x", 12_000), "sae/x/checkpoints/step-00012000/"),
        (keys.imported_folder("x"), "sae/x/imported/"),
        (keys.best("x"), "sae/x/best.json"),
        (keys.metrics("x", 12_000), "sae/x/metrics/00012000.jsonl"),
        (keys.report("x"), "sae/x/report.html"),
        (keys.evaluation("x"), "sae/x/evaluation.json"),
        (keys.evaluation_page("x"), "sae/x/evaluation.html"),
        (keys.interpretation("x", "interpret.json"), "interpret/x/interpret.json"),
        (keys.interpretation_unit("x", 12, SHA12), f"interpret/x/units/unit-000012.{SHA12}.npz"),
    ],
)
def test_keys_are_those_of_the_contract(key: str, expected: str) -> None:
    assert key == expected


def test_folders_hold_what_lies_in_them() -> None:
    assert keys.tar(1, 2, 3, SHA12).startswith(keys.shard_folder(1, 2))
    assert keys.shard_folder(1, 2).startswith(keys.layer_folder(1))
    assert keys.record(2, 3).startswith(keys.record_folder(2))
    assert keys.record_folder(2).startswith(keys.LEDGER)


def test_a_segment_is_known_by_its_last_object() -> None:
    assert keys.parse_segment(f"{keys.segment('wiki-2', 1_234_567)}.json") == 1_234_567
    for key in (
        f"{keys.segment('wiki', 3)}.npy",
        keys.digests("wiki", 3, SHA12),
        "tokens/segments/a/b/segment-000003.json",
    ):
        assert keys.parse_segment(key) is None
    assert all(key.startswith(keys.DEALT) for key in (keys.dealt(3), keys.tokens(3), keys.documents(3)))


def test_sample_keys_name_shard_part_and_block() -> None:
    assert Block(shard=3, part=7, index=12, start=0, rows=1).key == "s0003-p000007-b0012"


@pytest.mark.parametrize(
    "key",
    [
        "activations/ledger/shard-0003/part-000007.json.tmp",
        "activations/ledger/shard-0003/part-7.json",
        "activations/ledger/shard-00003/part-000007.json",
        "activations/ledger/shard-0003/part-0000007.json",
        "activations/ledger/shard-0003/x/part-000007.json",
        "other/activations/ledger/shard-0003/part-000007.json",
        "activations/ledger/shard-٠٠٠٣/part-000007.json",
        "tokens/manifest.json",
    ],
)
def test_no_other_key_is_that_of_a_record(key: str) -> None:
    assert keys.parse_record(key) is None
