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

import hashlib
import re
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch

from kubesae import limits
from kubesae.errors import DamagedError, IdentityError, MissingError
from kubesae.experiment import canonical_json, parse_json_object, sha256_hex
from kubesae.ledger import keys
from kubesae.sae import Normaliser, Weights, save_sae
from kubesae.sae.packing import pack, packed_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.sae import SaeConfig
    from kubesae.store import Store
    from kubesae.train.learner import Learner

FORMAT = 1
STATE = keys.CHECKPOINT_STATE
TENSORS = "trainer.safetensors"
_KEPT = 2
# Memory that has to be available for a copy of the trainer's tensors, in copies: folding the weights takes some too.
_ROOM = 2
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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint that is to be written.

    Attributes:
        step: of the learner.
        config: of the SAE.
        tensors: of trainer.safetensors.
        data: its bytes, in which `tensors` lie; None where there was no memory for them, and `tensors` are what the
            next step changes.
        state: of trainer.json, but for the digest.
        metadata: of metadata.json.
        threshold: of an SAE with one for all features.
        seconds: that taking it took.

    """

    step: int
    config: SaeConfig
    tensors: dict[str, Tensor]
    data: bytearray | None
    state: dict[str, Any]
    metadata: dict[str, Any]
    threshold: float | None
    seconds: float


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

    def take(
        self, learner: Learner, normaliser: Normaliser, progress: Progress, metadata: dict[str, Any]
    ) -> Snapshot | None:
        """Return the checkpoint of the learner's step, to be written; None on other ranks than the first.

        All ranks have to call it. The files do not depend on how many ranks and shards there are. `metadata` goes into
        the SAE's metadata.json.
        """
        began = time.monotonic()
        whole = learner.whole_tensors()
        if whole is None:
            return None
        tensors = {**whole, "input_mean": normaliser.mean_D}
        data = None
        if limits.memory()[1] > _ROOM * packed_bytes(tensors):
            data, tensors = pack(tensors)
        state = {
            "format": FORMAT,
            "learner": learner.numbers(),
            "progress": asdict(progress),
            "scale": normaliser.scale,
        }
        taken = time.monotonic() - began
        return Snapshot(learner.steps, learner.config, tensors, data, state, metadata, learner.threshold, taken)

    def write(self, snapshot: Snapshot) -> None:
        """Write a checkpoint."""
        began = time.monotonic()
        folder = keys.checkpoint_folder(self._name, snapshot.step)
        sha256 = self._put(folder + TENSORS, snapshot)
        normaliser = Normaliser(snapshot.tensors["input_mean"].cpu(), snapshot.state["scale"])
        weights = Weights.of(snapshot.tensors).to("cpu")
        save_sae(self._store, folder, snapshot.config, weights, normaliser, snapshot.metadata, snapshot.threshold)
        self._store.put(folder + STATE, canonical_json({**snapshot.state, "sha256": sha256}))
        self.seconds = snapshot.seconds + time.monotonic() - began

    def _put(self, key: str, snapshot: Snapshot) -> str:
        """Write the trainer's tensors; return the SHA-256 of the file."""
        if snapshot.data is not None:
            self._store.put(key, snapshot.data)
            return sha256_hex(snapshot.data)
        with tempfile.TemporaryDirectory(prefix="kubesae-") as folder:
            path = Path(folder) / TENSORS
            safetensors.torch.save_file({name: t.contiguous().cpu() for name, t in snapshot.tensors.items()}, path)
            self._store.put_file(key, path)
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

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
