"""`kubesae train-launch` through real torchrun: what Pods end with, and what they print."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from kubesae.launch.starts import ALLOWED, Starts
from kubesae.ledger import keys
from kubesae.train.metrics import MetricsLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.store import Store
    from launched import Launch, Place

LONG = 3_000
PYTORCHJOB = {"KUBESAE_TRAIN_BACKEND": "pytorchjob"}
TWO = {"PET_NPROC_PER_NODE": "2"}
# The longest a Pod may take from SIGTERM to its end; here also torch is imported.
GRACE = 10.0


def curve(output: Store) -> list[float]:
    """Return the training loss by step."""
    return [line["loss"] for line in MetricsLog(output, "small").read() if line["kind"] == "step"]


def counted(output: Store) -> int:
    return len(output.list("starts/"))


def test_two_processes_print_what_one_does(place: Place) -> None:
    launch = place.launch(**TWO)
    assert launch.wait() == 0, launch.output
    assert launch.output.count("Found 6 activation chunks") == 1
    assert launch.output.count("Report: ") == 1
    best = json.loads(place.output.read(keys.best("small")))
    folder = f"{keys.sae_folder('small')}{best['checkpoint']}"
    assert json.loads(place.output.read(f"{folder}/metadata.json"))["numerics"]["ranks"] == 2


def test_a_users_mistake_is_said_once_and_stays_2(place: Place) -> None:
    launch = place.launch("--layer", "9", **TWO, **PYTORCHJOB)
    assert launch.wait() == 2
    assert launch.output == "kubesae: Layer 9 was not collected: the data has layers [1, 4]. Choose one.\n"


def test_sigterm_leaves_a_checkpoint_and_the_code_of_the_backend(place: Place) -> None:
    codes = []
    for backend in ({}, PYTORCHJOB):
        launch = place.launch(epochs=LONG, **TWO, **backend)
        launch.until("Epoch 2:" if not codes else "Resuming from")
        began = time.monotonic()
        codes.append(launch.stop())
        assert time.monotonic() - began < GRACE
        newest = max(key for key in place.output.list(keys.checkpoints("small")) if key.endswith("trainer.json"))
        step = int(newest.split("step-")[1].split("/")[0])
        assert launch.output.count("kubesae: ") == 1
        assert launch.output.endswith(
            f"kubesae: Stopped by SIGTERM: start again to go on from the checkpoint of step {step}.\n"
        )
    assert codes == [75, 143]
    assert counted(place.output) == 0


def test_a_killed_worker_is_a_fault_and_goes_on_from_the_checkpoint(place: Place) -> None:
    launch = place.launch(epochs=LONG, **TWO, **PYTORCHJOB)
    launch.until("Epoch 1:")
    launch.workers()[1].kill()
    assert launch.wait() == 143
    assert "was killed by SIGKILL. Where nobody did that" in launch.output
    assert "Traceback" not in launch.output
    again = place.launch(epochs=LONG)
    again.until("Resuming from step")
    again.workers()[0].kill()
    assert again.wait() == 1, "a Job counts faults itself"


def test_the_third_fault_at_the_same_place_is_final(place: Place) -> None:
    codes = []
    for _ in range(3):
        launch = place.launch(**PYTORCHJOB)
        launch.workers()[0].kill()
        codes.append(launch.wait())
    assert codes == [143, 143, 1]


def test_starts_that_vanish_are_counted_and_the_last_word_is_said(place: Place) -> None:
    for _ in range(ALLOWED):
        assert Starts(place.output, ["small"], socket.gethostname()).begin()
    launch = place.launch(**PYTORCHJOB)
    assert launch.wait() == 1
    assert launch.output == (
        "kubesae: 3 starts from the same checkpoint ended without a new one; this is the last word. Look at what they "
        "said, mend it, and start the phase again: `kubesae retry train`.\n"
    )
    assert counted(place.output) == 0


@pytest.fixture
def nodes(place: Place) -> Callable[[], list[Launch]]:
    """Give what starts two nodes as the Pods of an elastic PyTorchJob. They meet at the second; the first is rank 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    elastic = {
        "PET_NNODES": "1:2",
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}",
        "PET_LOCAL_ADDR": "127.0.0.1",
        **PYTORCHJOB,
    }
    fast = "last_call_timeout=5,keep_alive_interval=2,keep_alive_max_attempt=3"

    def start() -> list[Launch]:
        confs = (f"{fast},is_host=false", f"{fast},is_host=true")
        return [place.launch(epochs=40, PET_RDZV_CONF=conf, **elastic) for conf in confs]

    return start


@pytest.mark.slow
@pytest.mark.parametrize("end", ["told to stop", "killed", "its worker killed", "the others' meeting point killed"])
def test_of_two_nodes_one_goes_on_with_the_curve_of_one(
    place: Place, another: Place, nodes: Callable[[], list[Launch]], end: str
) -> None:
    root, other = nodes()
    root.until("Epoch 3:")
    assert "Epoch 1:" not in other.output, "one rank prints"
    if end == "told to stop":
        assert root.stop() == 143
    elif end == "killed":
        root.end()
    elif end == "its worker killed":
        root.workers()[0].kill()
    else:
        other.end()
        assert root.wait() == 143
        assert "kubesae: This node does not meet the others of the training (RendezvousConnectionError" in root.output
        assert "a fault that is not the user's" not in root.output
        root, other = nodes()
    assert other.wait() == 0, other.output
    assert "Resuming from step" in root.output + other.output
    alone = another.launch(epochs=40)
    assert alone.wait() == 0, alone.output
    assert curve(place.output) == pytest.approx(curve(another.output), rel=0.02)


def test_a_node_that_comes_back_when_all_is_done_is_done_too(place: Place) -> None:
    elastic = {
        "PET_NNODES": "1:2",
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": "127.0.0.1:9",
        "PET_RDZV_CONF": "is_host=false,read_timeout=2",
    }
    launch = place.launch(**elastic)
    assert launch.wait() == 75, "it may have to wait for the others much longer"
    assert said_by_kubesae(launch)[0].startswith("kubesae: This node does not meet the others of the training (")
    assert place.launch().wait() == 0
    late = place.launch(**elastic)
    assert (late.wait(), said_by_kubesae(late)) == (0, [])


def said_by_kubesae(launch: Launch) -> list[str]:
    """Return the lines that are not those of torch's own log."""
    return [
        line
        for line in launch.output.splitlines()
        if not re.match(r"\[[EW]\d{4} |frame #|Exception raised|<omitting|$", line)
    ]
