"""Where documents come from: local files of every kind, in an order of the seed, and a hub that may be away."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kubesae.corpus import HubDataset, LocalFiles, TextDocument, open_source
from kubesae.errors import ConfigError
from kubesae.experiment import Corpus

if TYPE_CHECKING:
    from pathlib import Path


def corpus(source: Path | str, **fields: Any) -> Corpus:
    return Corpus(name="text", source=str(source), **fields)


def read(source: Path | str, seed: int = 0, **fields: Any) -> dict[str, str]:
    opened = open_source(corpus(source, **fields), seed)
    found = [document for unit in range(opened.units) for document in opened.documents(unit)]
    assert len({document.name for document in found}) == len(found)
    return {document.name: document.text for document in found}


def write_rows(path: Path, *texts: Any, column: str = "text") -> Path:
    path.write_text("".join(json.dumps({column: text, "id": i}) + "\n" for i, text in enumerate(texts)))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a folder as people have them: text, a binary file, an empty one, what tools leave behind."""
    for name, data in {
        "a.py": b"print('a')\n",
        "sub/b.txt": "größer".encode(),
        "sub/deep/c": b"no ending",
        "settings.json": b'{"text": "not a row"}',
        "image.png": b"\x89PNG\r\n\x00\x00",
        "latin1.txt": "größer".encode("latin-1"),
        "empty.txt": b"",
        "__pycache__/a.pyc": b"text",
        ".git/config": b"text",
    }.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "tree"


TEXTS = {"a.py": "print('a')\n", "sub/b.txt": "größer", "sub/deep/c": "no ending"}


@pytest.mark.parametrize("kind", ["auto", "text", "source"])
def test_a_source_tree_is_its_text_files(tree: Path, kind: str) -> None:
    assert read(tree, format=kind) == TEXTS | {"settings.json": '{"text": "not a row"}'}


def test_globs_and_single_files(tree: Path) -> None:
    assert read(tree / "*.py") == {"a.py": TEXTS["a.py"]}
    assert read(tree / "sub" / "b.txt") == {"b.txt": TEXTS["sub/b.txt"]}
    assert read(tree / "sub" / "**" / "*") == {"b.txt": TEXTS["sub/b.txt"], "deep/c": TEXTS["sub/deep/c"]}
    assert read(tree / "s?b") == {"b.txt": TEXTS["sub/b.txt"], "deep/c": TEXTS["sub/deep/c"]}


def test_a_name_with_glob_characters_is_taken_as_it_is(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "part[1]*.jsonl", "one")
    assert read(path) == {"part[1]*.jsonl:0": "one"}


def test_a_file_name_that_is_not_utf8_is_still_a_name(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    assert read(tmp_path) == {"caf\ufffd.txt": "x"}
    assert len(open_source(corpus(tmp_path), 0).revision()) == 64


def test_a_character_cut_by_the_look_at_the_head_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 4095 + "ö" * 10, encoding="utf-8")
    assert read(tmp_path)["a.txt"].endswith("ö" * 10)


def test_broken_links_are_left_out(tree: Path) -> None:
    (tree / "link.py").symlink_to(tree / "nowhere.py")
    assert "link.py" not in read(tree / "*")
    assert len(read(tree / "*.py")) == 1


def test_json_lines_and_parquet_are_a_document_a_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", "one", "two\nlines")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "README.md").write_text("not a row")
    assert read(tmp_path) == {"a.jsonl:0": "one", "a.jsonl:1": "two\nlines"}
    folder = tmp_path / "parquet"
    folder.mkdir()
    pq.write_table(pa.table({"content": ["x", "y"]}), folder / "b.parquet")
    assert read(folder, field="content") == {"b.parquet:0": "x", "b.parquet:1": "y"}
    assert read(write_rows(tmp_path / "c.json", "z"), format="jsonl") == {"c.json:0": "z"}
    assert read(tmp_path / "c.json") == {"c.json:0": "z"}


def test_two_kinds_of_rows_need_to_be_told_apart(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", "one")
    pq.write_table(pa.table({"text": ["two"]}), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"has JSON lines and Parquet. Set its `format`"):
        open_source(corpus(tmp_path), 0)
    assert read(tmp_path, format="parquet") == {"b.parquet:0": "two"}
    assert list(read(tmp_path, format="text")) == ["a.jsonl"]


def test_many_text_files_are_grouped_and_ordered_by_the_seed_alone(tmp_path: Path) -> None:
    for i in range(130):
        (tmp_path / f"{i:03d}.txt").write_text(str(i))
    opened = open_source(corpus(tmp_path), 0)
    assert isinstance(opened, LocalFiles)
    assert opened.units == 3
    first = list(read(tmp_path))
    assert first != sorted(first)
    assert list(read(tmp_path)) == first
    assert list(read(tmp_path, seed=1)) != first
    assert sorted(read(tmp_path, seed=1)) == sorted(first)


def test_the_revision_is_of_names_and_contents_wherever_they_lie(tmp_path: Path) -> None:
    revisions = []
    for place, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / place / "data").mkdir(parents=True)
        (tmp_path / place / "data" / "f.txt").write_text(text)
        revisions.append(open_source(corpus(tmp_path / place / "data"), 0).revision())
    assert revisions[0] == revisions[1] != revisions[2]
    assert open_source(corpus(tmp_path / "a" / "data"), 7).revision() == revisions[0]


@pytest.mark.parametrize(
    ("source", "fields", "message"),
    [
        ("/nowhere/at/all", {}, "no file matches '/nowhere/at/all'. Give a file, a folder or a glob"),
        ("./nowhere.txt", {}, "no file matches './nowhere.txt'"),
        ("nowhere/*.txt", {}, r"no file matches 'nowhere/\*.txt'"),
        ("nowhere", {"format": "text"}, "no file matches 'nowhere'"),
    ],
)
def test_a_source_that_is_not_there(source: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"Corpus text: {message}"):
        open_source(corpus(source, **fields), 0)


def test_a_source_without_text(tree: Path, tmp_path: Path) -> None:
    for source in (tree / "image.png", tree / "empty.txt"):
        with pytest.raises(ConfigError, match="Corpus text: there is no file with text in"):
            open_source(corpus(source), 0)
    with pytest.raises(ConfigError, match="there is no parquet file with text in"):
        open_source(corpus(tree, format="parquet"), 0)
    (tmp_path / "void").mkdir()
    with pytest.raises(ConfigError, match="there is no file with text in"):
        open_source(corpus(tmp_path / "void"), 0)


def test_rows_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"a\.jsonl has no column 'content'; it has text, id. Set the corpus's `field`"
    ):
        read(write_rows(tmp_path / "a.jsonl", "one"), field="content")
    with pytest.raises(ConfigError, match=r"b\.jsonl, row 0: column 'text' holds int, not text"):
        read(write_rows(tmp_path / "b.jsonl", 3))
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n{"text": ')
    with pytest.raises(ConfigError, match=r"c\.jsonl cannot be read as json: .*Mend it, or leave it out"):
        read(tmp_path / "c.jsonl")
    (tmp_path / "d.parquet").write_text("not Parquet")
    with pytest.raises(ConfigError, match=r"d\.parquet cannot be read as parquet"):
        read(tmp_path / "d.parquet")


def test_without_the_hub_its_datasets_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"Cannot load the dataset 'some/dataset' .*no such local path"):
        open_source(corpus("some/dataset"), 0)
    with pytest.raises(ConfigError, match=r"Cannot load the dataset '\./nowhere'"):
        open_source(corpus("./nowhere", format="hub"), 0)


def test_a_hub_dataset_is_streamed_file_by_file(tmp_path: Path) -> None:
    """The same class that the hub gives, over local files."""
    files = [str(write_rows(tmp_path / f"{i}.jsonl", f"{i}a", f"{i}b")) for i in range(3)]
    streamed = datasets.load_dataset("json", data_files=files, split="train", streaming=True)
    opened = HubDataset(streamed, "c0ffee", "text")
    assert (opened.units, opened.revision()) == (3, "c0ffee")
    units = [[(document.name, document.text) for document in opened.documents(unit)] for unit in range(3)]
    assert units[1] == [("file-00001:0", "1a"), ("file-00001:1", "1b")]
    assert [text for unit in units for _, text in unit] == ["0a", "0b", "1a", "1b", "2a", "2b"]


TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>t</think>a"}]


def test_rows_of_the_shapes_that_presets_have(tmp_path: Path) -> None:
    """OpenR1: Parquet with lists of structs; ShareGPT as JSON lines; a question and its answer; code."""
    pq.write_table(pa.table({"problem": ["q"], "messages": [TALK], "solution": ["a"]}), tmp_path / "r1.parquet")
    share = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "<think>t</think>a"}]
    (tmp_path / "share.jsonl").write_text(json.dumps({"system": "s", "conversations": share}) + "\n")
    for source, columns in (("r1.parquet", ["messages"]), ("share.jsonl", ["conversations"])):
        opened = open_source(corpus(tmp_path / source, messages=columns), 0)
        (document,) = opened.documents(0)
        assert (document.name, document.text, list(document.messages)) == (f"{source}:0", "", TALK)
    opened = open_source(corpus(tmp_path / "r1.parquet", messages=["problem", "solution"]), 0)
    (document,) = opened.documents(0)
    assert [message["content"] for message in document.messages] == ["q", "a"]
    pq.write_table(
        pa.table({"repo_name": ["r"], "content": ["print()"], "license": ["mit"]}), tmp_path / "code.parquet"
    )
    assert read(tmp_path / "code.parquet", field="content") == {"code.parquet:0": "print()"}


def test_a_hub_dataset_of_conversations(tmp_path: Path) -> None:
    pq.write_table(pa.table({"messages": [TALK, TALK[:1]]}), tmp_path / "0.parquet")
    streamed = datasets.load_dataset("parquet", data_files=str(tmp_path / "0.parquet"), split="train", streaming=True)
    found = list(HubDataset(streamed, "c0ffee", "text", ("messages",)).documents(0))
    assert [len(document.messages) for document in found] == [2, 1]
    assert found[0].digest != found[1].digest


def test_messages_want_rows_and_their_columns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ConfigError, match=r"`messages` names columns, and .* has text files"):
        open_source(corpus(tmp_path / "a.txt", messages=["messages"]), 0)
    opened = open_source(corpus(write_rows(tmp_path / "a.jsonl", "one"), messages=["messages"]), 0)
    with pytest.raises(ConfigError, match=r"no column 'messages'; it has text, id. Set the corpus's `messages`"):
        list(opened.documents(0))


def test_a_digest_is_of_the_text_alone() -> None:
    assert TextDocument("a", "text").digest == TextDocument("b", "text").digest
    assert TextDocument("a", "text").digest == 0x982D9E3EB996F559  # the first 8 bytes of sha256sum
    assert TextDocument("a", "text").digest != TextDocument("a", "Text").digest
    assert TextDocument("a", "\udc80").digest != TextDocument("a", "\udc81").digest
