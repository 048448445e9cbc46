"""Export, import under another name, evaluate: by the commands a user types, in this process."""

from __future__ import annotations

import json

import pytest

from kubesae.cli.main import _run
from random_sae import ARCHITECTURES

SIZES = ["--d-sae", "64", "--batch-size", "1024", "--epochs", "1", "--lr-warmup", "0"]
FORMATS = ["sae-lens", "sparsify", "dictionary-learning"]


@pytest.fixture
def run(capsys):
    def run(*arguments, code=0):
        capsys.readouterr()
        assert _run([str(argument) for argument in arguments]) == code
        return "".join(capsys.readouterr())

    return run


@pytest.fixture
def data(tmp_path, run):
    """A synthetic experiment."""
    layout = ["--tokens", "8000", "--context", "64", "--contexts-per-part", "32", "--contexts-per-block", "4"]
    run("fixture", tmp_path / "data", "--layers", "0", *layout)
    return tmp_path / "data"


def evaluated(run, data, name):
    return json.loads(run("evaluate", "--data", data, "--sae-name", name, "--ce-contexts", "0", "--json"))


# all but one take more than ten seconds together
@pytest.mark.parametrize(
    "architecture", ["topk", *(pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES if name != "topk")]
)
def test_an_sae_that_went_out_and_came_back_is_as_good(architecture, run, data, tmp_path):
    run("train", "--data", data, "--sae-name", "ours", "--architecture", architecture, "--k", "8", *SIZES)
    before = evaluated(run, data, "ours")
    for name in FORMATS:
        out = tmp_path / name
        export = ["export", "--data", data, "--sae-name", "ours", "--format", name, "--to", out]
        if name == "sparsify" and architecture != "topk":
            said = run(*export, code=2)
            assert "holds TopK SAEs only" in said
            assert "Give --format sae-lens or dictionary-learning." in said
            continue
        said = run(*export)
        assert f"✓ SAE ours ({architecture}, 64 to 64) written for {name}:" in said
        assert "Load it: from " in said
        came = ["import", "--data", data, "--format", name, "--from", out, "--sae-name", name, "--layer", "0"]
        assert f"imported as SAE {name} ({architecture}, 64 to 64)" in run(*came)
        after = evaluated(run, data, name)
        for metric in ("fvu", "fvu_all_rows", "l0", "inactive_share"):
            assert after[metric] == pytest.approx(before[metric], rel=1e-5)
        assert "already; nothing was touched" in run(*came, code=2)
    assert "Feature" in run("interpret", "--data", data, "--sae-name", "sae-lens", "--statistics")
    assert "SAE sae-lens: imported, evaluated, interpreted" in run("monitor", "--data", data)


def test_an_sae_is_exported_without_its_experiment(run, data, tmp_path):
    run("train", "--data", data, "--sae-name", "one", "--architecture", "topk", "--k", "8", *SIZES)
    said = run("export", "--from", data / "sae" / "one", "--format", "sparsify", "--to", tmp_path / "out")
    assert "✓ SAE one (topk, 64 to 64) written for sparsify:" in said
    assert f"SparseCoder.load_from_disk('{tmp_path / 'out'}')" in said
    twice = ["export", "--from", data / "sae" / "one", "--sae-name", "one", "--format", "sparsify", "--to", tmp_path]
    assert "--from names an SAE by itself" in run(*twice, code=2)
