"""index.html: one file that runs its own script alone, and asks nobody else for anything."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

from kubesae.browse.document import asset, document, imports, modules

ROOT = Path(__file__).parents[3]
ASSETS = sorted(file.name for file in (files("kubesae.browse") / "assets").iterdir())
SCRIPTS = [name for name in ASSETS if name.endswith(".js")]


def hash_of(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_every_module_is_in_the_page_and_what_it_imports_is_exported():
    order = modules("main.js")
    assert sorted(order) == SCRIPTS
    for at, name in enumerate(order):
        assert asset(name).count("import ") == len(imports(asset(name))) + asset(name).count("// import ")
        for other, names in imports(asset(name)).items():
            assert other in order[:at], f"{name} imports {other}, which comes later"
            for one in names:
                assert re.search(rf"^export (async )?(function|const) {one}\b", asset(other), re.MULTILINE), (name, one)


def test_scripts_are_short_and_make_no_markup_of_text():
    for name in SCRIPTS:
        source = asset(name)
        assert len(source.splitlines()) < 200
        assert source.startswith("// ")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", source)
        for body in re.findall(r"^(?:export )?(?:async )?function .*?^}", source, re.MULTILINE | re.DOTALL):
            assert len(body.splitlines()) <= 40, body.splitlines()[0]


def test_the_policy_lets_only_what_is_in_the_page_run():
    page = document()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["script-src"] == f"'sha256-{hash_of(script)}'"
    assert rules["style-src"] == f"'sha256-{hash_of(style)}'"
    assert rules["connect-src"] == "'self'"
    assert page.index("Content-Security-Policy") < page.index("<style>") < page.index("<script")


def test_nothing_is_loaded_from_elsewhere_and_no_handler_stands_in_the_markup():
    page = document()
    markup = re.sub(r"<(style|script)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r"\son\w+=|\sstyle=|javascript:|\ssrc=", markup)
    assert [link for link in re.findall(r"https?://[^\"'\s]+", page) if "www.w3.org/2000/svg" not in link] == []


def test_what_is_embedded_cannot_end_its_element():
    page = document('{"text":"</script><script>alert(1)</script><!--"}')
    assert page.count("<script") == 2
    assert '"\\u003c/script>\\u003cscript>alert(1)' in page
    assert "connect-src 'none'" in page


def test_assets_are_in_the_wheel(tmp_path):
    """Images install the wheel: a page without its style would be found only there."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "kubesae/browse/assets/" in name}
    assert inside == set(ASSETS)
