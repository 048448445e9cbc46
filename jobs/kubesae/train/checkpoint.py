"""Checkpoints of one SAE: `sae/<name>/checkpoints/step-00012000/`.

    trainer.safetensors    weights in training units, optimiser moments, counters, the normaliser's mean
    sae.safetensors        the SAE to use, in raw units, with metadata.json (`kubesae.sae.files`)
    trainer.json           everything else that is needed to go on, and the digest of trainer.safetensors; written last:
                           a folder without it is not a checkpoint

There is no random state: the order of the data is a pure function of (order_seed, epoch, position), and only the start
draws weights. A step's tensors are the same bytes whenever they are written, so a checkpoint can be written again.
`best.json` is written only after what it points at is whole.
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch

from kubesae.errors import DamagedError, IdentityError, MissingError
from kubesae.experiment import canonical_json, parse_json_object, sha256_hex
from kubesae.ledger import keys
from kubesae.sae import Normaliser, Weights, save_sae

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.store import Store
    from kubesae.train.learner import Learner

FORMAT = 1
STATE = keys.CHECKPOINT_STATE
TENSORS = "trainer.safetensors"
_KEPT = 2
_FOLDER = re.compile(r"/step-(\d{8})/")


@dataclass
class Progress:
    """Where a training stands, besides its learner.

    Attributes:
        epoch: epochs that are complete, validation included.
        position: batches of the present epoch that are taken.
        loss_sum, active_sum, rows: of the present epoch: sums over its rows, and how many.
        pca_fvu: FVU of PCA on the validation rows, once it is known.
        best: the best epoch's metrics and step.
        latest: the last epoch's metrics.

    """

    epoch: int = 0
    position: int = 0
    loss_sum: float = 0.0
    active_sum: float = 0.0
    rows: int = 0
    pca_fvu: float | None = None
    best: dict[str, Any] | None = None
    latest: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a checkpoint gives back."""

    tensors: dict[str, Tensor]
    numbers: dict[str, float]
    progress: Progress
    normaliser: Normaliser


def check_name(store: Store, name: str, config: dict[str, Any]) -> None:
    """See that `config` is what an SAE `name` was started with, if there is one.

    Raises:
        IdentityError: it has other settings; nothing was touched.

    """
    key = keys.sae_config(name)
    try:
        stored = _flat(parse_json_object(store.read(key), store.url_of(key)))
    except MissingError:
        return
    wanted = _flat(config)
    lines = [
        f"  {field}: {stored.get(field)!r} there, {wanted.get(field)!r} here"
        for field in sorted(stored.keys() | wanted.keys())
        if stored.get(field) != wanted.get(field)
    ]
    if lines:
        raise IdentityError(
            f"The SAE {name!r} at {store.url} was started with other settings; nothing was touched. They differ in\n"
            + "\n".join(lines)
            + "\nGive this one another --sae-name, or set these fields back."
        )


def claim_name(store: Store, name: str, config: dict[str, Any]) -> None:
    """Write `config` as the settings of the SAE `name`, once.

    Raises:
        IdentityError: the name has other settings; nothing was touched.

    """
    if not store.create(keys.sae_config(name), canonical_json(config)):
        check_name(store, name, config)


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a config and of the objects in it, dotted."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            flat[name] = value
    return flat


class Checkpoints:
    """Reads and writes the checkpoints of the SAE `name`."""

    def __init__(self, store: Store, name: str) -> None:
        """`store` is the experiment's output."""
        self._store = store
        self._name = name
        self.seconds = 0.0

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, ascending."""
        return sorted(step for step, names in self._folders().items() if STATE in names)

    def _folders(self) -> dict[int, list[str]]:
        """Return for each step what lies in its folder, the marker first."""
        folders: dict[int, list[str]] = {}
        for key in self._store.list(f"{keys.sae_folder(self._name)}checkpoints/"):
            match = _FOLDER.search(key)
            if match:
                folders.setdefault(int(match[1]), []).append(key[match.end() :])
        return {step: sorted(names, key=lambda name: name != STATE) for step, names in folders.items()}

    def newest(self) -> Resumed | None:
        """Return the newest complete checkpoint, None when there is none.

        Raises:
            DamagedError: its files are not what it says.

        """
        steps = self.steps()
        if not steps:
            return None
        folder = keys.checkpoint_folder(self._name, steps[-1])
        where = self._store.url_of(folder + STATE)
        state = parse_json_object(self._store.read(folder + STATE), where)
        try:
            data = self._store.read(folder + TENSORS)
            if state["format"] != FORMAT or state["sha256"] != sha256_hex(data):
                raise DamagedError(f"{where} does not describe the {TENSORS} beside it. {_advice(where)}")
            tensors = safetensors.torch.load(data)
            normaliser = Normaliser(tensors["input_mean"], float(state["scale"]))
            return Resumed(tensors, state["learner"], Progress(**state["progress"]), normaliser)
        except (KeyError, TypeError, MissingError, safetensors.SafetensorError) as error:
            raise DamagedError(f"{where} is not a checkpoint ({error!r}). {_advice(where)}") from error

    def save(self, learner: Learner, normaliser: Normaliser, progress: Progress, metadata: dict[str, Any]) -> None:
        """Write the checkpoint of the learner's step; `metadata` goes into the SAE's metadata.json.

        All ranks have to call it, and the first writes. The files do not depend on how many ranks and shards there are.
        """
        began = time.monotonic()
        whole = learner.whole_tensors()
        if whole is None:
            return
        folder = keys.checkpoint_folder(self._name, learner.steps)
        tensors = {**whole, "input_mean": normaliser.mean_D}
        data = safetensors.torch.save({key: tensor.contiguous().cpu() for key, tensor in tensors.items()})
        self._store.put(folder + TENSORS, data)
        weights = Weights.of(whole)
        normaliser = normaliser.to(weights.b_dec_D.device)  # of what ranks have put together, the CPU
        save_sae(self._store, folder, learner.config, weights, normaliser, metadata, learner.threshold)
        state = {
            "format": FORMAT,
            "learner": learner.numbers(),
            "progress": asdict(progress),
            "scale": normaliser.scale,
            "sha256": sha256_hex(data),
        }
        self._store.put(folder + STATE, canonical_json(state))
        self.seconds = time.monotonic() - began

    def point_at(self, best: dict[str, Any]) -> None:
        """Make `best.json` point at the checkpoint of `best["step"]`, which is complete."""
        folder = keys.checkpoint_folder(self._name, best["step"]).removeprefix(keys.sae_folder(self._name))
        document = {"checkpoint": folder.rstrip("/"), "format": FORMAT, **best}
        data = canonical_json(document)
        key = keys.best(self._name)
        if not self._store.exists(key) or self._store.read(key) != data:
            self._store.put(key, data)

    def settle(self, best: dict[str, Any] | None) -> None:
        """Let the pointer show the best checkpoint, if there is one, and remove those that nobody needs."""
        if best:
            self.point_at(best)
        self.prune(best)

    def prune(self, best: dict[str, Any] | None) -> None:
        """Remove all but the newest checkpoints and the best one, and what an interrupted write has left behind."""
        complete = self.steps()
        kept = {*complete[-_KEPT:], best["step"] if best else None}
        for step, names in self._folders().items():
            if step not in kept and step < complete[-1]:
                # the marker first: what is half removed must not look complete
                for name in names:
                    self._store.delete(keys.checkpoint_folder(self._name, step) + name)


def _advice(where: str) -> str:
    return f"Delete the folder {where.rpartition('/')[0]} to go on from the checkpoint before it."
