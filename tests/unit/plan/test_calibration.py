"""Measuring this machine, and plans that take what was measured."""

from __future__ import annotations

import threading

import pytest

from kubesae.errors import ConfigError
from kubesae.plan import Assumptions, Calibration, load_calibration, measure, measure_model, plan_work
from kubesae.plan.calibration import MeasuredModel, model_key
from kubesae.plan.count import count
from kubesae.plan.known import ModelConfig, find_config
from kubesae.plan.work import Work
from kubesae.store import open_store
from planned import PRICES, experiment_of, shape_of, work_for
from tiny_models import save_model

FOUND = {
    "measured": "2026-11-26T12:00:00+00:00",
    "device": "2 CPU cores, AVX512",
    "gpus": 1,
    "memory_gb": 32.0,
    "host_memory_gb": 32.0,
    "matmul_tflops": 1.5,
    "memory_gb_s": 12.0,
    "host_to_gpu_gb_s": 12.0,
    "disk_gb": 100.0,
    "disk_gb_s": 1.5,
    "startup_seconds": 5.0,
}


def _calibration(**changes):
    return Calibration.model_validate(FOUND | changes)


def _measured(work, tokens_per_second=2000.0):
    flops = tokens_per_second * work.flops
    return MeasuredModel(
        key=model_key(work.shape, work.experiment),
        name=work.shape.name,
        layers=work.depth,
        context=256,
        forward_batch=8,
        workers=2,
        tokens_per_second=tokens_per_second,
        flops=flops,
    )


def test_a_plan_for_here_takes_the_speed_that_was_measured():
    work = work_for("smollm2-135m", tokens=300_000, data="/some/folder")
    report = plan_work(work, PRICES, Assumptions(), gpu="here", calibration=_calibration(model=_measured(work)))
    assert report.collection.tokens_per_second == pytest.approx(2000)
    assert report.collection.seconds == pytest.approx(5 + 300_000 / 2000, rel=0.01)
    assert (report.collection.slots, report.gpus_per_slot) == (1, 1)  # four shards, one after the other
    assert report.costs[0].on_demand == 0
    assert "2,000 tokens/s through 16 layers" in report.calibrated


def test_another_model_has_a_share_of_the_measured_peak():
    work = work_for("gpt2", tokens=300_000)
    other = _measured(work_for("smollm2-135m"))
    report = plan_work(work, PRICES, Assumptions(), gpu="here", calibration=_calibration(model=other))
    assert report.collection.tokens_per_second == pytest.approx(1.5e12 * 0.4 / work.flops)


def test_what_is_set_wins_over_what_was_measured():
    work = work_for("smollm2-135m", tokens=300_000)
    calibration = _calibration(upload_gb_s=0.5, download_gb_s=0.4, model=_measured(work))
    chosen = plan_work(work, PRICES, Assumptions(upload_gb_s=2.0), gpu="here", calibration=calibration).assumptions
    assert (chosen.upload_gb_s, chosen.read_gb_s, chosen.start_seconds) == (2.0, 0.4, 5.0)


def test_other_gpus_are_planned_with_nothing_that_was_measured_here():
    work = work_for("smollm2-135m", tokens=300_000)
    calibration = _calibration(upload_gb_s=0.001, download_gb_s=0.001, model=_measured(work))
    here = plan_work(work, PRICES, Assumptions(), gpu="here", calibration=calibration)
    there = plan_work(work, PRICES, Assumptions(), gpu="h100")
    assert [offer.gpu for offer in here.offers] == ["here", *(offer.gpu for offer in there.offers)]
    assert here.offers[1:] == there.offers


def test_a_machine_that_was_not_measured_is_not_guessed():
    with pytest.raises(ConfigError, match=r"This machine has not been measured\. Run `kubesae plan --calibrate`"):
        plan_work(work_for("gpt2"), PRICES, Assumptions(), gpu="here")


def test_files_come_back(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_bytes(_calibration().to_json())
    assert load_calibration(path) == _calibration()
    for text in ("{", "[1]", '{"format": 2}'):
        path.write_text(text)
        with pytest.raises(ConfigError):
            load_calibration(path)
    with pytest.raises(ConfigError, match="Make one: `kubesae plan --calibrate`"):
        load_calibration(tmp_path / "none.json")


def test_names_do_not_make_models_differ_but_dtypes_do():
    shape = shape_of("llama-3-70b")
    keys = {model_key(shape, experiment_of("llama-3-70b", model_dtype=dtype)) for dtype in ("bfloat16", "float32")}
    assert len(keys) == 2
    assert model_key(shape_of("llama-3.1-70b"), experiment_of("llama-3-70b")) in keys


def test_measuring_the_store_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_PROBE_BYTES", 1 << 20)
    assert all(rate > 0 for rate in measure.store_gb_s(str(tmp_path / "store")))
    assert not open_store(str(tmp_path / "store")).list()


def test_measuring_the_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_FILE_BYTES", 16 << 20)
    assert measure.disk_gb_s(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_shortest_run_counts_and_the_first_does_not():
    calls = []
    assert measure.repeated(lambda: calls.append(1), 0.01) >= 0
    assert len(calls) >= 2


@pytest.mark.parametrize("architecture", ["llama", "deepseek-v3"])
def test_everything_is_measured(architecture, tmp_path, monkeypatch):
    save_model(tmp_path / "model", architecture)
    experiment = experiment_of(
        "gpt2", model=str(tmp_path / "model"), layers=[2], context=32, data=str(tmp_path / "data"), tokens=10_000
    )
    source = find_config(experiment)
    work = Work.of(experiment, count(source))
    lines: list[str] = []
    monkeypatch.setattr(measure, "_SECONDS", 0.01)
    monkeypatch.setattr(measure, "_SIDE", {"cpu": 64})
    monkeypatch.setattr(measure, "_FILE_BYTES", 8 << 20)
    monkeypatch.setattr(measure, "_PROBE_BYTES", 1 << 20)
    monkeypatch.setattr(measure_model, "_SECONDS", 0.05)
    monkeypatch.setattr(measure, "measure_startup", lambda _: 1.0)
    monkeypatch.setattr(
        measure_model, "_in_processes", lambda run, task, workers: [run(task, threading.Barrier(1))] * workers
    )
    found = measure.calibrate(work, source, tmp_path, 2, lines.append)
    assert found.model.layers == 3
    assert found.model.workers == 2
    assert found.model.flops == pytest.approx(found.model.tokens_per_second * work.flops)
    assert found.upload_gb_s > 0
    assert len(lines) == 6
    report = plan_work(work, PRICES, Assumptions(), gpu="here", calibration=found)
    assert report.collection.tokens_per_second == pytest.approx(found.model.tokens_per_second, rel=0.01)


def test_a_model_that_does_not_fit_here_is_not_run():
    work = work_for("kimi-k2-thinking")
    assert measure_model.measure_model(work, ModelConfig("m", "o", {}), 1, "cpu") is None
