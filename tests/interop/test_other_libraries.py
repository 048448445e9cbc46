"""Unmodified libraries load what we export, and we import what they save: features and reconstructions are the same.

Each runs once, in an environment of its own (`bench/rivals/*.txt`: made at the first use, which takes minutes).
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from environments import python_of
from kubesae.sae.formats import FORMATS, export_sae, read_foreign
from kubesae.sae.inference import Sae
from kubesae.store import open_store
from random_sae import ARCHITECTURES, random_rows, random_sae

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LIBRARIES = Path(__file__).parent / "libraries"
D, F, K = 32, 128, 8
TOLERANCE = 1e-5
"""largest difference, relative to the largest value"""

SAVED = {
    "sae-lens": {
        "standard": "relu",
        "standard-b_dec-stays": "relu",
        "topk": "topk",
        "topk-rescaled": "topk",
        "jumprelu": "jumprelu",
        "jumprelu-b_dec-stays": "jumprelu",
        "gated": "gated",
        "gated-b_dec-stays": "gated",
        "batchtopk": "jumprelu",
    },
    "sparsify": {"latents": "topk", "expansion": "topk", "unit": "topk"},
    "dictionary-learning": {
        "AutoEncoder": "relu",
        "AutoEncoderNew": "relu",
        "AutoEncoderTopK": "topk",
        "BatchTopKSAE": "batchtopk",
        "MatryoshkaBatchTopKSAE": "matryoshka",
        "JumpReluAutoEncoder": "jumprelu",
        "GatedAutoEncoder": "gated",
    },
}


def exported():
    """Every SAE of ours that a format can hold: its name, and the SAE. `same`: one threshold for all features."""
    for architecture in ARCHITECTURES:
        sae = random_sae(architecture, D, F, K)
        yield architecture, sae
        if sae.config.has_threshold:
            yield f"{architecture}-same", random_sae(architecture, D, F, K, same=True)


EXPORTED = dict(exported())
LOADS = [(name, case) for name, made in FORMATS.items() for case, sae in EXPORTED.items() if made.refusal(sae) is None]
SAVES = [(name, kind) for name, kinds in SAVED.items() for kind in kinds]


@dataclass
class Library:
    """What a library made of its tasks."""

    folder: Path
    rows: torch.Tensor

    def result(self, case):
        found = np.load(self.folder / f"{case}.npz")
        return tuple(torch.from_numpy(found[name]) for name in ("f", "x_hat", "norms"))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Run each library when it is first asked for, once, with all its tasks."""
    found = {}

    def library(name):
        if name not in found:
            found[name] = run_tasks(name, tmp_path_factory.mktemp(name))
        return found[name]

    return library


def run_tasks(name, folder):
    word = name.replace("-", "_")
    rows = random_rows(EXPORTED["relu"], 300)
    np.save(folder / "acts.npy", rows.numpy())
    tasks = []
    for case in [case for other, case in LOADS if other == name]:
        export_sae(EXPORTED[case], name, open_store(str(folder / f"load-{case}")))
        tasks.append({"do": "load", "case": f"load-{case}"})
    tasks += [{"do": "save", "case": f"save-{kind}", "kind": kind} for kind in SAVED[name]]
    for task in tasks:
        case = task.pop("case")
        task |= {name: str(folder / path) for name, path in
                 (("acts", "acts.npy"), ("folder", case), ("out", f"{case}.npz"))}  # fmt: skip
    (folder / "tasks.json").write_text(json.dumps(tasks))
    program = [python_of(f"train_{word}"), LIBRARIES / f"with_{word}.py", folder / "tasks.json"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # sparsify decodes by Triton, which fails where there is no GPU, unless it is told not to
    settings = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "SPARSIFY_DISABLE_TRITON": "1"}
    done = subprocess.run(program, env=environment | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Library(folder, rows)


def difference(ours, theirs):
    """Return the largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    assert bool((theirs != 0).any())
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compare(record, sae, rows, f, x_hat):
    """Compare what we make of rows with what a library makes of them; the differences go into a JUnit report."""
    our_x_hat, our_f = sae(rows)
    assert 0 < float((f > 0).float().mean()) < 1
    found = {"features": difference(our_f, f), "reconstruction": difference(our_x_hat, x_hat)}
    for what, value in found.items():
        record(what, f"{value:.2g}")
    assert max(found.values()) <= TOLERANCE


@pytest.mark.parametrize(("name", "case"), LOADS)
def test_the_library_loads_what_is_exported(name, case, libraries, record_property):
    library = libraries(name)
    f, x_hat, _ = library.result(f"load-{case}")
    compare(record_property, EXPORTED[case], library.rows, f, x_hat)


@pytest.mark.parametrize(("name", "kind"), SAVES)
def test_what_the_library_saves_is_imported(name, kind, libraries, record_property):
    library = libraries(name)
    architecture = SAVED[name][kind]
    foreign = read_foreign(name, open_store(str(library.folder / f"save-{kind}")))
    assert foreign.config.architecture == architecture
    f, x_hat, norms_F = library.result(f"save-{kind}")
    if architecture != "topk":  # decoder rows get norm 1, and features are as many times larger
        f = f * norms_F
    sae = Sae(foreign.config, foreign.weights, {}, foreign.threshold_F)
    compare(record_property, sae, library.rows, f, x_hat)
