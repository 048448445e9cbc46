"""Which SAEs share a pass over the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kubesae.errors import ConfigError
from kubesae.experiment import Sae
from kubesae.ledger import read_identity
from kubesae.train.groups import DataOrder, order_of, shared_passes
from kubesae.train.settings import resolve_target, resolve_targets

if TYPE_CHECKING:
    from kubesae.store import Store
    from kubesae.train.settings import Target


@pytest.fixture
def targets(small_data: Store) -> Any:
    identity = read_identity(small_data)

    def make(*changes: dict[str, Any]) -> list[Target]:
        return resolve_targets([Sae(layer=4, **change) for change in changes], identity)

    return make


def names(passes: list[list[Target]]) -> list[list[str]]:
    return [[target.name for target in these] for these in passes]


def test_what_an_sae_is_and_how_it_learns_does_not_divide(targets: Any) -> None:
    several = targets(
        {"name": "a"},
        {"name": "b", "architecture": "topk", "k": 3, "seed": 5},
        {"name": "c", "d_sae": 9, "lr": 1e-2, "lr_warmup": 0.5, "l1_coeff": 1.0, "dead_after": 3},
    )
    assert names(shared_passes(several)) == [["a", "b", "c"]]


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 64},
        {"epochs": 1},
        {"shuffle_rows": 64},
        {"max_tokens": 500},
        {"validation": 0.1},
        {"order_seed": 1},
    ],
)
def test_what_decides_the_order_divides(targets: Any, change: dict[str, Any]) -> None:
    several = targets({"name": "a"}, {"name": "b"} | change, {"name": "c"}, {"name": "d"} | change)
    assert names(shared_passes(several)) == [["a", "c"], ["b", "d"]]


def test_the_only_layer_is_the_same_said_or_not(targets: Any, small_data: Store) -> None:
    identity = read_identity(small_data).model_copy(update={"layers": (4,)})
    unsaid = resolve_target(Sae(name="unsaid"), identity)
    assert order_of(unsaid) == order_of(targets({"name": "said"})[0])


def test_every_field_is_either_part_of_the_order_or_may_differ() -> None:
    """A new field has to be put on one side."""
    free = {
        "name", "architecture", "d_sae", "expansion", "l1_coeff", "target_l0", "k", "prefixes", "auxk_coeff",
        "dead_after", "lr", "lr_warmup", "lr_decay", "sparsity_warmup", "seed",
        "b_dec_start", "decoder", "jumprelu_recipe", "k_anneal", "k_start", "l0_coeff", "lr_decay_shape",
        "k_aux", "resample", "threshold_reach",
    }  # fmt: skip
    assert set(Sae.model_fields) == free | set(DataOrder._fields)


def test_nothing_is_no_pass() -> None:
    assert shared_passes([]) == []


def test_two_saes_of_one_name_are_refused(targets: Any) -> None:
    with pytest.raises(ConfigError, match=r"2 SAEs have the name 'layer-004-relu-64'\. Give each its own `name`"):
        targets({}, {"lr": 1e-2})
