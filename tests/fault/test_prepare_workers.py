"""Three workers of prepare, one or all of which are killed: started again, they end with one worker's bytes."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from fault_experiment import UNITS
from fault_worker import Fault
from faults import objects
from kubesae.ledger import keys
from preparing import some_units

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fault_experiment import Scene

pytestmark = pytest.mark.fault

WORKERS = 3
TOKENS = 14_001  # so many that all six units are needed, and no worker makes a segment in vain

TOKENISING = ("tokenise", "in digests", "after digests", "in segment ids", "after segment documents", "in segment")
DEALING = ("in shard ids", "after shard documents", "in dealt", "after dealt", "after tokenizer", "in manifest")


@pytest.fixture
def changes(tmp_path: Path) -> dict[str, Any]:
    """Give an experiment whose documents are deduplicated: each unit needs what others know of those before it."""
    (tmp_path / "units").mkdir()
    units = some_units([30] * UNITS)
    for number, unit in enumerate(units):
        rows = (json.dumps({"text": document}) + "\n" for document in [*units[0][:5], *unit])
        (tmp_path / "units" / f"{number}.jsonl").write_text("".join(rows))
    corpora = [{"name": "words", "source": str(tmp_path / "units"), "dedup": True}]
    return {"corpora": corpora, "tokens": TOKENS}


@pytest.fixture
def three(scene: Callable[..., Scene], prefix: str, changes: dict[str, Any], tmp_path: Path) -> Scene:
    """Give a prefix for three workers, to be compared with what one has left elsewhere."""
    alone = scene("prepare", str(tmp_path / "alone"), **changes)
    alone.finish()
    made = [key for key in alone.store.list("tokens/segments/") if key.endswith(".json")]
    assert len(made) == UNITS
    several = scene("prepare", prefix, **changes)
    several.expected = objects(alone.store)
    return several


def start_all(three: Scene, faults: dict[int, Fault], pause: float = 0.02) -> list[int]:
    """Run the three beside each other; return their exit codes."""
    workers = [
        three.start("--index", index, "--of", WORKERS, fault=faults.get(index), pause=pause) for index in range(WORKERS)
    ]
    return [worker.wait() for worker in workers]


@pytest.mark.parametrize("point", TOKENISING)
def test_one_that_dies_while_the_others_work(three: Scene, point: str) -> None:
    codes = start_all(three, {1: Fault(point)})
    assert codes == [0, -signal.SIGKILL, 0]  # who has done its share ends well, and does not wait
    assert not three.store.exists(keys.TOKENS_MANIFEST)
    three.faults.count(f"prepare, three workers: kill {point}")
    worker = three.finish("--index", 1, "--of", WORKERS)
    assert "tokens prepared in 2 shards" in worker.output
    assert three.compare() == []


@pytest.mark.parametrize("point", DEALING)
def test_whoever_deals_dies(three: Scene, point: str) -> None:
    codes = start_all(three, dict.fromkeys(range(WORKERS), Fault(point)))
    assert -signal.SIGKILL in codes
    assert set(codes) <= {0, -signal.SIGKILL}
    three.faults.count(f"prepare, three workers: kill {point}", codes.count(-signal.SIGKILL))
    assert start_all(three, {}) == [0] * WORKERS
    assert three.compare() == []


def test_all_of_them_at_every_turn(three: Scene) -> None:
    for passage in (1, 2, 1):
        codes = start_all(three, dict.fromkeys(range(WORKERS), Fault("after segment", passage)))
        three.faults.count("prepare, three workers: kill after segment", codes.count(-signal.SIGKILL))
    assert start_all(three, {}) == [0] * WORKERS
    assert three.compare() == []
