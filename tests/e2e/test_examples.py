"""The examples: every file is an experiment, every command exists with these flags, and runs, small."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from kubesae.cli.main import COMMANDS, _run
from kubesae.corpus import Request
from kubesae.experiment import load_experiment
from kubesae.ledger import keys
from kubesae.store import open_store
from tiny_models import save_model, text

if TYPE_CHECKING:
    import click

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = sorted(folder for folder in EXAMPLES.iterdir() if folder.name[0].isdigit())
FILES = sorted(EXAMPLES.glob("*/*.yaml"))
NOTEBOOK = EXAMPLES / "05-interpretation" / "features.ipynb"
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands(folder):
    """Return the arguments of every `kubesae` line of a README's blocks."""
    lines = "".join(BLOCK.findall((folder / "README.md").read_text())).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("kubesae ")]


def run_notebook(path, **replaced):
    """Run the code cells of a notebook one after the other, with some of their words replaced."""
    names = {}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            for word, other in replaced.items():
                source = source.replace(word, other)
            exec(compile(source, f"{path.name}, cell {number}", "exec"), names)


def test_the_notebook_is_one_and_holds_no_outputs():
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        assert cell["cell_type"] in {"markdown", "code"}
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


def test_the_steps_of_a_study_are_there():
    assert [folder.name for folder in STEPS] == [
        "01-pilot",
        "02-collection",
        "03-baseline",
        "04-sweep",
        "05-interpretation",
        "06-ablations",
        "07-reasoning",
    ]
    assert len([file for file in FILES if file.parent in STEPS]) == 2 * len(STEPS)


@pytest.mark.parametrize("file", FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_file_is_an_experiment(file):
    experiment = load_experiment(file)
    names = [sae.name for sae in experiment.sae]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("file", ["experiment.yaml", "small.yaml"])
def test_the_first_five_are_about_the_same_data(file):
    experiments = [load_experiment(folder / file) for folder in STEPS[:5]]
    assert len({experiment.data for experiment in experiments}) == 1
    assert len({Request.of(experiment) for experiment in experiments}) == 1
    assert len({(e.layers, e.contexts_per_part, e.contexts_per_block, e.model_dtype) for e in experiments}) == 1
    assert experiments[2].sae == experiments[4].sae  # what 03 trains is what 05 looks at


@pytest.mark.parametrize("folder", STEPS, ids=lambda folder: folder.name)
def test_the_commands_exist_with_these_flags(folder):
    found = commands(folder)
    assert found
    for name, *arguments in found:
        assert name in COMMANDS
        command: click.Command = importlib.import_module(f"kubesae.cli.{name}").command
        context = command.make_context(name, arguments)
        assert (EXAMPLES.parent / context.params["experiment"]).is_file()


@pytest.fixture
def small(tmp_path, monkeypatch, capsys):
    """Work in a folder with a tiny model and corpus, and return what runs an example over them."""
    save_model(tmp_path / "model", "llama", max_position_embeddings=1024)
    (tmp_path / "corpus").mkdir()
    for i in range(100):
        (tmp_path / "corpus" / f"{i}.txt").write_text(text(i))
    monkeypatch.chdir(tmp_path)

    def run(folder, layers):
        small = yaml.safe_load((folder / "small.yaml").read_text())
        deep = dict(zip(small["layers"], layers, strict=True))
        small |= {"data": "data", "model": "model", "layers": layers, "context": 32, "tokens": 5_000, "chunk": 1_000}
        small |= {"num_shards": 1, "contexts_per_part": 8, "pilot": {"tokens": 1_000, "chunk": 500}}
        small["corpora"][0] |= {"source": "corpus", "pool": 1}
        small["collect"] = {"threads": 1}
        for sae in small.get("sae", ()):
            sae.update(batch_size=512, epochs=1, k=4)
            if "layer" in sae:
                sae["layer"] = deep[sae["layer"]]
            sae.pop("d_sae", None)
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
        printed = []
        for arguments in commands(folder):
            here = ["small.yaml" if word.endswith("/small.yaml") else word for word in arguments]
            here = [str(EXAMPLES.parent / word) if word.endswith("/problems.jsonl") else word for word in here]
            here = ["1" if before == "--workers" else word for before, word in zip(["", *here], here, strict=False)]
            capsys.readouterr()
            code = _run(here)
            out, err = capsys.readouterr()
            assert code == 0, f"{here}: {out}{err}"
            printed.append(out)
        return printed

    return run


@pytest.mark.timeout(180)
def test_the_first_five_run(small, tmp_path, capsys):
    """Each command of their READMEs, over a tiny model instead, and with SAEs that take a moment."""
    printed = {folder.name: small(folder, [2]) for folder in STEPS[:5]}
    assert "✓ All checks passed!" in printed["01-pilot"][-1]
    assert "✓ All chunks valid!" in "".join(printed["02-collection"])
    assert "✓ New best model!" in printed["03-baseline"][0]
    assert "Top 20 Features by Max Activation:" in printed["05-interpretation"][0]
    capsys.readouterr()
    run_notebook(NOTEBOOK, **{"runs/examples": "data"})
    assert "features over" in capsys.readouterr().out
    store = open_store(str(tmp_path / "data"))
    for key in [
        keys.report("baseline"),
        keys.evaluation("k-16"),
        keys.interpretation("baseline", "statistics.parquet"),
    ]:
        assert store.exists(key)


@pytest.mark.timeout(180)
def test_the_ablations_run(small, tmp_path):
    printed = small(STEPS[5], [1, 2, 3])
    assert [line.count("written for sae-bench") for line in printed[-3:]] == [1, 1, 1]
    store = open_store(str(tmp_path / "data"))
    for name in ("layer-6", "layer-12", "layer-18"):
        assert store.exists(keys.page(name))
        result = json.loads((tmp_path / f"runs/examples-exports/{name}/{name}_eval_results.json").read_text())
        assert result["eval_result_metrics"]["model_performance_preservation"]["ce_loss_with_sae"] > 0


@pytest.mark.timeout(180)
def test_the_last_one_runs(small, tmp_path):
    """A tiny model solves nothing; what it did is ranked, tested and shown all the same."""
    printed = small(EXAMPLES / "07-reasoning", [2])
    assert "first position" in printed[-3]
    assert "of 12" in printed[-2]
    assert list((tmp_path / "data" / "reason" / "reasoning").glob("*/index.html"))
