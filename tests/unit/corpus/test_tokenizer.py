"""The tokenizer: text is data even where it spells a special token, and every token knows its character."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import huggingface_hub
import numpy as np
import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from kubesae.corpus import Tokenizer, TokensManifest, Vocabulary, require_manifest
from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import sha256_hex
from kubesae.ledger import keys
from kubesae.store import open_store
from small_experiment import write_small

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["the cat sat on the mat", "def f(x):\n    return x + 1\n", "héllo wörld 🙂 naïve", "", " "]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a folder with a byte-level tokenizer as transformers saves it: four special tokens, one added later."""
    inner = FastTokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS * 5, trainer)
    inner.enable_truncation(4)
    inner.enable_padding()
    inner.add_special_tokens([AddedToken("<|tool|>", special=True)])
    inner.add_tokens(["plainword"])
    path = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def tokenizer(folder: str) -> Tokenizer:
    return Tokenizer.load(folder, None)


def test_documents_are_encoded_whole_and_without_special_tokens(tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(tokenizer.definition)
    encoded = tokenizer.encode(TEXTS)
    assert [vocabulary.text(each.ids) for each in encoded] == TEXTS
    assert all(each.ids.dtype == np.uint32 for each in encoded)
    special = set(tokenizer.info.special)
    assert not any(special & set(each.ids.tolist()) for each in encoded)
    assert [len(each.ids) for each in encoded] == [len(tokenizer.encode([text])[0].ids) for text in TEXTS]


def test_text_that_spells_a_special_token_is_text(tokenizer: Tokenizer) -> None:
    text = "a <s> b</s><|tool|> <pad>"
    ids = tokenizer.encode([text])[0].ids.tolist()
    assert not set(tokenizer.info.special) & set(ids)
    assert Vocabulary(tokenizer.definition).text(ids) == text


def test_every_token_knows_the_character_it_begins_at(tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(tokenizer.definition)
    text = TEXTS[1] + TEXTS[0]
    encoded = tokenizer.encode([text])[0]
    for i in range(len(encoded.ids)):
        assert vocabulary.text(encoded.ids[i:]) == text[encoded.char(i) :]
    emoji = tokenizer.encode([TEXTS[2]])[0]
    starts = [emoji.char(i) for i in range(len(emoji.ids))]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert TEXTS[2].index("🙂") in starts


def test_what_the_manifest_says_of_it(tokenizer: Tokenizer) -> None:
    info = tokenizer.info
    assert info.sha256 == sha256_hex(tokenizer.definition)
    assert (info.bos, info.eos) == (0, 1)
    assert len(info.special) == 4
    assert list(info.special) == sorted(info.special)
    names = [Vocabulary(tokenizer.definition).text([i]) for i in info.special]
    assert names == ["<s>", "</s>", "<pad>", "<|tool|>"]
    assert info.size == max(json.loads(tokenizer.definition)["model"]["vocab"].values()) + 3


def test_the_definition_is_the_same_each_time_it_is_loaded(folder: str, tokenizer: Tokenizer) -> None:
    assert Tokenizer.load(folder, None).definition == tokenizer.definition
    tokenizer.encode(["more"])
    assert Tokenizer.load(folder, None).info == tokenizer.info


def test_a_tokenizer_without_a_fast_version(tmp_path: Path) -> None:
    ByT5Tokenizer(extra_ids=2).save_pretrained(tmp_path)
    tokenizer = Tokenizer.load(str(tmp_path), None)
    encoded = tokenizer.encode(["abc", "x</s>"])
    assert [len(each.ids) for each in encoded] == [3, 5]
    assert encoded[0].char(1) == -1
    assert Vocabulary(tokenizer.definition).text(encoded[1].ids) == "x</s>"
    assert tokenizer.info.eos in tokenizer.info.special
    assert tokenizer.info.bos is None


def test_a_folder_without_a_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "tokenizer.json").write_text('{"version"')
    (tmp_path / "damaged" / "config.json").write_text('{"model_type": "llama"}')
    for source in (str(tmp_path), str(tmp_path / "damaged"), str(tmp_path / "nowhere"), "some/model"):
        with pytest.raises(ConfigError, match=f"Cannot load the tokenizer of model '{source}'"):
            Tokenizer.load(source, None)


def test_the_stored_vocabulary_is_checked(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_small(store)
    manifest: TokensManifest = require_manifest(store)
    assert Vocabulary.read(store, manifest).text([2, 3, 0, 499]) == "w2 w3 <s> w499"
    store.put(keys.TOKENIZER, store.read(keys.TOKENIZER) + b" ")
    with pytest.raises(DamagedError, match=r"tokenizer\.json is not what tokens/manifest\.json says"):
        Vocabulary.read(store, manifest)


def _pieces(kind: str) -> bytes:
    """Define a tokenizer of a kind that people use."""
    bytes_and_words = {f"<0x{i:02X}>": i for i in range(256)} | {"▁": 256, "▁the": 257, "cat": 258}
    inner, decoder = {
        "bytes": (models.BPE(), decoders.ByteLevel()),
        "unigram": (models.Unigram(), decoders.Metaspace()),
        "wordpiece": (models.WordPiece(unk_token="<unk>"), decoders.WordPiece()),
        "byte-fallback": (
            models.BPE(bytes_and_words, [], byte_fallback=True),
            decoders.Sequence(
                [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            ),
        ),
    }[kind]
    tokenizer = FastTokenizer(inner)
    tokenizer.decoder = decoder
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(TEXTS * 20, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    elif kind == "unigram":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        special = {"special_tokens": ["<s>", "<unk>"], "unk_token": "<unk>"}
        tokenizer.train_from_iterator(TEXTS * 20, trainers.UnigramTrainer(**special, show_progress=False))
    elif kind == "wordpiece":
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.train_from_iterator(
            TEXTS * 20, trainers.WordPieceTrainer(special_tokens=["<unk>"], show_progress=False)
        )
    tokenizer.add_special_tokens([AddedToken("<|tool|>", special=True)])
    return tokenizer.to_str().encode()


@pytest.mark.parametrize("kind", ["bytes", "unigram", "wordpiece", "byte-fallback"])
def test_a_vocabulary_of_a_few_ids_decodes_them_as_the_whole_one(kind: str) -> None:
    definition = _pieces(kind)
    whole = Vocabulary(definition)
    size = FastTokenizer.from_str(definition.decode()).get_vocab_size()
    generator = np.random.Generator(np.random.PCG64(0))
    for _ in range(20):
        ids = [*generator.integers(0, size, 12).tolist(), size - 1, size + 5]
        few = Vocabulary(definition, ids)
        assert few.text(ids) == whole.text(ids)
        assert few.text(ids[3:7]) == whole.text(ids[3:7])


def test_a_vocabulary_of_a_few_ids_survives_a_token_with_two_ids(tokenizer: Tokenizer) -> None:
    definition = json.loads(tokenizer.definition)
    definition["model"]["vocab"]["again"] = 400
    definition["added_tokens"].append({**definition["added_tokens"][0], "id": 400, "content": "<s>"})
    data = json.dumps(definition).encode()
    assert Vocabulary(data, [0, 400]).text([0]) == Vocabulary(data).text([0])


def test_a_definition_whose_merges_do_not_come_last_is_read_whole() -> None:
    definition = json.loads(_pieces("bytes"))
    moved = {name: definition[name] for name in sorted(definition, reverse=True)}  # the decoder comes after the model
    assert list(moved).index("model") < list(moved).index("decoder")
    data = json.dumps(moved, separators=(",", ":"), ensure_ascii=False).encode()
    assert b',"merges":[' in data
    ids = list(range(60, 80))
    assert Vocabulary(data, ids).text(ids) == Vocabulary(_pieces("bytes")).text(ids)


@pytest.mark.parametrize("kind", ["bytes", "unigram", "wordpiece", "byte-fallback"])
def test_pieces_are_what_tokens_are_after_another_one(kind: str) -> None:
    definition = _pieces(kind)
    vocabulary, inner = Vocabulary(definition), FastTokenizer.from_str(definition.decode())
    ids = range(inner.get_vocab_size())
    pieces = vocabulary.pieces(ids)
    assert len(pieces) == len(ids)
    assert not any("\ufffd" in piece for piece in pieces if kind in {"bytes", "byte-fallback"})
    before = inner.token_to_id("a")
    if before is None:
        before = inner.token_to_id("▁a")
    for number, piece in zip(ids, pieces, strict=True):
        if "\\x" in piece or before is None:
            continue
        both = inner.decode([before, number], skip_special_tokens=False)
        assert both == inner.decode([before], skip_special_tokens=False) + piece


def test_pieces_that_are_no_character_are_their_bytes(folder: str) -> None:
    tokenizer = Tokenizer.load(folder, None)
    vocabulary = Vocabulary(tokenizer.definition)
    text = "naïve 🙂 wörld"
    (encoded,) = tokenizer.encode([text])
    pieces = vocabulary.pieces(encoded.ids)
    assert any(piece.startswith("\\x") for piece in pieces)
    spelled = re.compile(rb"\\x([0-9a-f]{2})")
    joined = spelled.sub(lambda found: bytes.fromhex(found[1].decode()), "".join(pieces).encode())
    assert joined.decode() == text
