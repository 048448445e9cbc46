"""Features shared out over ranks: every layout of rows and features trains the same SAE."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kubesae.errors import ConfigError, Interrupted
from kubesae.experiment import Sae as Settings
from kubesae.sae import Normaliser, SaeConfig
from kubesae.sae.kernels import top_k
from kubesae.store import open_store
from kubesae.train.checkpoint import Checkpoints, Progress
from kubesae.train.console import Console, silent
from kubesae.train.distributed import join_ranks
from kubesae.train.passes import Pass
from kubesae.train.settings import Target
from kubesae.train.start import Sample, fresh_start, make_learner, shard_weights
from kubesae.train.stopping import Stop
from thread_ranks import run_ranks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubesae.train.distributed import Ranks
    from kubesae.train.learner import Learner

B, D, F, K = 24, 8, 32, 3
STEPS = 50
OF_K = ("topk", "batchtopk", "matryoshka")
# ranks, and over how many of them the features are shared out
LAYOUTS = {"one rank": (1, 1), "rows": (2, 1), "features": (2, 2), "rows and features": (4, 2), "four shards": (4, 4)}
RECIPES: dict[str, dict[str, Any]] = {
    "topk": {"architecture": "topk"},
    "falling k": {"architecture": "topk", "k_start": 12, "k_anneal": 0.5},
    "batchtopk": {"architecture": "batchtopk"},
    "matryoshka": {"architecture": "matryoshka"},
    "relu": {"architecture": "relu", "l1_coeff": 1e-3},
    "relu, unit decoder": {"architecture": "relu", "decoder": "unit", "target_l0": 5.0},
    "resampled": {"architecture": "relu", "l1_coeff": 3e-2, "resample": (0.5,)},
    "jumprelu": {"architecture": "jumprelu", "l0_coeff": 1e-3},
    "jumprelu, gdm": {
        "architecture": "jumprelu",
        "jumprelu_recipe": "gdm",
        "l0_coeff": 0.1,
        "threshold_reach": 100.0,
        "resample": (0.6,),
    },
    "gated": {"architecture": "gated", "l1_coeff": 3e-2, "resample": (0.7,)},
}


def target(recipe: str) -> Target:
    settings = Settings(**{"lr": 1e-2, "k": K, "dead_after": 3 * B, "seed": 3, **RECIPES[recipe]})
    architecture = settings.architecture
    k, prefixes = K if architecture in OF_K else None, (5, 20, F) if architecture == "matryoshka" else None
    config = SaeConfig(architecture=architecture, d_model=D, d_sae=F, k=k, prefixes=prefixes)
    return Target("sae", 0, config, settings)


def rows(seed: int) -> torch.Tensor:
    """Rows in a few directions, so that most features fall silent."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(B, 3, generator=generator, dtype=torch.float64)
    spread = torch.randn(3, D, generator=torch.Generator().manual_seed(77), dtype=torch.float64)
    return hidden @ spread + 0.1 * torch.randn(B, D, generator=generator, dtype=torch.float64) + 0.3


@pytest.fixture(autouse=True)
def _one_thread_a_rank() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class OneBlock:
    rows = 10 * B


TRAIN: Any = [OneBlock()]


def begin(recipe: str, ranks: Ranks, dtype: torch.dtype = torch.float64) -> Learner:
    """Start as a training does, then go on in `dtype`."""
    rows_SD = rows(99).float() if ranks.first else None
    start = fresh_start(target(recipe), Sample(Normaliser(torch.zeros(D), 1.0), rows_SD), TRAIN, ranks, STEPS)
    return in_dtype(start.learner, target(recipe), ranks, dtype)


def in_dtype(made: Learner, wanted: Target, ranks: Ranks, dtype: torch.dtype) -> Learner:
    weights = made.weights.each(lambda tensor: tensor.to(dtype))
    learner = make_learner(wanted.config, wanted.settings, weights, TRAIN, ranks, STEPS)
    learner._dtype = dtype
    return learner


def train(learner: Learner, ranks: Ranks, first: int, last: int) -> list[Any]:
    data, results = ranks.data, []
    for i in range(first, last):
        x_BD = rows(i).to(learner.weights.b_dec_D.dtype)
        share = x_BD[data.rank :: data.world] if i != 3 else (x_BD if data.first else x_BD[:0])
        results.append(learner.step(share, B))
    return results


def whole(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in (learner.whole_tensors() or {}).items()}


def assert_equal(mine: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(mine[name], tensor, rtol=0, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_layout_trains_the_same(recipe: str) -> None:
    def work(ranks: Ranks) -> tuple[list[Any], dict[str, torch.Tensor], list[float]]:
        learner = begin(recipe, ranks)
        learner.begin_epoch()
        results = train(learner, ranks, 0, STEPS)
        batches = [rows(i).float()[ranks.data.rank :: ranks.data.world].double() for i in range(100, 104)]
        learner.find_threshold(batches)
        evaluation = learner.no_evaluation()
        for x_BD in batches:
            evaluation += learner.evaluate(x_BD)
        evaluation = learner.over_ranks(evaluation)
        assert evaluation.sums.active_F.shape == (F,)
        sums = evaluation.sums
        numbers = [learner.validation_loss(evaluation), sums.l0(), sums.fvu(), sums.dead_share(), learner.dead_share()]
        return results, whole(learner), [*numbers, learner.threshold or 0.0]

    (expected,) = run_ranks(1, work)
    results, tensors, numbers = expected
    settings = target(recipe).settings
    if settings.architecture in OF_K:
        assert max(result.dead for result in results) > 4, "too few dead features for AuxK to choose among"
    for share in settings.resample:
        assert results[round(share * STEPS) - 1].dead > 0, "nothing to resample"
    for layout, (world, shards) in LAYOUTS.items():
        for rank, (mine, held, found) in enumerate(run_ranks(world, work, shards)):
            for one, wanted in zip(mine, results, strict=True):
                for field in ("loss", "mse", "l0", "lr", "l1_coeff", "gradient_norm", "dead"):
                    assert getattr(one, field) == pytest.approx(getattr(wanted, field), rel=1e-9), (layout, field)
            assert found == pytest.approx(numbers, rel=1e-6), layout
            if rank == 0:
                assert_equal(held, tensors)
            else:
                assert held == {}


def test_all_ranks_keep_the_same_bits_of_what_they_share() -> None:
    def work(ranks: Ranks) -> tuple[int, dict[str, torch.Tensor], list[Any]]:
        learner = begin("matryoshka", ranks, torch.float32)
        results = train(learner, ranks, 0, 20)
        return ranks.features.rank, learner.tensors(), results

    done = run_ranks(4, work, 2)
    for place, tensors, results in done[1:]:
        assert results == done[0][2]
        for name, tensor in tensors.items():
            if name.endswith("b_dec"):
                assert torch.equal(tensor, done[0][1][name])
            else:
                assert torch.equal(tensor, done[place][1][name])


@pytest.mark.parametrize(("world", "shards"), list(LAYOUTS.values()))
@pytest.mark.parametrize("recipe", ["topk", "matryoshka", "jumprelu", "gated"])
def test_a_checkpoint_goes_on_at_any_layout(recipe: str, world: int, shards: int, tmp_path: Path) -> None:
    """Written by 2 x 2 ranks after 20 steps; another layout's file would hold the same."""
    store, middle = open_store(str(tmp_path)), 20
    normaliser = Normaliser(torch.zeros(D), 1.0)

    def write(ranks: Ranks) -> dict[str, torch.Tensor]:
        learner = begin(recipe, ranks)
        train(learner, ranks, 0, middle)
        checkpoints = Checkpoints(store, "sae")
        snapshot = checkpoints.take(learner, normaliser, Progress(), {})
        if snapshot is not None:
            checkpoints.write(snapshot)
        train(learner, ranks, middle, STEPS)
        return whole(learner)

    straight = run_ranks(4, write, 2)[0]

    def go_on(ranks: Ranks) -> dict[str, torch.Tensor]:
        resumed = Checkpoints(store, "sae").newest()
        assert resumed is not None
        wanted = target(recipe)
        made = make_learner(wanted.config, wanted.settings, shard_weights(wanted.config, ranks), TRAIN, ranks, STEPS)
        learner = in_dtype(made, wanted, ranks, torch.float64)
        learner.restore(resumed.tensors, resumed.numbers)
        train(learner, ranks, middle, STEPS)
        return whole(learner)

    resumed = run_ranks(world, go_on, shards)[0]
    assert_equal(resumed, straight)
    if (world, shards) == (4, 2):
        for name, tensor in straight.items():
            assert torch.equal(resumed[name], tensor), name


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recipe", ["topk", "batchtopk", "relu"])
def test_in_float32_layouts_have_the_same_curve(recipe: str, products: torch.dtype) -> None:
    """In bfloat16 a last bit decides which entries stay, in batches of 24 rows: there it is the curve of ten steps."""

    def work(ranks: Ranks) -> list[float]:
        learner = begin(recipe, ranks, torch.float32)
        learner._dtype = products
        losses = [result.loss for result in train(learner, ranks, 0, STEPS)]
        together = 1 if products == torch.float32 else 10
        return [sum(losses[i : i + together]) / together for i in range(0, STEPS, together)]

    (expected,) = run_ranks(1, work)
    for world, shards in LAYOUTS.values():
        for losses in run_ranks(world, work, shards):
            assert losses == pytest.approx(expected, rel=0.01 if products == torch.float32 else 0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_of_equal_values_the_lower_features_of_all_shards_win(dtype: torch.dtype) -> None:
    """Few values, so that most rows have ties at the k-th place, which lie on several shards."""
    generator = torch.Generator().manual_seed(1)
    z_BF = torch.randint(-1, 3, (200, F), generator=generator).to(dtype)
    for k in (1, 3, 10, F):
        expected = torch.zeros(200, F, dtype=torch.bool).scatter_(1, top_k(z_BF, k)[1].long(), value=True)

        def work(ranks: Ranks, k: int = k) -> torch.Tensor:
            mine_BF = ranks.shard.own(z_BF.T).T
            candidates_BC = top_k(mine_BF, min(k, mine_BF.shape[1]))[1].long().sort(dim=1).values
            kept_BC = ranks.shard.among_largest(mine_BF.gather(1, candidates_BC), k)
            return torch.zeros(mine_BF.shape, dtype=torch.bool).scatter_(1, candidates_BC, kept_BC)

        for world in (2, 4):
            kept = torch.cat(run_ranks(world, work, world), dim=1)
            positive = z_BF > 0
            assert torch.equal(kept & positive, expected & positive)


def test_equal_features_on_several_shards_train_as_on_one() -> None:
    """Encoders are copies of each other: every row ties at the k-th place, on all shards.

    Products of eighths are exact, so that ties are ties however a machine's BLAS adds them up.
    """

    def work(ranks: Ranks) -> dict[str, torch.Tensor]:
        learner, data = begin("topk", ranks), ranks.data
        learner.weights.W_enc_FD[:] = eighths(rows(5)[:1])
        learner.weights.b_dec_D[:] = 0
        learner.step(eighths(rows(0))[data.rank :: data.world], B)
        return whole(learner)

    def eighths(x: torch.Tensor) -> torch.Tensor:
        return (8 * x).round() / 8

    (expected,) = run_ranks(1, work)
    assert int((expected["last_fired"] > 0).sum()) >= K
    for world, shards in LAYOUTS.values():
        assert_equal(run_ranks(world, work, shards)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("recipe", ["topk", "batchtopk", "matryoshka", "relu", "jumprelu", "gated"])
def test_a_shard_may_have_no_active_feature_or_no_dead_one(recipe: str, dtype: torch.dtype) -> None:
    """The upper half is silent: of two shards one has nothing to decode, and soon the other nothing to revive."""

    def work(ranks: Ranks) -> tuple[list[float], dict[str, torch.Tensor]]:
        learner = begin(recipe, ranks, dtype)
        weights = learner.weights
        weights.W_enc_FD[:] = ranks.shard.own(torch.eye(D, dtype=dtype).repeat(F // D, 1))
        silent_F = ranks.shard.own(torch.arange(F)) >= F // 2
        for bias_F in (weights.b_enc_F, weights.b_gate_F):
            if bias_F is not None:
                bias_F[silent_F] = -50.0
        return [one.loss for one in train(learner, ranks, 0, 8)], whole(learner)

    ((losses, expected),) = run_ranks(1, work)
    assert not expected["last_fired"][F // 2 :].any()
    for world, shards in LAYOUTS.values():
        (mine, tensors), *_ = run_ranks(world, work, shards)
        assert mine == pytest.approx(losses, rel=1e-4 if dtype == torch.float32 else 1e-9)
        if dtype == torch.float64:
            assert_equal(tensors, expected)


def test_a_large_gradient_is_cut_by_the_norm_of_all_shards() -> None:
    def work(ranks: Ranks) -> tuple[float, dict[str, torch.Tensor]]:
        learner = begin("relu", ranks)
        learner.weights.b_dec_D[:] = 100.0
        return train(learner, ranks, 0, 2)[-1].gradient_norm, whole(learner)

    ((norm, expected),) = run_ranks(1, work)
    assert 1 < norm < math.inf
    for world, shards in LAYOUTS.values():
        (mine, tensors), *_ = run_ranks(world, work, shards)
        assert mine == pytest.approx(norm, rel=1e-12)
        assert_equal(tensors, expected)


def test_shards_that_do_not_fit_the_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ConfigError, match=r"--feature-shards is 2, but there are 1 ranks\. Start a multiple of 2"),
        join_ranks("cpu", 2),
    ):
        pytest.fail("one rank cannot share")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="there are 3 ranks"), join_ranks("cpu", 2):
        pytest.fail("three ranks are no table of two columns")


def test_a_signal_to_one_rank_ends_validation_on_all_that_share_its_rows() -> None:
    """They encode rows together: one that stopped by itself would leave the other waiting for it."""

    class FiveBlocks:
        def blocks(self, refs: list[int]) -> Iterator[torch.Tensor]:
            yield from (torch.zeros(4, D) for _ in refs)

    def work(ranks: Ranks) -> int:
        stop = Stop()
        mine: Any = {"reader": None, "source": FiveBlocks(), "validation": range(10), "epoch_batches": []}
        going = Pass(ranks=ranks, trainees=[], console=Console(silent), stop=stop, **mine)
        seen = 0
        with contextlib.suppress(Interrupted):
            for _ in going._validation_rows(0, "validation"):
                seen += 1
                ranks.features.sum(torch.ones(()))
                if ranks.rank == 1 and seen == 2:
                    stop.signal = "SIGTERM"
            pytest.fail("a rank went on")
        return seen

    assert run_ranks(4, work, 2) == [2, 2, 5, 5]
