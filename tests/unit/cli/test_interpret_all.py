"""One call interprets every SAE of the experiment: what the last phase runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from kubesae.ledger import is_interpreted
from kubesae.store import open_store
from small_experiment import VALUES, write_small
from small_sae import write_sae

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAES = [{"name": name, "layer": 4, "d_sae": 24} for name in ("wide", "narrow")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    store = open_store(str(tmp_path / "data"))
    write_small(store)
    for seed, sae in enumerate([*SAES, {"name": "of-somebody-else"}]):
        write_sae(store, str(sae["name"]), seed=seed)
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(VALUES | {"data": store.url, "sae": SAES}))
    return file


def test_all_saes_of_the_experiment_and_no_others(
    run: Callable[..., tuple[int, str, str]], file: Path, tmp_path: Path
) -> None:
    code, out, errors = run("interpret", file, "--all")
    assert code == 0, errors
    assert [line for line in out.splitlines() if line.startswith("SAE ")] == ["SAE wide:", "SAE narrow:"]
    assert out.count("Top 20 Features by Max Activation:") == 2
    output = open_store(str(tmp_path / "data"))
    assert [is_interpreted(output, name) for name in ("wide", "narrow", "of-somebody-else")] == [True, True, False]


@pytest.mark.parametrize("more", [("--sae-name", "wide"), ("--feature-id", "3")])
def test_all_is_not_about_one(run: Callable[..., tuple[int, str, str]], file: Path, more: tuple[str, ...]) -> None:
    code, _, errors = run("interpret", file, "--all", *more)
    assert (code, "--all is about every SAE" in errors) == (2, True)
