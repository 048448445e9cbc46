"""How far the training of an SAE is, from its checkpoints, its metrics and the pointer to its best checkpoint.

The files are written by `kubesae train`; here is what others read of them. No torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubesae.errors import DamagedError, MissingError
from kubesae.experiment import parse_json_object
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubesae.store import Store

_STATE = re.compile(rf"/step-(\d{{8,}})/{re.escape(keys.CHECKPOINT_STATE)}$", re.ASCII)


@dataclass(frozen=True, slots=True)
class TrainPoint:
    """A point of a training's curve: on training rows, or at an epoch's end on validation rows."""

    step: int
    epoch: int
    loss: float
    l0: float
    fvu: float | None = None


def checkpoint_steps(found: Iterable[str]) -> list[int]:
    """Return the steps of the complete checkpoints among these keys, ascending."""
    return sorted(int(match[1]) for match in map(_STATE.search, found) if match)


def read_best(output: Store, name: str) -> TrainPoint | None:
    """Return what `best.json` says of the best checkpoint; None when there is none yet, or no training made it.

    Raises:
        DamagedError: it says nothing of the kind.

    """
    where = output.url_of(keys.best(name))
    try:
        best = parse_json_object(output.read(keys.best(name)), where)
    except MissingError:
        return None
    return None if best.get("imported") is True else _point(best, where)


def last_point(output: Store, name: str) -> TrainPoint | None:
    """Return the last point of the newest metrics segment; None when there is none yet.

    Raises:
        DamagedError: the segment holds none.

    """
    segments = [key for key in output.list(f"{keys.sae_folder(name)}metrics/") if key.endswith(".jsonl")]
    if not segments:
        return None
    where = output.url_of(segments[-1])
    try:
        lines = output.read(segments[-1]).splitlines()
        return _point(json.loads(lines[-1]), where) if lines else None
    except MissingError:  # training went back to an earlier checkpoint
        return None
    except ValueError as error:
        raise DamagedError(f"{where} is no metrics segment ({error}). Delete it: only curves are lost.") from error


def read_curves(output: Store, name: str) -> dict[str, list[TrainPoint]]:
    """Return the points of a training's curves by kind, `step` and `epoch`, ascending; none where nothing was logged.

    What an interrupted attempt and its successor both logged counts once.

    Raises:
        DamagedError: a segment holds something else.

    """
    found: dict[str, dict[int, TrainPoint]] = {"step": {}, "epoch": {}}
    for key in output.list(f"{keys.sae_folder(name)}metrics/"):
        if not key.endswith(".jsonl"):
            continue
        where = output.url_of(key)
        try:
            for line in map(json.loads, output.read(key).splitlines()):
                found[line["kind"]][line["step"]] = _point(line, where)
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(
                f"{where} is no metrics segment ({error!r}). Delete it: only curves are lost."
            ) from error
    return {kind: [points[step] for step in sorted(points)] for kind, points in found.items()}


def _point(values: dict[str, Any], where: str) -> TrainPoint:
    try:
        loss = values["val_loss"] if "val_loss" in values else values["loss"]
        return TrainPoint(values["step"], values["epoch"], float(loss), float(values["l0"]), values.get("fvu"))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{where} says nothing of step, loss and L0 ({error!r}). Train again from there.") from error
