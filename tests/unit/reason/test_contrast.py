"""Contrasts from sparse means against what scipy, scikit-learn and the formulas give for the dense table."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from kubesae.features import CodesBuilder
from kubesae.reason.contrast import benjamini_hochberg, contrast
from kubesae.reason.means import Means, means_of
from kubesae.reason.score import WORDS, reason_score, word_rows

FEATURES = 12


def sparse(table_SF, tokens=10):
    """Return a dense table as Means."""
    feature_N, text_N = np.nonzero(table_SF.T)
    tokens_S = np.full(len(table_SF), tokens)
    return Means(table_SF.shape[1], tokens_S, text_N, feature_N, table_SF[text_N, feature_N], np.ones_like(text_N))


@pytest.fixture(params=range(4))
def tables(request):
    """Two tables with many zeros and ties; a feature that is never active, one that is always the same."""
    generator = np.random.default_rng(request.param)
    sizes = [(7, 9), (30, 11), (2, 2), (5, 40)][request.param]
    a, b = (generator.integers(-3, 4, (size, FEATURES)).clip(0).astype(float) for size in sizes)
    for table in (a, b):
        table[:, 3] = 0
        table[:, 4] = 2
        table[:, 5] *= generator.random(len(table))
    a[:, 6] = 5
    b[:, 6] = 0
    return a, b


def test_effect_sizes_are_those_of_the_dense_table(tables):
    a, b = tables
    found = contrast(sparse(a), sparse(b))
    pooled = np.sqrt(((len(a) - 1) * a.var(0, ddof=1) + (len(b) - 1) * b.var(0, ddof=1)) / (len(a) + len(b) - 2))
    for feature in range(FEATURES):
        above = (a[:, None, feature] > b[None, :, feature]).mean()
        ties = (a[:, None, feature] == b[None, :, feature]).mean()
        assert found.auc_F[feature] == pytest.approx(above + ties / 2, abs=1e-12)
        difference = a[:, feature].mean() - b[:, feature].mean()
        expected = 0 if difference == 0 else difference / pooled[feature] if pooled[feature] else np.inf
        assert found.d_F[feature] == pytest.approx(expected, rel=1e-9)
    assert found.d_F[3] == found.d_F[4] == 0
    assert found.auc_F[6] == 1
    np.testing.assert_allclose(found.mean_a_F, a.mean(0))


def test_auc_is_scikit_learn_s(tables):
    a, b = tables
    found, of_a = contrast(sparse(a), sparse(b)), np.arange(len(a) + len(b)) < len(a)
    for feature in range(FEATURES):
        values = np.concatenate([a[:, feature], b[:, feature]])
        assert found.auc_F[feature] == pytest.approx(roc_auc_score(of_a, values), abs=1e-12)


def test_p_is_scipy_s_with_ties(tables):
    a, b = tables
    found = contrast(sparse(a), sparse(b))
    for feature in range(FEATURES):
        both = np.concatenate([a[:, feature], b[:, feature]])
        if len(np.unique(both)) > 1:
            test = stats.mannwhitneyu(a[:, feature], b[:, feature], method="asymptotic", use_continuity=True)
            assert found.p_F[feature] == pytest.approx(test.pvalue, rel=1e-9)
            assert found.auc_F[feature] == pytest.approx(test.statistic / (len(a) * len(b)), abs=1e-12)
        else:  # nothing to tell apart; scipy divides by zero
            assert found.p_F[feature] == 1
    assert found.p_F[3] == found.adjusted_F[3] == 1
    active = (a > 0).any(0) | (b > 0).any(0)
    np.testing.assert_allclose(found.adjusted_F[active], stats.false_discovery_control(found.p_F[active]), rtol=1e-12)


def test_benjamini_and_hochberg():
    """Their own example (1995, section 3.1) rejects four at 0.05."""
    p = np.array([0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719])
    p = np.concatenate([p, [0.6528, 0.759, 1.0]])
    adjusted = benjamini_hochberg(p)
    np.testing.assert_allclose(adjusted, stats.false_discovery_control(p), rtol=1e-12)
    assert (adjusted <= 0.05).sum() == 4
    assert adjusted[3] == pytest.approx(0.0095 * 15 / 4)
    assert (np.diff(adjusted) >= 0).all()
    shuffled = np.random.default_rng(0).permutation(len(p))
    np.testing.assert_array_equal(benjamini_hochberg(p[shuffled]), adjusted[shuffled])
    assert len(benjamini_hochberg(np.zeros(0))) == 0


def codes_of(table_RF, kept_R, edges):
    """Return dense codes as files of a cache, cut at `edges`."""
    for begin, end in pairwise(edges):
        builder = CodesBuilder(begin, end - begin, table_RF.shape[1])
        row_N, feature_N = np.nonzero(table_RF[begin:end] * kept_R[begin:end, None])
        value_N = table_RF[begin + row_N, feature_N].astype(np.float32)
        builder.add(begin + np.flatnonzero(kept_R[begin:end]), begin + row_N, feature_N, value_N)
        yield builder.finish()


@pytest.fixture
def rows():
    generator = np.random.default_rng(1)
    table_RF = np.where(generator.random((60, FEATURES)) < 0.3, generator.random((60, FEATURES)), 0).astype(np.float32)
    return table_RF, generator.random(60) < 0.9


def test_means_of_texts_are_those_of_the_dense_rows(rows):
    table_RF, kept_R = rows
    begin, end = np.array([0, 12, 30, 45]), np.array([10, 29, 40, 45])
    found = means_of(codes_of(table_RF, kept_R, [0, 30, 60]), begin, end, FEATURES)
    dense = np.zeros((4, FEATURES))
    dense[found.text_N, found.feature_N] = found.mean_N
    for text in range(3):
        mine = table_RF[begin[text] : end[text]][kept_R[begin[text] : end[text]]]
        assert found.tokens_S[text] == len(mine)
        np.testing.assert_allclose(dense[text], mine.mean(0), rtol=1e-6)
    assert found.tokens_S[3] == 0
    some = found.where(np.array([False, True, True, False]))
    assert some.texts == 2
    assert some.active_F.sum() == sum(
        (table_RF[b:e][kept_R[b:e]] > 0).sum() for b, e in zip(begin[1:3], end[1:3], strict=True)
    )


def test_reason_score_is_the_dense_formula(rows):
    table_RF, kept_R = rows
    generator = np.random.default_rng(2)
    words_WR = generator.random((3, 60)) < 0.2
    found = reason_score(codes_of(table_RF, kept_R, [0, 25, 60]), words_WR, FEATURES, alpha=0.7)
    x, words = table_RF[kept_R].astype(float), words_WR[:, kept_R]
    mean_WF = np.stack([x[word].mean(0) for word in words])
    p = mean_WF / mean_WF.sum(0)
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(0) / np.log(3)
    inside, outside = x[words.any(0)].mean(0), x[~words.any(0)].mean(0)
    expected = inside / inside.sum() * entropy**0.7 - outside / outside.sum()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_without_a_reasoning_word_there_is_no_score(rows):
    table_RF, kept_R = rows
    assert reason_score(codes_of(table_RF, kept_R, [0, 60]), np.zeros((2, 60), bool), FEATURES) is None


def test_words_are_found_with_their_surroundings():
    def encode(text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint32)

    found = word_rows([encode("no wait for me"), encode("a hmm")], encode)
    names = [ways[0] for ways in WORDS]
    assert "".join("x" if mine else "." for mine in found[names.index("wait")]) == ".xxxxxxxx" + "." * 10
    # the way with a space before it begins a token earlier, and one before that is in the window
    assert "".join("x" if mine else "." for mine in found[names.index("hmm")]) == "." * 14 + "xxxxx"
