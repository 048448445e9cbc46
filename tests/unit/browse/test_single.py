"""The page in one file, and the command that makes it or serves a page."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from kubesae.browse import choose, require_page, write_single
from kubesae.cli.main import group
from kubesae.errors import ConfigError, DamagedError
from kubesae.ledger import keys
from kubesae.store import open_store
from paged import SAE, feature_json

ROOT = Path(__file__).parents[3]


def embedded_in(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="embedded">(.*?)</script>', text, re.DOTALL)[1])


def test_it_holds_the_features_that_are_named(written, tmp_path):
    store, _ = written
    path = tmp_path / "few.html"
    write_single(store, SAE, path, [40, 0, 8])
    found = embedded_in(path)
    assert found["table"]["features"] == [40, 0, 8]
    assert found["table"]["count"] == written[1].statistics["count"].take([40, 0, 8]).to_pylist()
    assert len(found["table"]["populations"][0]["count"]) == 3
    for feature in (40, 0, 8):
        data = base64.b64decode(found["features"][str(feature)])
        assert json.loads(zlib.decompress(data[4:])) == feature_json(store, feature)


def test_what_is_chosen_is_alive_and_the_purest(written):
    store, stored = written
    chosen = choose(store, SAE, 10)
    assert chosen == sorted(chosen)
    assert len(chosen) == 10
    assert 3 not in choose(store, SAE, 64)
    most = stored.statistics["max"].to_numpy()
    others = [i for i in range(64) if i not in chosen and i != 3]  # all are equally pure
    assert min(most[chosen]) >= max(most[others]) * 0.99


@pytest.mark.parametrize(
    ("features", "said"),
    [([], "not 0"), (list(range(501)), "not 501"), ([64], "has no feature 64"), ([-1], "has no feature -1")],
)
def test_what_it_cannot_hold_is_refused(written, tmp_path, features, said):
    with pytest.raises(ConfigError, match=said):
        write_single(written[0], SAE, tmp_path / "x.html", features)


def test_a_page_that_is_not_whole_is_not_copied(copied, tmp_path):
    store, _ = copied
    store.delete(keys.page_index(SAE))
    with pytest.raises(DamagedError, match="not whole"):
        write_single(store, SAE, tmp_path / "x.html", [1])


def test_the_page_is_found_by_name_or_because_it_is_the_only_one(copied, tmp_path):
    store, _ = copied
    assert require_page(store, None) == require_page(store, SAE) == SAE
    with pytest.raises(ConfigError, match=f"no page of SAE 'other'.*{SAE}"):
        require_page(store, "other")
    store.put(keys.page("other"), b"")
    with pytest.raises(ConfigError, match=f"several pages.*{SAE}, other"):
        require_page(store, None)
    with pytest.raises(ConfigError, match=r"no page at .*kubesae interpret"):
        require_page(open_store(str(tmp_path / "empty")), None)


def test_the_command_writes_a_file(written, tmp_path):
    path = tmp_path / "out.html"
    command = ["page", "--data", written[0].url, "--sae-name", SAE, "--single-file", str(path)]
    done = CliRunner().invoke(group, [*command, "--features", "5,7,5"], catch_exceptions=False)
    assert done.output.startswith(f"Page: {path} (2 features, ")
    assert list(embedded_in(path)["features"]) == ["5", "7"]
    CliRunner().invoke(group, [*command, "--count", "4"], catch_exceptions=False)
    assert len(embedded_in(path)["features"]) == 4


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--count", "3"], "give that too"),
        (["--single-file", "x.html", "--count", "3", "--features", "1"], "leave one of them out"),
        (["--single-file", "x.html", "--features", "one"], "no numbers"),
        (["--single-file", "/none/x.html", "--features", "1"], "cannot be written"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(written, flags, said):
    with pytest.raises(ConfigError, match=said):
        CliRunner().invoke(group, ["page", "--data", written[0].url, "--sae-name", SAE, *flags], catch_exceptions=False)


@pytest.fixture
def heard():
    """Let what is started hear SIGINT, which a shell's background ignores, with all that begins there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_the_command_serves_until_it_is_interrupted(written):
    command = [sys.executable, "-m", "kubesae", "page", "--data", written[0].url, "--sae-name", SAE]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "jobs")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().split()[1]
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read() == written[0].read(keys.page(SAE))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_the_command_needs_neither_torch_nor_pyarrow(written, tmp_path):
    command = ["page", "--data", written[0].url, "--sae-name", SAE, "--single-file", str(tmp_path / "x.html")]
    code = (
        f"import sys\nfrom kubesae.cli.main import group\ngroup.main({command!r}, standalone_mode=False)\n"
        "print([name for name in ('torch', 'pyarrow', 'tokenizers') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "jobs")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
