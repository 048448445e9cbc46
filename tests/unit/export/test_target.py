"""A folder that is filled: other files stay, our own are written once."""

import json

import pytest

from kubesae.errors import ConfigError
from kubesae.export import Target
from kubesae.export.target import ABOUT, UNFINISHED
from kubesae.store import open_store


@pytest.fixture
def folder(tmp_path):
    return open_store(str(tmp_path / "out"))


@pytest.fixture
def large(tmp_path, monkeypatch):
    monkeypatch.setattr("kubesae.export.target._STEP", 100)
    path = tmp_path / "large"
    path.write_bytes(bytes(range(250)))
    return path


def fill(folder, large, about):
    target = Target(folder, about)
    target.put("a/small.json", b"{}")
    target.put_file("large.bin", large)
    target.close()
    return target


def test_the_last_file_says_what_the_others_are(folder, large):
    target = fill(folder, large, {"format": 1})
    assert target.files == {"a/small.json": 2, "large.bin": 250, ABOUT: folder.size(ABOUT)}
    about = json.loads(folder.read(ABOUT))
    assert about["format"] == 1
    assert {name: file["bytes"] for name, file in about["files"].items()} == {"a/small.json": 2, "large.bin": 250}
    assert folder.read("large.bin") == large.read_bytes()


def test_an_export_that_was_killed_goes_on_and_one_that_was_not_is_the_same(folder, large):
    Target(folder, {"format": 1}).put("a/small.json", b"{}")
    fill(folder, large, {"format": 1})
    before = {key: folder.read(key) for key in folder.list()}
    fill(folder, large, {"format": 1})
    assert {key: folder.read(key) for key in folder.list()} == before


def test_what_a_killed_export_left_is_no_part_of_another(folder, large):
    Target(folder, {"format": 1, "features": "0-9"}).put("a/0_9.json", b"{}")
    with pytest.raises(ConfigError, match=r"kubesae-unfinished.json is there and says .* another export"):
        Target(folder, {"format": 1, "features": "0-4"})
    fill(folder, large, {"format": 1, "features": "0-9"})
    assert not folder.exists(UNFINISHED)


def test_another_export_is_refused_before_anything_is_written(folder, large):
    fill(folder, large, {"format": 1})
    with pytest.raises(ConfigError, match="another export; nothing was written"):
        Target(folder, {"format": 2})


@pytest.mark.parametrize("other", [b"", bytes(250), bytes(range(249)) + b"x"])
def test_other_files_stay(folder, large, other):
    folder.put("large.bin", other)
    target = Target(folder, {})
    with pytest.raises(ConfigError, match=r"large\.bin is there and holds something else"):
        target.put_file("large.bin", large)
    folder.put("small", b"x")
    with pytest.raises(ConfigError, match="small is there and holds something else"):
        target.put("small", b"y")
    assert (folder.read("large.bin"), folder.read("small")) == (other, b"x")
