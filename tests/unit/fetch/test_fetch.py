"""A model comes whole or not at all, from where it is to where it shall be."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from kubesae.cli.main import _run
from kubesae.errors import ConfigError, DamagedError, StoreError
from kubesae.fetch import fetch, find_source
from kubesae.fetch.note import NOTE
from kubesae.fetch.run import LOCK
from kubesae.store import open_store
from kubesae.store.local import LocalStore

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b"t" * 100,
    "chat_template.jinja": b"{{ x }}",
    "model-00001-of-00002.safetensors": b"1" * 5000,
    "model-00002-of-00002.safetensors": b"2" * 6000,
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
}
SIZE = sum(map(len, FILES.values()))
NOT_NEEDED = {
    "consolidated.safetensors": b"the same weights once more",
    "pytorch_model.bin": b"pickle",
    "README.md": b"words",
    "onnx/model.onnx": b"another format",
    "original/params.json": b"{}",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "origin" / "Model-1B"
    for name, data in (FILES | NOT_NEEDED).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def there(url: str) -> dict[str, bytes]:
    store = open_store(url)
    return {key: store.read(key) for key in store.list() if key != NOTE}


def bring(origin: object, target: str) -> list[str]:
    lines: list[str] = []
    fetch(find_source(str(origin), None), target, lines.append)
    return lines


def test_what_loading_needs_and_nothing_else(model: Path, store_url: str, tmp_path: Path) -> None:
    lines = bring(model, store_url)
    assert there(store_url) == FILES
    assert lines[-1] == f"{SIZE:,} / {SIZE:,} bytes (100%) - config.json"
    second = str(tmp_path / "models" / "Model-1B")
    bring(store_url, second)
    assert there(second) == FILES
    assert sorted(path.name for path in Path(second).iterdir()) == sorted([*FILES, NOTE, LOCK]), "no staging is left"


def test_the_copy_is_the_same_model_to_the_data(model: Path, tmp_path: Path) -> None:
    from kubesae.model.source import _hash_folder

    (model / "consolidated.safetensors").unlink()
    bring(model, str(tmp_path / "copy"))
    assert _hash_folder(tmp_path / "copy") == _hash_folder(model)


def test_done_already_asks_nobody(model: Path, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(model, store_url)
    target = str(tmp_path / "models")
    bring(store_url, target)
    source = find_source(store_url, None)
    monkeypatch.setattr(type(source), "files", lambda _self: pytest.fail("the source was asked"))
    fetched = fetch(source, target, lambda _line: None)
    assert (fetched.existed, fetched.files, fetched.bytes) == (True, 7, SIZE)


@pytest.mark.parametrize("survivors", range(len(FILES)))
def test_a_killed_fetch_leaves_nothing_that_loads_and_is_gone_on_with(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    target, copied = tmp_path / "models", []
    original = LocalStore.put_file

    def put_file(self: LocalStore, key: str, path: Path) -> None:
        if len(copied) == survivors:
            raise KeyboardInterrupt
        copied.append(key)
        original(self, key, path)

    monkeypatch.setattr(LocalStore, "put_file", put_file)
    with pytest.raises(KeyboardInterrupt):
        bring(model, str(target))
    assert not (target / "config.json").exists()
    with pytest.raises(ConfigError, match="is not whole"):
        bring(target, str(tmp_path / "another"))
    survived, survivors = list(copied), -1
    bring(model, str(target))
    assert there(str(target)) == FILES
    assert sorted(copied) == sorted(FILES), "no file was brought twice"
    assert copied[: len(survived)] == survived


def test_another_model_at_the_target_is_replaced_whole(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "models"
    bring(model, str(target))
    other = tmp_path / "other"
    other.mkdir()
    small = {"config.json": b'{"model_type": "gpt"}', "tokenizer.json": b"T" * 100, "model.safetensors": b"w" * 10}
    for name, data in small.items():
        (other / name).write_bytes(data)
    bring(other, str(target))
    assert there(str(target)) == small


def test_files_of_nobody_knows_what_are_brought_again(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "models"
    target.mkdir()
    (target / "tokenizer.json").write_bytes(b"x" * 100)  # of the same size
    bring(model, str(target))
    assert there(str(target)) == FILES


def test_a_file_that_changed_since_it_was_fetched_is_refused(model: Path, tmp_path: Path) -> None:
    mirror, target = tmp_path / "mirror", tmp_path / "models"
    bring(model, str(mirror))
    (mirror / "tokenizer.json").write_bytes(b"x" * 100)
    with pytest.raises(DamagedError, match=r"tokenizer.json of mirror@\w+ is not what its source says"):
        bring(mirror, str(target))
    assert not (target / "tokenizer.json").exists()
    assert not (target / "config.json").exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "has no config.json at its top"),
        ("model-00002-of-00002.safetensors", "lacks model-00002-of-00002.safetensors, which its"),
    ],
)
def test_a_model_that_is_not_whole(model: Path, tmp_path: Path, missing: str, message: str) -> None:
    (model / missing).unlink()
    with pytest.raises(ConfigError, match=message):
        bring(model, str(tmp_path / "models"))
    for path in model.glob("*.safetensors*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"pickles are not read|has no config"):
        bring(model, str(tmp_path / "models"))


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no folder"):
        find_source(str(tmp_path / "absent"), None)


def test_two_fetches_to_one_folder_bring_each_file_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, copied, first_is_at_work = tmp_path / "models", [], threading.Event()
    original = LocalStore.put_file

    def put_file(self: LocalStore, key: str, path: Path) -> None:
        copied.append(key)
        first_is_at_work.set()
        second_waits.wait(10)
        original(self, key, path)

    monkeypatch.setattr(LocalStore, "put_file", put_file)
    second_waits, lines = threading.Event(), []

    def second_says(line: str) -> None:
        lines.append(line)
        second_waits.set()

    first = threading.Thread(target=lambda: bring(model, str(target)))
    first.start()
    assert first_is_at_work.wait(10)
    fetched = fetch(find_source(str(model), None), str(target), second_says)
    first.join()
    assert fetched.existed
    assert lines == [f"Another fetch to {target} is at work: waiting for it."]
    assert sorted(copied) == sorted(FILES)


def test_a_full_disk_is_said_and_leaves_nothing_that_loads(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_file(self: LocalStore, key: str, _path: Path) -> None:
        raise StoreError(f"{self.url}/{key}: the disk is full (No space left on device). Free some space.")

    monkeypatch.setattr(LocalStore, "put_file", put_file)
    with pytest.raises(StoreError, match="the disk is full"):
        bring(model, str(tmp_path / "models"))
    assert not (tmp_path / "models" / "config.json").exists()


def test_the_command_says_what_it_did(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "models")
    command = ["fetch", "--from", str(model), "--to", target]
    assert _run(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (f"✓ Model fetched: 7 files, {SIZE:,} bytes, at {target}")
    assert _run(command) == 0
    assert capsys.readouterr().out == (f"✓ Model was there already: 7 files, {SIZE:,} bytes, at {target}\n")
    assert _run(["fetch", "--to", target]) == 2
    assert (
        capsys.readouterr().err
        == "kubesae: Which model? Give --from the id of a hub model, a folder or s3://bucket/prefix.\n"
    )
