"""Checkpoints: what is complete, what is kept, what is refused, and names that are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kubesae import limits
from kubesae.errors import DamagedError, IdentityError
from kubesae.experiment import Sae as Settings
from kubesae.ledger import keys
from kubesae.sae import Normaliser, SaeConfig, initial_weights, load_sae_from
from kubesae.store import open_store
from kubesae.train.checkpoint import Checkpoints, Progress, claim_name
from kubesae.train.learner import Learner
from thread_ranks import ALONE

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store

D, F = 4, 8
NORMALISER = Normaliser(torch.arange(4.0), 0.3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def learner(steps: int, architecture: str = "topk") -> Learner:
    config = SaeConfig(architecture=architecture, d_model=D, d_sae=F, k=2 if architecture == "topk" else None)
    sample = torch.randn(30, D, generator=torch.Generator().manual_seed(0))
    made = Learner(config, Settings(architecture=architecture), initial_weights(config, sample, 0), ALONE, 100, 10)
    made.step(sample, 30)
    made.steps = steps
    return made


def write(checkpoints: Checkpoints, made: Learner, progress: Progress) -> None:
    snapshot = checkpoints.take(made, NORMALISER, progress, {"layer": 3})
    assert snapshot is not None
    checkpoints.write(snapshot)


def save(store: Store, *steps: int, best: int | None = None) -> Checkpoints:
    checkpoints = Checkpoints(store, "one")
    for step in steps:
        progress = Progress(epoch=1, position=step, best={"step": best} if best else None)
        write(checkpoints, learner(step), progress)
        checkpoints.prune(progress.best)
    return checkpoints


def test_newest_gives_back_what_was_saved(store: Store) -> None:
    checkpoints = save(store, 5, 12)
    resumed = checkpoints.newest()
    assert resumed is not None
    expected = learner(12)
    for name, tensor in expected.tensors().items():
        assert torch.equal(resumed.tensors[name], tensor.to(resumed.tensors[name].dtype)), name
    assert resumed.numbers == expected.numbers()
    assert resumed.progress == Progress(epoch=1, position=12)
    assert torch.equal(resumed.normaliser.mean_D, NORMALISER.mean_D)
    assert resumed.normaliser.scale == NORMALISER.scale


@pytest.mark.parametrize("architecture", ["topk", "gated", "jumprelu"])
def test_what_was_taken_does_not_change_with_further_steps(store: Store, architecture: str) -> None:
    made, checkpoints = learner(5, architecture), Checkpoints(store, "one")
    expected = {name: tensor.clone() for name, tensor in made.tensors().items()}
    snapshot = checkpoints.take(made, NORMALISER, Progress(position=5), {})
    made.step(torch.randn(30, D, generator=torch.Generator().manual_seed(1)), 30)
    assert snapshot is not None
    checkpoints.write(snapshot)
    resumed = checkpoints.newest()
    assert resumed is not None
    assert resumed.numbers["steps"] == 5
    assert all(torch.equal(resumed.tensors[name], tensor) for name, tensor in expected.items())
    assert not all(torch.equal(made.tensors()[name], tensor) for name, tensor in expected.items())


def test_without_memory_for_a_copy_it_is_written_from_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy, tight = (open_store(str(tmp_path / name)) for name in ("roomy", "tight"))
    save(roomy, 5)
    monkeypatch.setattr(limits, "memory", lambda: (1000, 100))
    made, checkpoints = learner(5), Checkpoints(tight, "one")
    snapshot = checkpoints.take(made, NORMALISER, Progress(epoch=1, position=5), {"layer": 3})
    assert snapshot is not None
    assert snapshot.data is None
    assert snapshot.tensors["W_enc"].data_ptr() == made.weights.W_enc_FD.data_ptr()
    checkpoints.write(snapshot)
    one, other = (Checkpoints(store, "one").newest() for store in (roomy, tight))
    assert one is not None
    assert other is not None
    assert (one.numbers, one.progress) == (other.numbers, other.progress)
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors.keys() | other.tensors)


def test_no_checkpoint_is_none(store: Store) -> None:
    assert Checkpoints(store, "one").newest() is None


def test_a_folder_without_its_marker_is_no_checkpoint(store: Store) -> None:
    checkpoints = save(store, 5, 12)
    store.delete(keys.checkpoint_folder("one", 12) + "trainer.json")
    assert checkpoints.steps() == [5]
    assert checkpoints.newest().numbers["steps"] == 5


def test_the_newest_two_and_the_best_are_kept(store: Store) -> None:
    checkpoints = save(store, 1, 2, 3, 4, 5, 6, best=2)
    assert checkpoints.steps() == [2, 5, 6]


def test_pruning_clears_up_after_an_interrupted_write(store: Store) -> None:
    store.put(keys.checkpoint_folder("one", 2) + "trainer.safetensors", b"half")
    save(store, 5, 6, 7)
    assert not store.exists(keys.checkpoint_folder("one", 2) + "trainer.safetensors")


def test_writing_a_step_again_gives_the_same_tensors(store: Store) -> None:
    save(store, 5)
    key = keys.checkpoint_folder("one", 5) + "trainer.safetensors"
    before = store.read(key)
    save(store, 5)
    assert store.read(key) == before


def test_other_bytes_than_the_marker_says_are_refused(store: Store) -> None:
    checkpoints = save(store, 5)
    store.put(keys.checkpoint_folder("one", 5) + "trainer.safetensors", b"other")
    with pytest.raises(DamagedError, match=r"step-00000005.*go on from the checkpoint before it"):
        checkpoints.newest()


@pytest.mark.parametrize("marker", [b"{}", b'{"format":1}', b"no json"])
def test_a_broken_marker_is_refused(store: Store, marker: bytes) -> None:
    checkpoints = save(store, 5)
    store.put(keys.checkpoint_folder("one", 5) + "trainer.json", marker)
    with pytest.raises(DamagedError, match="step-00000005"):
        checkpoints.newest()


def test_the_pointer_leads_to_an_sae_in_raw_units(store: Store) -> None:
    checkpoints = save(store, 5)
    checkpoints.point_at({"step": 5, "fvu": 0.25})
    sae = load_sae_from(store.child("sae/one"))
    assert sae.metadata["layer"] == 3
    assert sae.config.k == 2
    torch.testing.assert_close(sae.weights.W_dec_FD.norm(dim=1), torch.ones(F))


def test_a_name_keeps_its_settings(store: Store) -> None:
    config = {"identity": "a" * 64, "format": 1, "sae": {"lr": 1e-3, "k": 4}}
    claim_name(store, "one", config)
    claim_name(store, "one", config)
    before = store.read(keys.sae_config("one"))
    with pytest.raises(IdentityError, match=r"(?s)sae.lr: 0.001 there, 0.002 here.*--sae-name") as caught:
        claim_name(store, "one", {**config, "sae": {"lr": 2e-3, "k": 4}})
    assert "sae.k" not in str(caught.value)
    with pytest.raises(IdentityError, match="identity"):
        claim_name(store, "one", {**config, "identity": "b" * 64})
    assert store.read(keys.sae_config("one")) == before
