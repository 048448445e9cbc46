"""Each check finds what it is for, says what to do about it, and none ends the others."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kubesae import limits
from kubesae.doctor import Check, examine, exit_code, libraries, machine, storage
from kubesae.doctor import experiment as about
from kubesae.doctor.check import failed, guarded, ok, warning
from kubesae.errors import ConfigError, StoreError
from kubesae.experiment import Experiment
from kubesae.model import products
from kubesae.sae import gpu, native
from kubesae.store import ObjectInfo, open_store
from kubesae.store.local import LocalStore
from small_experiment import write_small
from tiny_models import LAYERS, save_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def only(checks: Iterator[Check]) -> Check:
    (check,) = checks
    return check


def test_a_check_that_breaks_is_a_line_and_the_others_go_on() -> None:
    def breaks(error: Exception) -> Iterator[Check]:
        yield ok("first", "fine")
        raise error

    found = list(guarded("x", lambda: breaks(ZeroDivisionError("no"))))
    assert [check.status for check in found] == ["ok", "failed"]
    assert found[1].found == "the check itself broke: ZeroDivisionError('no')"
    assert found[1].fault
    mistake, down, missing = (
        list(guarded("x", lambda error=error: breaks(error)))[1]  # type: ignore[misc]
        for error in (ConfigError("wrong"), StoreError("down"), ModuleNotFoundError("m", name="torch"))
    )
    assert (mistake.found, mistake.fault) == ("wrong", False)
    assert (down.found, down.fault) == ("down", True)
    assert (missing.found, missing.fault) == ("not looked at, for lack of torch", False)


def test_exit_codes() -> None:
    fine, note = ok("a", "b"), warning("a", "b", "c")
    mistake = failed("a", "b", "c")
    fault = mistake.model_copy(update={"fault": True})
    assert [exit_code(checks) for checks in ([], [fine, note], [fine, fault], [fault, mistake])] == [0, 0, 1, 2]


def test_everything_is_looked_at_even_where_nothing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    lost = [{"name": "lost", "source": str(tmp_path / "*.none")}]
    experiment = _experiment(tmp_path, data=str(tmp_path / "file" / "data"), model=str(tmp_path / "none"), corpora=lost)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(limits, "memory", lambda: {}["MemTotal"])
    found = {check.name: check for check in examine(experiment)}
    assert found["Memory"].found == "the check itself broke: KeyError('MemTotal')"
    assert {name for name, check in found.items() if check.status == "failed"} >= {
        "Memory",
        "Store",
        "Model",
        "Corpus lost",
    }
    assert {name for name, check in found.items() if check.status == "ok"} >= {"Python", "Extra batch"}
    assert exit_code(found.values()) == 2


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(machine.python()).status == "ok"
    monkeypatch.setattr(machine, "NEEDED_PYTHON", (4, 0))
    assert only(machine.python()).advice == "Use Python 3.11 or newer."


@pytest.mark.parametrize(
    ("limit", "status", "found"),
    [(None, "ok", "8"), (64, "ok", "8"), (2.5, "ok", "2.5 of 8"), (0.5, "warning", "0.5 of 8")],
)
def test_cpus(monkeypatch: pytest.MonkeyPatch, limit: float | None, status: str, found: str) -> None:
    monkeypatch.setattr(limits, "cpus", lambda: 8)
    monkeypatch.setattr(limits, "cpu_limit", lambda: limit)
    check = only(machine.cpus())
    assert check.status == status
    assert check.found.startswith(found)


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory", lambda: (8 * 10**9, 10**9))
    monkeypatch.setattr(limits, "memory_limit", lambda: 8 * 10**9)
    check = only(machine.memory())
    assert (check.status, check.found) == ("warning", "8.0 GB (cgroup), 1.0 GB available")


def test_folders_are_looked_at_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = machine.folder("x", tmp_path / "a" / "b", "X")
    assert check.status == "ok"
    assert check.found.startswith(f"{tmp_path}/a/b, ")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    check = machine.folder("x", tmp_path / "file" / "b", "X_HOME")
    assert (check.status, check.found) == ("failed", f"{tmp_path}/file/b cannot be written")
    assert "set X_HOME" in str(check.advice)
    monkeypatch.setattr(machine, "LITTLE_DISK", 1e30)
    assert machine.folder("x", tmp_path, "X").status == "warning"


def test_an_extra_that_is_not_installed_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "EXTRAS", {"batch": ("json", "no_such_module"), "webdataset": ("no_such_module",)})
    first, second = libraries.extras(needed=True)
    assert (first.status, first.found) == ("failed", "no_such_module is not installed")
    assert first.advice == "`pip install 'kubesae[batch]'` (prepare, collect, verify, evaluate and interpret need it)."
    assert second.status == "warning"
    assert [check.status for check in libraries.extras(needed=False)] == ["warning", "warning"]


def test_a_library_that_lacks_another_or_breaks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lacking_library.py").write_text("import no_such_module\n")
    (tmp_path / "broken_library.py").write_text("raise OSError('libcudart.so: cannot open')\n")
    monkeypatch.setattr(libraries, "EXTRAS", {"train": ("lacking_library", "broken_library")})
    assert only(libraries.extras(needed=True)).found == (
        "lacking_library lacks no_such_module; broken_library cannot be imported: OSError('libcudart.so: cannot open')"
    )


@pytest.mark.parametrize(
    ("flags", "in_float32", "status", "word"),
    [
        ({"amx_bf16", "avx512_bf16"}, False, "ok", "(CPU: AMX)"),
        ({"avx512_bf16"}, False, "ok", "(CPU: AVX512-BF16)"),
        (set(), True, "ok", "(CPU: products in float32)"),
        (set(), False, "warning", ""),
    ],
)
def test_torch_and_the_rate_of_this_cpu(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], *, in_float32: bool, status: str, word: str
) -> None:
    monkeypatch.setattr(limits, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(products, "in_float32", lambda _device, _dtype: in_float32)
    check = only(libraries.torch_works())
    assert check.status == status
    assert "bfloat16 works" in check.found
    assert check.found.endswith(word)


def test_without_torch_nothing_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_torch", lambda: None)
    assert [*libraries.torch_works(), *libraries.kernels(), *libraries.accelerators()] == []
    assert libraries.gpu_memory() == 0


def test_kernels_that_cannot_be_compiled_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "reason", lambda: None)
    assert only(libraries.kernels()).status == "ok"
    monkeypatch.setattr(native, "reason", lambda: "there is no C++ compiler (g++)")
    check = only(libraries.kernels())
    assert (check.status, check.found) == ("warning", "not compiled: there is no C++ compiler (g++)")
    assert "install g++" in check.advice


def test_kernels_of_a_gpu_are_looked_at_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "reason", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(gpu, "reason", lambda _: None)
    assert [check.status for check in libraries.kernels()] == ["ok", "ok"]
    monkeypatch.setattr(gpu, "reason", lambda _: "triton is not installed")
    check = list(libraries.kernels())[1]
    assert (check.status, check.found) == ("warning", "none: triton is not installed")
    assert "a C compiler (gcc)" in check.advice


def test_gpus_are_listed_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        name, total_memory = "GPU X", 80 * 10**9

    class Cuda:
        is_available = staticmethod(lambda: True)
        device_count = staticmethod(lambda: 4)
        get_device_properties = staticmethod(lambda _: Device)

    class Torch:
        cuda = Cuda

    monkeypatch.setattr(libraries, "_torch", lambda: Torch)
    assert only(libraries.accelerators()).found == ", ".join(["GPU X (80.0 GB)"] * 4) + ": 2 pairs"
    assert only(libraries.accelerators(4)).status == "ok"
    missing = only(libraries.accelerators(8))
    assert (missing.status, missing.found) == ("failed", "torch sees 4 GPUs, and there have to be 8")
    assert libraries.gpu_memory() == 320 * 10**9


def test_a_store_that_keeps_its_promises(store_url: str) -> None:
    store = open_store(store_url)
    store.put("kept", b"1")
    first, clock = storage.store_checks("Store", store_url)
    assert first.status == "ok"
    for step in ("create", "create again", "list", "ranged read", "delete"):
        assert f"{step} " in first.found
    assert (clock.name, clock.status, clock.found) == ("Store clock", "ok", "agrees with this machine's")
    assert list(store.list()) == ["kept"]


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    first, _ = storage.store_checks("Store", str(tmp_path / "a" / "b"))
    assert first.status == "ok"
    assert f"not there yet; tried in {tmp_path}" in first.found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.s3
def test_a_store_that_refuses_us_or_is_not_there_fails_with_what_to_do(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = only(guarded("Store", lambda: storage.store_checks("Store", f"{s3_bucket}-none/x")))
    assert (check.status, check.fault) == ("failed", False)
    assert "no such bucket" in check.found
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    check = only(guarded("Store", lambda: storage.store_checks("Store", s3_bucket)))
    assert (check.status, check.fault) == ("failed", False)
    assert "AWS_SECRET_ACCESS_KEY" in check.found
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(storage, "DEADLINE", 1.0)
    check = only(guarded("Store", lambda: storage.store_checks("Store", s3_bucket)))
    assert (check.status, check.fault) == ("failed", True)


class Replaces(LocalStore):
    def create(self, key: str, data: Any) -> bool:
        self.put(key, data)
        return True


class Hides(LocalStore):
    def list(self, *_: Any, **__: Any) -> dict[str, ObjectInfo]:
        return {}


class IgnoresRanges(LocalStore):
    def read(self, key: str, *_: Any) -> bytes:
        return super().read(key)


class KeepsDeleted(LocalStore):
    def delete(self, *_: Any) -> None:
        return


class NeverCreates(LocalStore):
    def create(self, *_: Any) -> bool:
        return False


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (Replaces, "it replaces an object although told not to (it ignores If-None-Match)"),
        (Hides, "a new object is not listed"),
        (IgnoresRanges, "a ranged read gives other bytes than were written"),
        (KeepsDeleted, "a deleted object is still listed"),
        (NeverCreates, "an object that was not there was not created"),
    ],
)
def test_a_promise_that_a_store_breaks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[LocalStore], problem: str
) -> None:
    monkeypatch.setattr(storage, "open_store", lambda _url, **_: kind(tmp_path))
    check = only(storage.store_checks("Store", str(tmp_path)))
    assert check.status == "failed"
    assert check.found.endswith(f": {problem}")


@pytest.mark.parametrize(
    ("skew", "status", "found"),
    [
        (-700, "failed", "12 min behind this machine's"),
        (45, "warning", "45 s ahead of this machine's"),
        (-9, "ok", "9 s behind this machine's"),
    ],
)
def test_a_clock_that_is_off_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float, status: str, found: str
) -> None:
    class Skewed(LocalStore):
        def list(self, prefix: str = "", *, after: str | None = None) -> dict[str, ObjectInfo]:
            time = datetime.now(UTC) + timedelta(seconds=skew)
            return {key: ObjectInfo(info.size, time) for key, info in super().list(prefix, after=after).items()}

    monkeypatch.setattr(storage, "open_store", lambda _url, **_: Skewed(tmp_path))
    _, clock = storage.store_checks("Store", str(tmp_path))
    assert (clock.status, clock.found) == (status, found)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tmp_path / "tiny", "llama")
    return tmp_path / "tiny"


def _experiment(folder: Path, **changes: Any) -> Experiment:
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text" / "one.txt").write_text("one two three")
    values = {
        "data": str(folder / "data"),
        "model": str(folder / "tiny"),
        "layers": [1],
        "corpora": [{"name": "words", "source": str(folder / "text")}],
        "tokens": 1000,
        "context": 32,
    }
    return Experiment.model_validate(values | changes)


def test_a_model_that_fits(tmp_path: Path, model: Path) -> None:
    first, fits, room = about.model_checks(_experiment(tmp_path))
    assert first.found == "tiny: Llama, d_model 32; layers 0 to 1 of 4 are loaded"
    assert [check.status for check in (first, fits, room)] == ["ok"] * 3
    assert room.found.startswith("1,000 tokens x 64 B = 64.0 kB; ")
    assert not (tmp_path / "data").exists()


def test_only_the_layers_that_are_loaded_count(model: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(model / "model.safetensors")
    size = {name: tensor.numel() * 4 for name, tensor in weights.items()}
    layer = sum(count for name, count in size.items() if ".layers.0." in name)
    rest = sum(count for name, count in size.items() if ".layers." not in name and not name.startswith("lm_head"))
    assert about.weight_bytes(model, 1, 4) == rest + 2 * layer
    assert about.weight_bytes(model, LAYERS - 1, 4) == rest + LAYERS * layer
    assert about.weight_bytes(model / "nowhere", 1, 4) is None


def test_a_model_that_does_not_fit(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory", lambda: (5000, 4000))
    found = {check.name: check for check in about.model_checks(_experiment(tmp_path))}
    assert found["Model memory"].status == "failed"
    monkeypatch.setattr(limits, "memory", lambda: (10**9, 4000))
    found = {check.name: check for check in about.model_checks(_experiment(tmp_path))}
    assert found["Model memory"].status == "warning"


def test_activations_for_which_there_is_no_room(tmp_path: Path, model: Path) -> None:
    found = {check.name: check for check in about.model_checks(_experiment(tmp_path, tokens=10**15))}
    assert found["Activations"].status == "failed"
    assert "lower `tokens`" in str(found["Activations"].advice)


def test_corpora_are_found_or_named(tmp_path: Path, model: Path) -> None:
    corpora = [
        {"name": "words", "source": str(tmp_path / "text")},
        {"name": "lost", "source": str(tmp_path / "*.none")},
    ]
    first, second = about.corpus_checks(_experiment(tmp_path, corpora=corpora))
    assert (first.name, first.found) == ("Corpus words", f"13 B in 1 file, {tmp_path}/text")
    assert (second.name, second.status, second.fault) == ("Corpus lost", "failed", False)
    assert "no file matches" in second.found


def test_a_corpus_of_conversations_wants_a_chat_template(tmp_path: Path, model: Path) -> None:
    (tmp_path / "talks.jsonl").write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    corpora = [{"name": "talks", "source": str(tmp_path / "talks.jsonl"), "messages": ["messages"]}]
    check = only(about.corpus_checks(_experiment(tmp_path, corpora=corpora)))
    assert (check.status, check.fault) == ("failed", False)
    assert "has no chat template" in check.found
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert only(about.corpus_checks(_experiment(tmp_path, corpora=corpora))).status == "ok"


def test_corpora_that_are_prepared_are_not_looked_for(tmp_path: Path) -> None:
    write_small(open_store(str(tmp_path / "data")))
    corpora = [{"name": "lost", "source": str(tmp_path / "*.none")}]
    check = only(about.corpus_checks(_experiment(tmp_path, corpora=corpora)))
    assert check.found == "prepared: 1,003 tokens lie in the store, the corpora are not needed any more"


@pytest.mark.s3
def test_a_store_that_is_down_is_waited_for_once_a_check(
    tmp_path: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(about, "DEADLINE", 1.0)
    began = time.monotonic()
    check = only(about.corpus_checks(_experiment(tmp_path, data=s3_bucket)))
    assert (check.name, check.status) == ("Corpus words", "ok")
    assert time.monotonic() - began < 30


def test_a_store_alone_can_be_looked_at(tmp_path: Path) -> None:
    names = [check.name for check in examine(None, str(tmp_path))]
    assert names[-2:] == ["Store", "Store clock"]
    assert "Model" not in names
