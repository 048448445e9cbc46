"""Splicing into a tiny real model: SAEs whose effect on the loss is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from kubesae.errors import ConfigError
from kubesae.evaluate import splice
from kubesae.evaluate.splice import Context, measure
from kubesae.experiment import Experiment
from kubesae.model import resolve_model, whole
from kubesae.model.truncate import find_layers
from kubesae.model.whole import load_language_model
from kubesae.sae import Sae, SaeConfig, Weights
from tiny_models import LAYERS, save_model

D_MODEL = 32
LAYER = 1


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return source_of(tmp_path_factory.mktemp("model"), "llama")


def source_of(folder, architecture):
    save_model(folder, architecture, dtype=torch.float32)
    corpora = [{"name": "none", "source": "none"}]
    return resolve_model(Experiment(data="none", model=str(folder), layers=(LAYER,), corpora=corpora, context=64))


@pytest.fixture(scope="module")
def model(source):
    return load_language_model(source, "float32", "Give it more.")


@pytest.fixture(scope="module")
def contexts():
    generator = np.random.default_rng(0)
    flags = np.zeros(64, np.uint8)
    flags[[0, 7]] = 1
    return [Context(generator.integers(2, 256, 64).astype(np.uint32), flags) for _ in range(3)]


def identity_sae() -> Sae:
    """Features +x and -x of every dimension: the reconstruction is x itself."""
    both = torch.cat([torch.eye(D_MODEL), -torch.eye(D_MODEL)])
    weights = Weights(both, torch.zeros(2 * D_MODEL), both, torch.zeros(D_MODEL))
    return Sae(SaeConfig(architecture="relu", d_model=D_MODEL, d_sae=2 * D_MODEL, k=None), weights)


def constant_sae(value_D: torch.Tensor) -> Sae:
    """No feature is ever active: the reconstruction is always `value_D`."""
    weights = Weights(torch.zeros(4, D_MODEL), -torch.ones(4), torch.zeros(4, D_MODEL), value_D)
    return Sae(SaeConfig(architecture="relu", d_model=D_MODEL, d_sae=4, k=None), weights)


def run(model, contexts, sae, mean_D=None):
    module = find_layers(model, LAYERS)[LAYER]
    return measure(model, module, contexts, sae, torch.full((D_MODEL,), 0.3) if mean_D is None else mean_D)


def test_a_perfect_sae_recovers_everything(model, contexts):
    found = run(model, contexts, identity_sae())
    assert (found.contexts, found.predictions) == (3, 3 * 63)
    assert found.spliced == pytest.approx(found.clean, rel=1e-5)
    assert 0 <= found.kl_spliced < 1e-6 < found.kl_zero_ablated
    assert found.kl_recovered_zero == pytest.approx(1, abs=1e-3)
    assert found.clean != pytest.approx(found.zero_ablated, rel=1e-3)


def test_an_sae_that_gives_a_constant_does_what_the_ablation_does(model, contexts):
    mean_D = torch.linspace(-1, 1, D_MODEL)
    assert (
        run(model, contexts, constant_sae(mean_D), mean_D).spliced
        == run(model, contexts, constant_sae(mean_D), mean_D).mean_ablated
    )
    zero = run(model, contexts, constant_sae(torch.zeros(D_MODEL)))
    assert zero.spliced == zero.zero_ablated


def test_the_clean_loss_is_the_model_s_own(model, contexts):
    ids = torch.from_numpy(np.stack([context.ids_T for context in contexts]).astype(np.int64))
    with torch.inference_mode():
        expected = float(model(input_ids=ids, labels=ids).loss)
    assert run(model, contexts, identity_sae()).clean == pytest.approx(expected, rel=1e-5)


def test_the_divergence_is_torch_s_own(model, contexts):
    """Against torch.distributions, over logits from a hook of the test's own."""
    mean_D = torch.linspace(-1, 1, D_MODEL)
    found = run(model, contexts, constant_sae(mean_D / 2), mean_D)
    module = find_layers(model, LAYERS)[LAYER]
    expected = {"kl_spliced": mean_D / 2, "kl_zero_ablated": torch.zeros(D_MODEL), "kl_mean_ablated": mean_D}
    for name, value_D in expected.items():
        total = 0.0
        for context in contexts:
            ids = torch.from_numpy(context.ids_T.astype(np.int64))[None]
            unflagged = torch.from_numpy(context.flags_T == 0)[None, :, None]
            replaced = lambda _, __, out: torch.where(unflagged, value_D, out[0] if isinstance(out, tuple) else out)  # noqa: B023, E731
            with torch.inference_mode():
                clean = Categorical(logits=model(input_ids=ids).logits[0, :-1].double())
                handle = module.register_forward_hook(replaced)
                other = Categorical(logits=model(input_ids=ids).logits[0, :-1].double())
                handle.remove()
            total += float(kl_divergence(clean, other).sum())
        assert getattr(found, name) == pytest.approx(total / found.predictions, rel=1e-4)
    assert found.kl_spliced > 0
    assert found.kl_recovered_zero == pytest.approx(1 - found.kl_spliced / found.kl_zero_ablated)
    assert found.kl_recovered_mean == pytest.approx(1 - found.kl_spliced / found.kl_mean_ablated)


def test_a_divergence_in_pieces_is_that_of_the_whole():
    p, q = torch.randn(2, 600, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(2)
    expected = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(splice.divergence(p, q), expected)
    assert (splice.divergence(p, p) == 0).all()
    context = Context(np.arange(601, dtype=np.uint32) % 11, np.zeros(601, np.uint8))
    loss, divergence = splice._losses(context, p, q)
    targets = torch.from_numpy(context.ids_T[1:].astype(np.int64))
    assert float(loss) == pytest.approx(float(torch.nn.functional.nll_loss(q, targets, reduction="sum")), rel=1e-6)
    assert float(divergence) == pytest.approx(float(expected.sum()), rel=1e-6)


def test_a_token_that_is_ruled_out_counts_for_nothing():
    p = torch.tensor([[0.0, -torch.inf]])
    assert splice.divergence(p, torch.tensor([[0.5, 0.5]]).log()).item() == pytest.approx(np.log(2))
    assert splice.divergence(p, p).item() == 0


def test_flagged_positions_keep_their_activations(model, contexts):
    kept = [Context(context.ids_T, np.ones_like(context.flags_T)) for context in contexts]
    found = run(model, kept, constant_sae(torch.zeros(D_MODEL)))
    assert found.clean == found.spliced == found.zero_ablated == found.mean_ablated
    assert found.recovered_zero is None
    assert found.recovered_mean is None
    assert found.kl_spliced == found.kl_zero_ablated == found.kl_mean_ablated == 0
    assert found.kl_recovered_zero is None


def test_the_model_is_left_as_it_was(model, contexts):
    run(model, contexts, identity_sae())
    assert not find_layers(model, LAYERS)[LAYER]._forward_hooks


@pytest.mark.parametrize(
    ("zero", "spliced", "expected"), [(5.0, 2.0, 0.75), (5.0, 5.0, 0.0), (5.0, 6.0, -0.25), (1.0, 1.0, None)]
)
def test_recovered_is_the_share_of_the_damage_avoided(zero, spliced, expected):
    assert splice._recovered({"clean": 1.0, "spliced": spliced, "zero_ablated": zero}, "zero_ablated") == expected


def test_an_encoder_has_no_next_token_loss(tmp_path):
    with pytest.raises(ConfigError, match="predicts no next token: it is a BertModel"):
        load_language_model(source_of(tmp_path, "bert"), "float32", "Give it more.")


def test_a_model_that_does_not_fit_is_not_loaded(source, monkeypatch):
    monkeypatch.setattr(whole, "_memory", lambda: 1000)
    with pytest.raises(ConfigError, match=r"takes 0\.0 GB in float32; here are 0\.0 GB"):
        load_language_model(source, "float32", "Give it more.")
