"""The demo's experiment is one that a user could have written, and its steps are commands that exist."""

import pytest

from kubesae.cli.demo import SAE, demo_experiment, run_demo, steps
from kubesae.cli.main import COMMANDS
from kubesae.errors import ConfigError
from kubesae.experiment import Experiment, validate


def test_the_experiment_is_valid(tmp_path):
    experiment = validate(Experiment, demo_experiment(tmp_path, tmp_path), "the demo")
    assert experiment.sae[0].name == SAE
    assert len({stage for stage, _ in steps(tmp_path)}) == 8
    assert {arguments[0] for _, arguments in steps(tmp_path)} <= COMMANDS.keys()


def test_an_experiment_file_is_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="takes a folder"):
        run_demo(tmp_path / "experiment.yaml")
    assert not (tmp_path / "experiment.yaml").exists()
