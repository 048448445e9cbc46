"""What Prometheus gets from the programs."""

from __future__ import annotations

import re
import socket
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kubesae.cli import metered_events, metrics
from kubesae.collect import Share, collect
from kubesae.ledger import keys, read_record, record_list
from kubesae.prepare import prepare
from kubesae.store import TALLY, open_store
from small_experiment import VALUES, write_small
from small_training import RELU
from tiny_collected import tiny_experiment, write_inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scraped(port: int) -> dict[str, float]:
    """Return the samples that are served, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_collection_counts_what_the_ledger_has(tmp_path: Path, port: int) -> None:
    write_inputs(tmp_path)
    experiment = tiny_experiment(tmp_path)
    store = open_store(experiment.data)
    prepare(experiment, store)
    with metrics.serving(metrics.CollectMetrics, "exp", port) as served:
        told = metered_events.events(lambda _line: None, experiment.chunk, served)
        collect(experiment, store, Share((0, 1)), told)
        found = scraped(port)
    records = [read_record(store, *keys.parse_record(key)) for key in record_list(store)]
    assert found["kubesae_collect_parts_total"] == len(records)
    assert found["kubesae_collect_tokens_total"] == 3001
    assert found["kubesae_collect_bytes_total"] == sum(layer.bytes for record in records for layer in record.layers)
    assert (
        found['kubesae_collect_shard_tokens{shard="0"}']
        == found['kubesae_collect_shard_tokens_wanted{shard="0"}']
        == 1501
    )
    assert found['kubesae_collect_shard_tokens{shard="1"}'] == 1500
    assert found["kubesae_collect_queue_parts"] == 0
    assert found['kubesae_program_info{experiment="exp",program="collect"}'] == 1
    assert not any(name.endswith("_created") for name in found)


def test_training_serves_its_own_metrics_lines(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_store(str(tmp_path / "data"))
    write_small(data)
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(VALUES | {"data": data.url, "sae": [RELU | {"name": "small"}]}))
    samples: list[dict[str, float]] = []
    lines: list[dict[str, Any]] = []
    original = metrics.TrainMetrics.measured

    def measured(self: metrics.TrainMetrics, sae: str, line: dict[str, Any]) -> None:
        original(self, sae, line)
        lines.append(line)
        if line["kind"] == "epoch":
            samples.append(scraped(port))

    monkeypatch.setattr(metrics.TrainMetrics, "measured", measured)
    code, _, errors = run("train", file, "--train-device", "cpu", "--metrics-port", port)
    assert code == 0, errors
    step, epoch = [line for line in lines if line["kind"] == "step"][-1], lines[-1]
    last = samples[-1]
    assert len(samples) == 3
    assert last['kubesae_training_steps{sae="small"}'] == step["step"]
    assert last['kubesae_training_loss{sae="small"}'] == pytest.approx(step["loss"])
    assert last['kubesae_training_validation_l0{sae="small"}'] == pytest.approx(epoch["l0"])
    assert last['kubesae_training_fvu{sae="small"}'] == pytest.approx(epoch["fvu"])
    assert last['kubesae_training_epochs{sae="small"}'] == 3
    with pytest.raises(OSError, match="refused"):
        scraped(port)


def test_a_port_that_is_taken_is_told(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    data = open_store(str(tmp_path))
    write_small(data)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, errors = run("train", "--data", data.url, "--layer", "4", "--metrics-port", port)
    assert code == 2
    assert re.fullmatch(
        rf"kubesae: Metrics cannot be served on port {port}: Address already in use. Choose another one.\n", errors
    )


def test_only_the_first_rank_serves(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with metrics.serving(metrics.TrainMetrics, "exp", port) as served:
        assert served is None


def test_the_tally_of_the_store_is_read_when_it_is_asked_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TALLY, "given_up", 2)
    with metrics.serving(metrics.CollectMetrics, "exp", port):
        assert scraped(port)["kubesae_store_errors_total"] == 2
        monkeypatch.setitem(TALLY.retries, "transient", 7)
        assert scraped(port)['kubesae_store_retries_total{reason="transient"}'] == 7


def test_several_workers_cannot_serve_on_one_port(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    data = open_store(str(tmp_path))
    write_small(data)
    code, _, errors = run("collect", "--data", data.url, "--all", "--workers", "2", "--metrics-port", 9)
    assert code == 2
    assert "--metrics-port is about one process" in errors
