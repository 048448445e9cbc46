"""Eight SAEs that share a pass over the small experiment: all architectures, two seeds, widths and learning rates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from small_training import BATCHTOPK, MATRYOSHKA, RELU, TOPK
from tensorboard_points import points

if TYPE_CHECKING:
    from collections.abc import Mapping

_ONE, _OTHER = {"seed": 0, "d_sae": 24, "lr": 5e-3}, {"seed": 7, "d_sae": 40, "lr": 2e-3}
_KINDS = {"relu": RELU, "topk": TOPK, "batchtopk": BATCHTOPK, "matryoshka": MATRYOSHKA}
EIGHT: list[dict[str, Any]] = [
    kind | variant | {"name": f"{name}-{variant['d_sae']}"}
    for variant in (_ONE, _OTHER)
    for name, kind in _KINDS.items()
]
EIGHT[4] |= {"target_l0": 6.0}
EIGHT[5] |= {"k": 5}
# What depends on how long things took, and files about more than one SAE.
_TIMES = ("tokens_per_second", "data_wait_share")


def kept(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """Return what the SAE `name` ended with, without times: its files, its lines of metrics, and its points."""
    found: dict[str, Any] = {}
    for key, data in files.items():
        if not key.startswith(f"sae/{name}/") or key.endswith("report.html"):
            continue
        if key.endswith(".jsonl"):
            for line in map(json.loads, data.splitlines()):
                found[f"{line['kind']} {line['step']}"] = {k: v for k, v in line.items() if k not in _TIMES}
        elif "/tensorboard/" in key:
            for tag, step, value in points(data):
                if not tag.endswith(_TIMES):
                    assert (tag, step) not in found, "a point twice"
                    found[tag, step] = value
        else:
            found[key] = data
    return found


def last(kept_files: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the same without the checkpoints before the newest: which ones are there depends on interruptions."""
    steps = sorted({key.split("/")[3] for key in kept_files if isinstance(key, str) and "/checkpoints/" in key})
    return {
        key: value
        for key, value in kept_files.items()
        if not (isinstance(key, str) and "/checkpoints/" in key and key.split("/")[3] != steps[-1])
    }
