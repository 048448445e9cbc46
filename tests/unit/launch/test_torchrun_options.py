"""What the PET_* variables of PyTorchJob and of the chart mean, and what holds without them."""

from __future__ import annotations

import pytest

from kubesae.errors import ConfigError
from kubesae.launch.torchrun import torchrun_options

ALONE = ["--standalone", "--nnodes=1", "--local-addr=127.0.0.1"]


def options(gpus: int = 0, **environment: str) -> list[str]:
    return torchrun_options(environment, lambda: gpus)


def test_a_process_runs_on_each_gpu_and_one_where_there_is_none() -> None:
    assert options() == [*ALONE, "--nproc-per-node=1"]
    assert options(gpus=4) == [*ALONE, "--nproc-per-node=4"]
    assert options(gpus=4, PET_NPROC_PER_NODE="auto") == [*ALONE, "--nproc-per-node=4"]
    assert options(gpus=4, PET_NPROC_PER_NODE="2") == [*ALONE, "--nproc-per-node=2"]


def test_one_node_resolves_no_name() -> None:
    master = {"PET_MASTER_ADDR": "exp-train-master-0", "PET_MASTER_PORT": "23456", "PET_NODE_RANK": "0"}
    assert options(PET_NNODES="1", **master) == [*ALONE, "--nproc-per-node=1"]


def test_several_nodes_meet_where_their_environment_says() -> None:
    elastic = {"PET_NNODES": "1:2", "PET_RDZV_BACKEND": "c10d", "PET_RDZV_ENDPOINT": "exp-train-worker-0:23456"}
    assert options(gpus=1, **elastic) == ["--nproc-per-node=1", "--max-restarts=3"]
    assert options(gpus=1, PET_MAX_RESTARTS="10", **elastic) == ["--nproc-per-node=1"]
    with pytest.raises(ConfigError, match="says where the nodes meet"):
        options(PET_NNODES="2")


@pytest.mark.parametrize("nodes", ["two", "1:2:3", "0", "1:", "-1"])
def test_a_number_of_nodes_that_is_none(nodes: str) -> None:
    with pytest.raises(ConfigError, match=f"PET_NNODES is {nodes!r}"):
        options(PET_NNODES=nodes)
