"""An import is an SAE of the experiment like any other, or it is refused and nothing is written."""

from __future__ import annotations

import json

import pytest
import torch

from kubesae.browse.page import write_page
from kubesae.errors import ConfigError, DamagedError, IdentityError
from kubesae.evaluate import evaluate
from kubesae.interpret import interpret
from kubesae.ledger import keys, read_best
from kubesae.monitor.phases import sae_states
from kubesae.sae import load_sae
from kubesae.sae.formats import FORMATS, export_sae, import_sae
from kubesae.sae.named import open_named, sae_names
from kubesae.store import open_store
from kubesae.train.checkpoint import claim_name
from random_sae import random_sae
from small_experiment import D_MODEL, small_experiment, write_small

LAYER = 4


@pytest.fixture
def small(store):
    """An experiment in every kind of store, and its identity."""
    return store, write_small(store)


@pytest.fixture
def theirs(tmp_path):
    """Folders of other libraries' SAEs, by format; of TopK unless another architecture is asked for."""

    def made(name, architecture="topk", d_model=D_MODEL, seed=0):
        sae = random_sae(architecture, d_model, 24, 4, seed)
        folder = open_store(str(tmp_path / f"{name}-{architecture}-{d_model}-{seed}"))
        export_sae(sae, name, folder)
        return sae, folder

    return made


@pytest.mark.parametrize("name", FORMATS)
def test_an_imported_sae_is_one_of_the_experiment(name, small, theirs):
    store, identity = small
    sae, folder = theirs(name)
    foreign = import_sae(store, identity, name, folder, "theirs", LAYER)
    assert foreign.config == sae.config
    assert sae_names(store) == ["theirs"]
    named = open_named(store, "theirs", identity)
    assert (named.layer, named.sae.config) == (LAYER, sae.config)
    loaded = load_sae(f"{store.url}/sae/theirs")
    assert all(torch.equal(*pair) for pair in zip(loaded.weights, sae.weights, strict=True))
    metadata = loaded.metadata
    assert metadata["imported"]["library"] == name
    assert metadata["imported"]["files"].keys() == set(FORMATS[name].files)
    assert (metadata["name"], metadata["identity"], metadata["model"]) == ("theirs", identity.sha256, identity.model)


@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk", "matryoshka"])
def test_it_is_evaluated_interpreted_and_monitored(architecture, small, theirs):
    store, identity = small
    experiment = small_experiment(store.url)
    import_sae(store, identity, "sae-lens", theirs("sae-lens", architecture)[1], "theirs", LAYER)
    report = evaluate(experiment, store, store, "theirs", 0)
    assert report.fvu > 0
    assert report.dead_share is None  # no training said it
    interpreted = interpret(store, store, "theirs", experiment.interpret)
    assert interpreted.stored.info.features == 24
    write_page(store, store, interpreted.stored)
    assert read_best(store, "theirs") is None
    (state,) = sae_states(store)
    assert state.imported
    assert (state.name, state.checkpoint, state.best, state.evaluated, state.interpreted) == (
        "theirs", None, None, True, True,
    )  # fmt: skip


def test_a_name_is_taken_once(small, theirs):
    store, identity = small
    folder = theirs("sparsify")[1]
    import_sae(store, identity, "sparsify", folder, "theirs", LAYER)
    before = {key: store.read(key) for key in store.list("sae/")}
    for other in (folder, theirs("sparsify", seed=1)[1]):
        with pytest.raises(ConfigError, match=r"There is an SAE theirs at .* already; nothing was touched"):
            import_sae(store, identity, "sparsify", other, "theirs", LAYER)
    with pytest.raises(IdentityError, match="nothing was touched"):  # nor may a training go on there
        claim_name(store, "theirs", {"format": 1, "identity": identity.sha256, "sae": {"name": "theirs"}})
    assert {key: store.read(key) for key in store.list("sae/")} == before


def test_a_training_keeps_its_name(small, theirs):
    store, identity = small
    claim_name(store, "trained", {"format": 1, "sae": {}})
    with pytest.raises(ConfigError, match="nothing was touched"):
        import_sae(store, identity, "sparsify", theirs("sparsify")[1], "trained", LAYER)
    assert list(store.list("sae/")) == [keys.sae_config("trained")]


@pytest.mark.parametrize("left", [1, 2, 3])
def test_an_import_that_was_killed_is_done_again(left, small, theirs):
    store, identity = small
    folder = theirs("sparsify")[1]
    import_sae(store, identity, "sparsify", folder, "theirs", LAYER)
    whole = {key: store.read(key) for key in store.list("sae/")}
    written = ["config.json", "imported/sae.safetensors", "imported/metadata.json", "best.json"]
    assert whole.keys() == {f"sae/theirs/{key}" for key in written}
    for key in written[left:]:
        store.delete(f"sae/theirs/{key}")
    assert sae_names(store) == []
    import_sae(store, identity, "sparsify", folder, "theirs", LAYER)
    assert {key: store.read(key) for key in store.list("sae/")} == whole


def test_what_does_not_fit_the_data_is_refused_and_nothing_is_written(small, theirs):
    store, identity = small
    folder = theirs("sparsify")[1]
    with pytest.raises(ConfigError, match=r"The data has no layer 3: its layers are \[1, 4\]"):
        import_sae(store, identity, "sparsify", folder, "theirs", 3)
    with pytest.raises(ConfigError, match="is 9 wide, the data 8"):
        import_sae(store, identity, "sparsify", theirs("sparsify", d_model=9)[1], "theirs", LAYER)
    with pytest.raises(ConfigError, match="must be a name of lower-case letters"):
        import_sae(store, identity, "sparsify", folder, "../theirs", LAYER)
    with pytest.raises(ConfigError, match="There is no SAE of the format sae-lens"):
        import_sae(store, identity, "sae-lens", folder, "theirs", LAYER)
    config = json.loads(folder.read("cfg.json")) | {"num_latents": 25}
    folder.put("cfg.json", json.dumps(config).encode())
    with pytest.raises(DamagedError, match=r"encoder\.weight with shape"):
        import_sae(store, identity, "sparsify", folder, "theirs", LAYER)
    assert not store.list("sae/")
