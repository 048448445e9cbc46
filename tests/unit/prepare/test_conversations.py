"""A corpus of conversations, from Parquet to shards: rendered, special where it should be, traced to its characters."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kubesae.corpus import Renderer, Tokenizer, open_source, read_shard_tokens
from kubesae.errors import ConfigError
from kubesae.experiment import sha256_hex
from kubesae.ledger import keys
from kubesae.prepare import prepare
from kubesae.shards import SPECIAL_TOKEN
from kubesae.shards.flags import position_flags
from kubesae.store import open_store
from preparing import rows_experiment, write_units
from tiny_models import text

if TYPE_CHECKING:
    from pathlib import Path

TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>"
TEMPLATE = "{{ bos_token }}{% for m in messages %}" + TURN + "{% endfor %}{{ eos_token }}"


def write_talks(folder: Path, template: str | None = TEMPLATE) -> Path:
    inputs = write_units(folder, [], template=template)
    talks = [
        [
            {"role": "user", "content": f"question {i}: {text(i)}"},
            {"role": "assistant", "content": f"<think>{text(i + 1)}</think>it is {i}, not <|im_end|>"},
        ]
        for i in range(12)
    ]
    pq.write_table(pa.table({"messages": talks}), inputs / "rows" / "talks.parquet")
    return inputs


def test_templates_tokens_are_special_and_every_piece_knows_its_character(tmp_path: Path) -> None:
    inputs, store = write_talks(tmp_path / "inputs"), open_store(str(tmp_path / "data"))
    experiment = rows_experiment(inputs, store.url, 900, num_shards=1, corpus_messages=["messages"])
    manifest = prepare(experiment, store).manifest
    tokens = read_shard_tokens(store, manifest, 0)
    tokenizer = Tokenizer.load(experiment.model, None)
    special = dict(zip(tokenizer.special_texts, tokenizer.info.special, strict=True))
    flags = position_flags(tokens.ids, np.arange(900) % 16, np.array(manifest.tokenizer.special, np.uint32))
    starts = np.flatnonzero(tokens.ids == special["<|im_start|>"])
    assert len(starts) >= 8
    assert (flags[starts] & SPECIAL_TOKEN).all()
    assert (np.flatnonzero(tokens.ids == special["<s>"]) % 16 == 0).all()  # only where a context begins
    ends = np.flatnonzero(tokens.ids == special["</s>"])
    assert not np.isin(ends + 1, ends).any()
    assert manifest.corpora[0].chat_template == sha256_hex(TEMPLATE.encode())

    documents = {document.name: document for document in open_source(experiment.corpora[0], 0).documents(0)}
    renderer = Renderer(tokenizer)
    rows = pq.read_table(io.BytesIO(store.read(keys.documents(0)))).to_pylist()
    for row in rows:
        rendered = renderer.render(documents[row["document"]].messages, "it")
        encoded = tokenizer.encode_marked([rendered])[0].bare(tokenizer.info.bos, tokenizer.info.eos)
        ids = [*encoded.ids.tolist(), special["</s>"]][row["offset"] : row["offset"] + row["tokens"]]
        assert tokens.ids[row["start"] : row["start"] + row["tokens"]].tolist() == ids
        if row["offset"] == 0:
            assert row["char"] == len("<s>")
    assert any("<think>" in renderer.render(document.messages, "it") for document in documents.values())


def test_another_template_is_other_data(tmp_path: Path) -> None:
    hashes = []
    for number, template in enumerate((TEMPLATE, TEMPLATE + "\n")):
        inputs = write_talks(tmp_path / str(number), template)
        store = open_store(str(tmp_path / str(number) / "data"))
        experiment = rows_experiment(inputs, store.url, 300, corpus_messages=["messages"])
        hashes.append(prepare(experiment, store).manifest.corpora[0].chat_template)
    assert hashes[0] != hashes[1]


def test_without_a_template_nothing_is_stored(tmp_path: Path) -> None:
    inputs, store = write_talks(tmp_path / "inputs", None), open_store(str(tmp_path / "data"))
    with pytest.raises(ConfigError, match="has no chat template") as caught:
        prepare(rows_experiment(inputs, store.url, 300, corpus_messages=["messages"]), store)
    assert caught.value.exit_code == 2
    assert store.list() == {}
