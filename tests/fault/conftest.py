"""Fixtures of the fault suite: programs to break, undisturbed runs to compare with, and the count of what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fault_experiment import Scene, fill, write_experiment, write_inputs
from fault_workers import Workers
from faults import Faults, Objects, objects
from http_faults import HttpFaults
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from s3_server import S3Server

FAULTS = Faults()
FOLDER = "tests/fault/"


@pytest.fixture(scope="session")
def faults() -> Faults:
    """Give the count of the whole suite."""
    return FAULTS


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Workers:
    """Give the fork server."""
    return Workers(tmp_path_factory.mktemp("workers"))


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a model and a corpus."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def undisturbed(
    workers: Workers, inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Objects]]:
    """Give what each program leaves when nothing happens: `prepare` to `interpret`; options are a task's."""
    done: dict[str, dict[str, Objects]] = {}

    def run(*arguments: object, **options: Any) -> dict[str, Objects]:
        name = repr((arguments, options))
        if name not in done:
            folder = tmp_path_factory.mktemp("undisturbed")
            file = write_experiment(folder / "experiment.yaml", inputs, str(folder / "data"))
            store, runs = open_store(str(folder / "data")), {"data": str(folder / "data")}
            for program, *more in (("prepare",), ("collect", "--all", *arguments), ("train",), ("interpret",)):
                worker = workers.start(program, file, *more, **options)
                assert worker.wait() == 0, worker.output
                runs[program] = objects(store)
            done[name] = runs
        return done[name]

    return run


@pytest.fixture(params=["folder", pytest.param("s3", marks=[pytest.mark.s3, pytest.mark.slow])])
def prefix(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give an empty prefix of each backend in turn."""
    return str(tmp_path / "data") if request.param == "folder" else f"{request.getfixturevalue('s3_bucket')}/some/where"


@pytest.fixture
def s3_prefix(s3_bucket: str) -> str:
    """Give an empty prefix on the S3 server."""
    return f"{s3_bucket}/some/where"


@pytest.fixture
def service(s3_server: S3Server, s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpFaults]:
    """Put the proxy between the server and all that starts from here on."""
    assert s3_prefix
    with HttpFaults(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def scene(
    workers: Workers,
    faults: Faults,
    inputs: Path,
    undisturbed: Callable[..., dict[str, Objects]],
    tmp_path: Path,
) -> Iterator[Callable[..., Scene]]:
    """Give what makes a scene: a program at a prefix, with all that it needs in place. No process is left behind."""

    def make(program: str, prefix: str, *, data: str | None = None, **changes: Any) -> Scene:
        """`data`: where collected activations are put for a training; left out: they lie in a folder."""
        runs = undisturbed()
        if program == "collect":
            fill(prefix, runs["prepare"])
        elif data:
            fill(data, runs["collect"])
        reads = program in {"train", "interpret"}
        if reads:
            changes["output"] = prefix
        if program == "interpret":
            fill(prefix, {key: found for key, found in runs["train"].items() if key.startswith("sae/")})
        file = write_experiment(
            tmp_path / "experiment.yaml", inputs, (data or runs["data"]) if reads else prefix, **changes
        )
        command = (program, "--all") if program == "collect" else (program,)
        expected = runs[program]
        if program == "interpret":
            expected = {key: found for key, found in expected.items() if key.startswith(("sae/", "interpret/"))}
        return Scene(workers, faults, file, open_store(prefix), command, expected)

    yield make
    workers.end()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the tests of this folder."""
    if report.nodeid.startswith(FOLDER):
        FAULTS.tests += report.when == "call" and not report.skipped
        FAULTS.skipped += report.skipped


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session if anything was lost, doubled or unequal, whatever its test made of it."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:  # one of several processes
        output["faults"] = {"kinds": dict(FAULTS.kinds), "found": FAULTS.found}
    if FAULTS.any_found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_testnodedown(node: Any) -> None:
    """Take over what one of several processes has counted; one that died has told nothing, and failed a test."""
    counted = getattr(node, "workeroutput", {}).get("faults")
    if counted:
        FAULTS.add(**counted)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """End with the one line."""
    if FAULTS.tests or FAULTS.skipped:
        terminalreporter.section("faults")
        terminalreporter.write_line(FAULTS.line())
