"""Planted features: those of a token or a bigram are refuted by injection, those of a distant context are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kubesae.corpus.manifest import TokenizerInfo
from kubesae.errors import ConfigError
from kubesae.reason.inject import classify, effect, favourites, inject, run_injection
from kubesae.reason.paraphrase import other_numbers, other_order, other_words, rewritings, run_paraphrases
from kubesae.reason.problems import Problem, Prompts, read_problems
from kubesae.reason.reader import Reader
from kubesae.reason.report import refutations, wilson
from kubesae.sae import Sae, SaeConfig, Weights

D_MODEL = 64
TOKEN, BIGRAM, CONTEXT, BASE = 0, 1, 2, 3
WAIT, SO, THEN = 20, 21, 22


class Planted:
    """A forward pass whose output at a token holds what is planted; every token also has a direction of its own.

    Direction TOKEN: the token is WAIT. BIGRAM: it is THEN, after SO. CONTEXT: it is WAIT, and a token above 50 stands
    five places or more before it, which ordinary texts never hold.
    """

    def run(self, batches):
        for number, batch in enumerate(batches):
            ids = batch.ids_BT.astype(int)
            x = np.zeros((*ids.shape, D_MODEL), np.float32)
            x[..., BASE] = 1
            x[..., TOKEN] = ids == WAIT
            x[:, 1:, BIGRAM] = (ids[:, 1:] == THEN) & (ids[:, :-1] == SO)
            seen = np.maximum.accumulate(ids > 50, axis=1)
            x[:, 5:, CONTEXT] = (ids[:, 5:] == WAIT) & seen[:, :-5]
            yield number, 0, torch.from_numpy(x * 10)


@pytest.fixture(scope="module")
def reader():
    eye = torch.eye(D_MODEL)
    sae = Sae(
        SaeConfig(architecture="relu", d_model=D_MODEL, d_sae=D_MODEL, k=None),
        Weights(eye, torch.full((D_MODEL,), -0.5), eye.clone(), torch.zeros(D_MODEL)),
    )
    return Reader(Planted(), sae, np.array([1], np.uint32))


@pytest.fixture(scope="module")
def traces():
    """Texts of reasoning: a word above 50 early, then WAIT and SO THEN among others."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(20):
        ids = generator.integers(2, 20, 40)
        ids[2] = 60
        ids[[10, 20, 30]] = WAIT
        ids[[14, 24]], ids[[15, 25]] = SO, THEN
        found.append(ids.astype(np.uint32))
    return found


@pytest.fixture(scope="module")
def ordinary():
    generator = np.random.default_rng(1)
    return [generator.integers(2, 20, 32).astype(np.uint32) for _ in range(24)]


@pytest.fixture(scope="module")
def injected(reader, traces, ordinary):
    found = reader.read(traces)
    first = np.cumsum([0, *(len(ids) for ids in traces)])
    entries, largest = {}, {}
    for feature in (TOKEN, BIGRAM, CONTEXT):
        mine = [(one.token_N[one.feature_N == feature], one.value_N[one.feature_N == feature]) for one in found]
        rows = np.concatenate([start + rows for start, (rows, _) in zip(first, mine, strict=False)])
        entries[feature] = rows, np.concatenate([values for _, values in mine])
        largest[feature] = np.array([values.max() for _, values in mine], float)
    tokens = np.concatenate(traces)
    begins = np.isin(np.arange(len(tokens)), first)
    chosen = favourites(entries, tokens, begins, np.ones(len(tokens), bool))
    assert chosen[TOKEN].tokens == chosen[CONTEXT].tokens == (WAIT,)
    assert chosen[BIGRAM].bigrams == ((SO, THEN),)
    return run_injection(reader, ordinary, largest, chosen, seed=0)


def test_a_token_s_feature_is_refuted(injected):
    assert injected[TOKEN].verdict == "token-driven"
    assert injected[TOKEN].before == 0
    assert injected[TOKEN].after == pytest.approx(injected[TOKEN].reasoning) == pytest.approx(9.5)


def test_a_bigram_s_feature_is_refuted_by_bigrams_alone(injected):
    assert injected[BIGRAM].verdict == "token-driven"
    assert injected[BIGRAM].way == "bigrams"


def test_a_context_s_feature_is_not(injected):
    assert injected[CONTEXT].verdict == "context-driven"
    assert injected[CONTEXT].d == 0
    assert injected[CONTEXT].after == injected[CONTEXT].before == 0
    assert injected[CONTEXT].reasoning == pytest.approx(9.5)


def test_only_what_passes_everything_has_survived(injected):
    good = {"p_adjusted": 0.01, "d": 1.2, "towards": 1.0, "injection": injected[CONTEXT].verdict, "stability": 0.9}
    assert refutations(**good) == []
    for change, said in [
        ({"p_adjusted": 0.06}, "adjusted p 0.06"),
        ({"d": 0.4}, "held-out d 0.40"),
        ({"towards": -1.0}, "held-out d 1.20"),
        ({"injection": injected[TOKEN].verdict}, "token-driven"),
        ({"injection": "undecided"}, "injection undecided"),
        ({"injection": None}, "injection not tested"),
        ({"stability": 0.6}, "stays in 60%"),
        ({"stability": None}, "paraphrases not tested"),
        ({"p_adjusted": float("nan")}, "adjusted p"),
    ]:
        (reason,) = refutations(**good | change)
        assert reason.startswith(said)


def test_tokens_are_put_in_after_the_first_and_nothing_is_lost():
    text = np.arange(100, 110, dtype=np.uint32)
    for seed in range(20):
        found = inject(text, [(1,), (2, 3)], np.random.default_rng(seed)).tolist()
        assert found[0] == 100
        assert [token for token in found if token >= 100] == text.tolist()
        assert sorted(token for token in found if token < 100) == [1, 2, 3]


@pytest.mark.parametrize(
    ("d", "p", "verdict"),
    [
        (0.8, 0.009, "token-driven"),
        (0.8, 0.02, "weakly token-driven"),
        (0.79, 0.009, "partially token-driven"),
        (0.49, 0.009, "weakly token-driven"),
        (3.0, 0.05, "undecided"),
        (0.19, 1e-9, "context-driven"),
        (-2.0, 1e-9, "context-driven"),
        (float("inf"), 1e-9, "token-driven"),
    ],
)
def test_classes(d, p, verdict):
    assert classify(d, p) == verdict


def test_the_effect_is_cohen_s_d_of_populations():
    a, b = np.array([0.0, 2, 4, 4]), np.array([0.0, 0, 1, 0])
    assert effect(a, b)[0] == pytest.approx((a.mean() - b.mean()) / np.sqrt((a.var() + b.var()) / 2))
    assert effect(b, b) == (0, 1)


PROBLEM = Problem("1", "Ada has 27 apples. Each bag holds 8. How many apples are left?", "27 + 8 = 35", "35")


def test_rewritings_are_these():
    assert other_words(PROBLEM.text) == "Ada owns 27 apples. Every bag holds 8. What number of apples are remaining?"
    assert other_numbers(PROBLEM.text, PROBLEM.solution) == (
        "Ada has 30 apples. Each bag holds 11. How many apples are left?",
        "30 + 11 = 35",
    )
    assert other_order(PROBLEM.text) == "Each bag holds 8. Ada has 27 apples. How many apples are left?"
    assert other_order("One. Two?") == "One. Two?"
    ways = [one.way for one in rewritings(PROBLEM, "")]
    assert ways == ["words", "numbers", "order"]
    given = Problem("1", "Why?", "", None, paraphrases=("For what reason?",))
    assert [one.problem for one in rewritings(given, "")] == ["For what reason?"]


class Letters:
    """Prompts of one token a character, modulo the planted alphabet."""

    def ids(self, text, _where):
        return self.encode(text)

    def encode(self, text):
        return np.array([2 + ord(c) % 90 for c in text], np.uint32)


def test_a_feature_of_the_very_words_does_not_stay(reader):
    """A trace with a character that is WAIT: rewriting words leaves it out, so TOKEN stays only where it is left."""
    wait = next(chr(c) for c in range(32, 127) if 2 + c % 90 == WAIT)
    other = next(chr(c) for c in range(97, 122) if 2 + c % 90 < WAIT)
    problem = Problem("1", "Each has 5. It is so. How many?", "", None)
    assert wait not in problem.text
    stays = run_paraphrases(reader, Letters(), [(problem, f"{other}{wait}{other}")], [TOKEN, BIGRAM])
    assert (stays[TOKEN].pairs, stays[TOKEN].stayed, stays[TOKEN].share) == (3, 3, 1.0)
    assert stays[BIGRAM].share is None
    assert 2 + ord("l") % 90 == WAIT
    gone = run_paraphrases(reader, Letters(), [(problem, "left")], [TOKEN])[TOKEN]  # in other words, "remaining"
    assert gone.by_way == {"words": (1, 0), "numbers": (1, 1), "order": (1, 1)}
    assert gone.share == pytest.approx(2 / 3)


def test_wilson():
    """Wilson's interval of 0 of 10 and of 5 of 10, as tables have it."""
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 0) is None


def test_a_line_ends_at_a_line_feed_alone(tmp_path):
    path = tmp_path / "problems.jsonl"
    row = {"question": "a\u2028b\u0085c", "answer": "#### 1"}
    path.write_bytes(json.dumps(row, ensure_ascii=False).encode() + b"\r\n")
    assert [(one.name, one.text) for one in read_problems(path)[0]] == [("1", row["question"])]


class Written:
    """A tokenizer of one token a character, which has no chat template."""

    has_chat_template = False
    info = TokenizerInfo(sha256="ab" * 32, size=128, bos=None, eos=None, special=())

    def text(self, ids_T):
        return "".join(map(chr, ids_T))


@pytest.mark.parametrize(
    ("written", "own"),
    [
        (" 12.\n\nQuestion: Bob has 3.\nAnswer: 7", " 12.\n"),
        (" 12. Question: what?", " 12. Question: what?"),
        ("\nQuestion: Bob?", "\n"),
        (" 12", " 12"),
    ],
)
def test_a_question_that_the_model_goes_on_with_is_not_its_answer(written, own):
    ids_T = np.array([ord(c) for c in written], np.uint32)
    assert Written().text(Prompts(Written(), "").own(ids_T)) == own


def test_problems_of_both_shapes(tmp_path):
    path = tmp_path / "problems.jsonl"
    rows = [
        {"question": "2 + 2?", "answer": "It is 4.\n#### 4", "paraphrases": ["Two and two?"]},
        {"problem": "Half?", "solution": "So \\boxed{\\frac{1}{2}}.", "level": "Level 3", "type": "Algebra", "id": "x"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    (one, other), sha256 = read_problems(path)
    assert (one.name, one.answer, one.paraphrases) == ("1", "4", ("Two and two?",))
    assert (other.name, other.answer, other.level, other.subject) == ("x", "\\frac{1}{2}", "Level 3", "Algebra")
    assert {one.half, other.half} <= {0, 1}
    assert len(sha256) == 64


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is no JSON"),
        ('{"text": "a"}', "has neither `question`"),
        ("[1]", "has neither `question`"),
        ('{"question": 3, "answer": ""}', "have to be text"),
        ('{"question": "a", "answer": "", "paraphrases": "b"}', "have to be text"),
        ("", "holds no problems"),
    ],
)
def test_what_is_no_problem_is_said(tmp_path, line, said):
    path = tmp_path / "problems.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match=said):
        read_problems(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_problems(tmp_path / "none.jsonl")
