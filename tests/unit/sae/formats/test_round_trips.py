"""What is exported and imported again is the same SAE, in every format and of every architecture that it can hold."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from kubesae.cli import export, import_
from kubesae.errors import ConfigError
from kubesae.sae.formats import FORMATS, dictionary_learning, export_sae, read_foreign
from kubesae.sae.formats.format import threshold_config
from kubesae.sae.inference import Sae
from kubesae.store import open_store
from random_sae import ARCHITECTURES, assert_same_function, random_sae

HELD = {
    "sae-lens": ARCHITECTURES,
    "sparsify": ("topk",),
    "dictionary-learning": ARCHITECTURES,
}
PAIRS = [(name, architecture) for name, held in HELD.items() for architecture in held]


def round_trip(name: str, sae: Sae) -> Sae:
    made = FORMATS[name]
    foreign = made.read(made.write(sae), "somewhere")
    assert foreign.config == sae.config
    assert foreign.notes == () or name == "sae-lens"
    return Sae(foreign.config, foreign.weights, {}, foreign.threshold_F)


def test_every_format_is_here_and_a_choice_of_the_flag():
    assert HELD.keys() == FORMATS.keys()
    for command in (export.command, import_.command):
        (option,) = (param for param in command.params if param.name == "format_name")
        assert list(option.type.choices)[: len(FORMATS)] == list(FORMATS)


@pytest.mark.parametrize(
    "hint", [None, "batchtopk", {"architecture": "topk", "k": 3}, {"architecture": "matryoshka", "prefixes": [2, 9]}]
)
def test_a_hint_counts_only_where_it_fits(hint):
    whole = {"architecture": "batchtopk", "k": 3, "prefixes": None}
    assert threshold_config(whole, 4, 8, "here").model_dump() == whole | {"d_model": 4, "d_sae": 8}
    if "jumprelu" in ARCHITECTURES:
        assert threshold_config(hint, 4, 8, "here").architecture == "jumprelu"
    else:
        with pytest.raises(ConfigError, match="architecture jumprelu, which this version of kubesae does not have"):
            threshold_config(hint, 4, 8, "here")


@pytest.mark.parametrize(("name", "architecture"), PAIRS)
@hypothesis.given(
    d_model=st.integers(1, 12), d_sae=st.integers(1, 40), seed=st.integers(0, 2**31), same=st.booleans(), data=st.data()
)
@hypothesis.settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_a_round_trip_gives_the_same_weights(name, architecture, d_model, d_sae, seed, same, data):
    k = data.draw(st.integers(1, d_sae))
    sae = random_sae(architecture, d_model, d_sae, k, seed, same=same)
    back = round_trip(name, sae)
    folded = name == "dictionary-learning" and dictionary_learning.dict_class(sae) == "JumpReluAutoEncoder"
    for left, right in zip(sae.weights, back.weights, strict=True):
        if folded:
            torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-5)
        else:
            assert torch.equal(left, right)
    assert (sae.threshold_F is None) == (back.threshold_F is None)
    if sae.threshold_F is not None:
        assert torch.equal(sae.threshold_F, back.threshold_F)


@pytest.mark.parametrize(("name", "architecture"), PAIRS)
def test_a_round_trip_gives_the_same_function(name, architecture):
    sae = random_sae(architecture, 24, 96, 8)
    assert_same_function(sae, round_trip(name, sae))


@pytest.mark.parametrize(
    ("name", "architecture"), [(n, a) for n in FORMATS for a in ARCHITECTURES if (n, a) not in PAIRS]
)
def test_what_a_format_cannot_hold_is_refused_with_those_that_can(name, architecture, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot hold this SAE: .* Give --format sae-lens or dictionary-learning"):
        export_sae(random_sae(architecture), name, open_store(str(tmp_path)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_files_and_how_to_load_them(name, store):
    sae = random_sae("topk")
    exported = export_sae(sae, name, store)
    assert list(exported.files) == list(FORMATS[name].files)
    assert set(exported.files) == set(store.list())
    assert store.url in exported.loading
    compile(exported.loading, "", "exec")
    assert read_foreign(name, store).config == sae.config
    assert export_sae(sae, name, store) == exported  # once more: the same bytes


def test_other_files_are_not_replaced(tmp_path):
    store = open_store(str(tmp_path))
    export_sae(random_sae("topk"), "sparsify", store)
    before = {key: store.read(key) for key in store.list()}
    with pytest.raises(ConfigError, match="holds something else; nothing was written"):
        export_sae(random_sae("topk", seed=1), "sparsify", store)
    assert {key: store.read(key) for key in store.list()} == before


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_without_it_is_a_users_mistake(name, tmp_path):
    with pytest.raises(ConfigError, match=f"There is no SAE of the format {name} at .*Give --from the folder"):
        read_foreign(name, open_store(str(tmp_path)))
