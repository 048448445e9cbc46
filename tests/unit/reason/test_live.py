"""A tiny real model, live: batched generation is generation alone, and an edit is exactly what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kubesae.experiment import Experiment
from kubesae.model import resolve_model
from kubesae.model.inputs import Batch
from kubesae.model.whole import load_language_model
from kubesae.reason.edit import KINDS, Edit, Editor
from kubesae.reason.live import LiveModel, Sampling
from kubesae.reason.reader import Reader, entries
from kubesae.sae import Sae, SaeConfig, Weights
from tiny_models import LAYERS, save_model

D_MODEL, FEATURES, LAYER = 32, 48, 2


def live_of(folder, architecture):
    save_model(folder, architecture, dtype=torch.float32)
    corpora = [{"name": "none", "source": "none"}]
    source = resolve_model(Experiment(data="none", model=str(folder), layers=(LAYER,), corpora=corpora, context=64))
    return LiveModel(load_language_model(source, "float32", ""), LAYERS, LAYER)


@pytest.fixture(scope="module", params=["llama", "qwen", "gemma", "gpt2"])
def live(request, tmp_path_factory):
    return live_of(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return live_of(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def sae():
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(FEATURES, D_MODEL, generator=generator))
    bias = torch.full((FEATURES,), -0.5)
    bias[7] = -1e6  # never active
    weights = Weights(directions, bias, directions.clone(), torch.zeros(D_MODEL))
    return Sae(SaeConfig(architecture="relu", d_model=D_MODEL, d_sae=FEATURES, k=None), weights)


@pytest.fixture(scope="module")
def prompts():
    generator = np.random.default_rng(0)
    return [generator.integers(2, 256, length).astype(np.uint32) for length in (5, 1, 17, 9)]


GREEDY = Sampling(most=12, stop=frozenset())


def test_padding_changes_nothing(live, prompts, sae):
    """Answers of a batch, their activations and their features are those of each prompt by itself."""
    together = live.generate(prompts, range(4), GREEDY)
    for number, (prompt, answer) in enumerate(zip(prompts, together, strict=True)):
        (alone,) = live.generate([prompt], [number], GREEDY)
        assert answer.ids_T.tolist() == alone.ids_T.tolist()
        torch.testing.assert_close(answer.x_TD, alone.x_TD, rtol=1e-4, atol=1e-4)
        for mine, other in zip(entries(sae, answer.x_TD)[:2], entries(sae, alone.x_TD)[:2], strict=True):
            np.testing.assert_array_equal(mine, other)


def test_an_activation_is_that_of_one_forward_pass_over_all(live, prompts):
    for prompt, answer in zip(prompts, live.generate(prompts, range(4), GREEDY), strict=True):
        whole = np.concatenate([prompt, answer.ids_T])
        ((_, layer, x_1TD),) = live.run([Batch(whole[None])])
        assert layer == LAYER
        torch.testing.assert_close(answer.x_TD, x_1TD[0, len(prompt) :], rtol=1e-4, atol=1e-4)
        logits = live.logits(whole)
        assert logits[len(prompt) - 1 : -1].argmax(1).tolist() == answer.ids_T.tolist()


def test_an_answer_ends_with_its_stop_token_while_others_go_on(llama, prompts):
    free = llama.generate(prompts, range(4), GREEDY)
    stop = int(free[0].ids_T[3])
    ended = llama.generate(prompts, range(4), Sampling(12, frozenset([stop])))
    for mine, other in zip(free, ended, strict=True):
        ids = mine.ids_T.tolist()
        assert other.ids_T.tolist() == (ids[: ids.index(stop) + 1] if stop in ids else ids)
        assert len(other.x_TD) == len(other.ids_T)


def test_what_is_drawn_belongs_to_the_problem_not_to_the_batch(llama, prompts):
    sampled = Sampling(12, frozenset(), temperature=1.5, seed=3)
    together = [answer.ids_T.tolist() for answer in llama.generate(prompts, range(4), sampled)]
    alone = [llama.generate([prompt], [i], sampled)[0].ids_T.tolist() for i, prompt in enumerate(prompts)]
    assert together == alone
    other = Sampling(12, frozenset(), temperature=1.5, seed=4)
    assert together != [answer.ids_T.tolist() for answer in llama.generate(prompts, range(4), other)]


def test_sequences_read_together_are_those_read_alone(llama, prompts, sae):
    reader = Reader(llama, sae, np.array([0, 1], np.uint32))
    sequences = [*prompts, prompts[0][::-1].copy(), np.zeros(0, np.uint32)]
    together = reader.read(sequences)
    assert len(together[5].token_N) == 0
    for ids, found in zip(sequences[:5], together, strict=False):
        (alone,) = reader.read([ids])
        np.testing.assert_array_equal(found.feature_N, alone.feature_N)
        np.testing.assert_allclose(found.value_N, alone.value_N, rtol=1e-4, atol=1e-4)
        assert found.flags_T[0] & 1


def ids_of(prompts):
    return np.concatenate(prompts)


@pytest.mark.parametrize("edit", [Edit("ablate", 7, 0), Edit("scale", 3, 1.0), Edit("add", 3, 0.0)])
def test_no_edit_leaves_the_very_logits(live, prompts, sae, edit):
    editor = Editor(edit, sae, [])
    assert torch.equal(live.logits(ids_of(prompts), editor), live.logits(ids_of(prompts)))
    x = torch.randn(1, 4, D_MODEL)
    editor.at(torch.full((1, 4), 9), torch.arange(4)[None], torch.ones(1, 4))
    assert editor.edited(x) is x


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_is_x_plus_the_change_times_the_decoder_row(sae, kind):
    feature, value = 3, 2.5
    x = torch.randn(2, 6, D_MODEL, generator=torch.Generator().manual_seed(1)) * 3
    ids = torch.full((2, 6), 9)
    ids[0, 2] = 1  # special
    mask = torch.ones(2, 6)
    mask[1, :2] = 0  # padding
    position = (mask.cumsum(1) - 1).clamp_min(0)
    editor = Editor(Edit(kind, feature, value), sae, [1])
    editor.at(ids, position, mask)
    found, before = editor.edited(x), x.clone()
    a = sae.encode(x)[..., feature]
    after = {"ablate": a * 0, "clamp": a * 0 + value, "scale": a * value, "add": a + value}[kind]
    kept = (position > 0) & (mask > 0) & (ids != 1)
    expected = x + torch.where(kept, after - a, 0.0)[..., None] * sae.weights.W_dec_FD[feature]
    torch.testing.assert_close(found, expected)
    assert torch.equal(x, before)
    assert torch.equal(found[~kept], x[~kept])


def test_a_control_is_as_long_as_the_edit(sae):
    x = torch.randn(1, 6, D_MODEL, generator=torch.Generator().manual_seed(1)) * 3
    lengths = []
    for direction in (None, torch.randn(D_MODEL) * 100, -sae.weights.W_dec_FD[3]):
        editor = Editor(Edit("add", 3, 2.0), sae, [], direction)
        editor.at(torch.full((1, 6), 9), torch.arange(6)[None], torch.ones(1, 6))
        lengths.append(torch.linalg.vector_norm(editor.edited(x) - x, dim=2))
    torch.testing.assert_close(lengths[1], lengths[0])
    torch.testing.assert_close(lengths[2], lengths[0])


def test_an_edit_changes_generation_in_prompt_and_answer(llama, prompts, sae):
    editor = Editor(Edit("add", 3, 50.0), sae, [])
    edited = llama.generate(prompts, range(4), GREEDY, editor)
    plain = llama.generate(prompts, range(4), GREEDY)
    assert [one.ids_T.tolist() for one in edited] != [one.ids_T.tolist() for one in plain]
    for prompt, answer in zip(prompts, edited, strict=True):
        whole = np.concatenate([prompt, answer.ids_T])
        logits = llama.logits(whole, Editor(Edit("add", 3, 50.0), sae, []))
        assert logits[len(prompt) - 1 : -1].argmax(1).tolist() == answer.ids_T.tolist()


def test_losses_are_those_of_the_logits(llama, prompts):
    ids = ids_of(prompts)
    log_p = torch.log_softmax(llama.logits(ids), 1)
    expected = [-float(log_p[at - 1, int(ids[at])]) for at in range(4, len(ids))]
    np.testing.assert_allclose(llama.losses(ids, 4), expected, rtol=1e-5)
