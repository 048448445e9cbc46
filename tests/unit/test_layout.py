"""Rules about files that no linter knows."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "jobs" / "kubesae", ROOT / "operator" / "kubesae_operator")
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
BENCHES = sorted((ROOT / "bench").glob("[a-z]*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 50


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_checks_below_see_the_code() -> None:
    assert len(MODULES) > 20


@pytest.mark.parametrize("folder", ["operator", "jobs"])
def test_the_folders_at_the_top_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_the_standard_library_s_operator_is_not_hidden() -> None:
    """As an operator/__init__.py would, for all that runs from the root: the working directory comes first."""
    command = [sys.executable, "-c", "import operator; print(operator.__file__)"]
    found = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    assert ROOT not in Path(found).resolve().parents or ".venv" in found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is_and_is_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) < MAX_LINES
    assert path.name != "utils.py"
    docstring = ast.get_docstring(tree)
    assert docstring or not text.strip(), "no docstring"
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long


@pytest.mark.parametrize("path", [*BENCHES, ROOT / "bench/support/measure.py"], ids=name_of)
def test_what_a_bench_imports_is_found_as_make_starts_it(path: Path) -> None:
    """Importing is enough, and `-m` on a module without a main part would do no more."""
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "-m bench." in line)
    command = line.strip().removeprefix("@").replace("$(BIN)/python", shlex.quote(sys.executable))
    module = "bench." + ".".join(path.relative_to(ROOT / "bench").with_suffix("").parts)
    command = re.sub(r"-m bench\..*", f"-c 'import {module}'", command)
    assert subprocess.run(["bash", "-c", command], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    "package", ["kubesae.errors", "kubesae.experiment", "kubesae.store", "kubesae.ledger", "kubesae.cli.main"]
)
def test_what_must_start_fast_imports_nothing_heavy(package: str) -> None:
    """An S3 client takes 300 ms to import, torch seconds; both come when they are needed."""
    heavy = ("torch", "transformers", "datasets", "pyarrow", "s3fs", "botocore")
    code = f"import sys, {package}; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "jobs"), "PATH": ""},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert found.stdout.strip() == "[]"
