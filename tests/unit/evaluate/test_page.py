"""evaluation.html: whole, without a network, and in words that are true of the numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from kubesae.evaluate import sentences
from kubesae.evaluate.console import report_lines
from kubesae.evaluate.features import density
from kubesae.evaluate.page import page
from kubesae.evaluate.report import CrossEntropy, Evaluation, Pair, RowL0, Shrinkage, Similarity
from kubesae.evaluate.spread import quantiles, unit_interval, whole_numbers
from kubesae.page import histogram, named_bars


class Checker(HTMLParser):
    """Notes tags that stay open, and every URL."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.urls = []

    def handle_starttag(self, tag, attrs):
        self.urls += [value for name, value in attrs if name in {"src", "href", "action", "data"} and value]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def cross_entropy(**changes) -> CrossEntropy:
    values = {
        "contexts": 4, "predictions": 1020, "clean": 2.5, "spliced": 2.75, "zero_ablated": 7.5, "mean_ablated": 5.0,
        "recovered_zero": 0.95, "recovered_mean": 0.9, "kl_spliced": 0.3, "kl_zero_ablated": 6.0,
        "kl_mean_ablated": 3.0, "kl_recovered_zero": 0.95, "kl_recovered_mean": 0.9,
    }  # fmt: skip
    return CrossEntropy.model_validate(values | changes)


def row_l0(counts) -> RowL0:
    return RowL0(quantiles=quantiles(np.arange(float(len(counts))), counts), histogram=whole_numbers(counts))


def report(**changes) -> Evaluation:
    generator = np.random.default_rng(0)
    with_l0 = np.bincount(generator.poisson(40, 5000))
    active_F = (5000 * 10.0 ** generator.uniform(-4, -0.5, 300)).astype(np.int64)
    cosines = generator.beta(5, 9, 300)
    values = {
        "identity": "i", "sae": "<one>", "sae_sha256": "s", "architecture": "relu", "features": 300, "layer": 4,
        "blocks": 9, "rows": 5000, "flagged_share": 0.011, "fvu": 0.2, "fvu_all_rows": 0.1, "fvu_pca32": 0.4,
        "shrinkage": Shrinkage(gamma=0.98, gamma_about_mean=0.9, norm_ratio=0.95, cosine=0.97), "l0": 40.0,
        "l0_rows": row_l0(with_l0),
        "inactive_share": float((active_F == 0).mean()), "dead_share": 0.01, "density": density(active_F, 5000),
        "similarity": Similarity(quantiles=quantiles(cosines), histogram=unit_interval(cosines), alike_share=0.0,
                                 closest=(Pair(feature=1, other=2, cosine=0.8),)),
        "cross_entropy": cross_entropy(), "cross_entropy_reason": None,
    }  # fmt: skip
    return Evaluation(**(values | changes))


CASES = {
    "all": report(),
    "without the model": report(cross_entropy=None, cross_entropy_reason="no <contexts> were asked for"),
    "nothing active": report(density=density(np.zeros(300, np.int64), 5000), similarity=None),
    "undefined": report(
        shrinkage=Shrinkage(gamma=None, gamma_about_mean=None, norm_ratio=None, cosine=None),
        cross_entropy=cross_entropy(
            recovered_zero=None, recovered_mean=None, kl_recovered_zero=None, kl_recovered_mean=None
        ),
    ),
    "topk": report(l0_rows=row_l0(9 * np.eye(40, dtype=np.int64)[32])),
}


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_whole_and_loads_nothing(name):
    text = page(CASES[name])
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert checker.urls == []
    assert "http" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert "<one>" not in text
    assert "&lt;one&gt;: evaluation" in text
    for chart in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ET.fromstring(chart)
        assert "nan" not in chart


def test_every_chart_has_a_sentence_with_numbers():
    found = re.findall(r"<figure>.*?</figure>", page(report()), flags=re.DOTALL)
    figures = [figure for figure in found if "<table>" not in figure]
    assert len(found) == len(figures) + 2
    assert len(figures) == 7
    for figure in figures:
        (sentence,) = re.findall(r"<p>(.*?)</p>", figure)
        assert re.search(r"\d", sentence)
        assert sentence.endswith(".")


@pytest.mark.parametrize("name", CASES)
def test_the_text_stays_on_one_screen(name):
    lines = list(report_lines(CASES[name]))
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 130


def test_sentences_say_the_numbers():
    found = report()
    assert "explains 80.0% of the variance with 40.0 features a row, and leaves 0.50 times" in sentences.fvu(found)
    assert "With the 1.10% of the rows that are flagged, FVU is 0.1000." in sentences.fvu(found)
    assert "32 fixed directions leave less (0.1000)" in sentences.fvu(report(fvu_pca32=0.1))
    assert "10.0% too short (gamma 0.9000)" in sentences.shrinkage(found.shrinkage)
    long = Shrinkage(gamma=1.3, gamma_about_mean=1.2, norm_ratio=1, cosine=1)
    assert "20.0% too long (gamma 1.2000); of raw rows it is 1.3000" in sentences.shrinkage(long)
    assert "0.2500 nats a token higher (1,020 predictions" in sentences.cross_entropy(cross_entropy())
    assert "95.0% of the damage of ablation to zero is avoided, 90.0% of that" in sentences.cross_entropy(
        cross_entropy()
    )
    assert "by 0.3000 nats a token: 95.0%" in sentences.divergence(cross_entropy())
    assert sentences.l0(CASES["topk"]) == "Every row has exactly 32 active features."


def test_one_l0_of_all_rows_is_a_bar_among_others():
    chart = re.search(r"<figcaption>Rows by L0.*?</svg>", page(CASES["topk"]), flags=re.DOTALL)[0]
    counts = [int(count) for count in re.findall(r": (\d+)</title>", chart)]
    assert counts == [0] * 7 + [9] + [0] * 7
    assert "<title>32 to 33: 9</title>" in chart


def test_an_unbiased_sae_has_nothing_to_hide():
    found = Shrinkage(gamma=1.001, gamma_about_mean=1.003, norm_ratio=1, cosine=1)
    said = "About the mean, reconstructions are as long as they should be (gamma 1.0030); of raw rows it is 1.0010."
    assert sentences.shrinkage(found) == said


def test_a_histogram_stands_on_its_axis():
    chart = histogram("t", (0.0, 1.0, 2.0, 4.0), (5, 0, 10), x_label="x", note="n")
    places = r'<rect class="train" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"'
    bars = [tuple(map(float, bar)) for bar in re.findall(places, chart)]
    assert [round(height / bars[2][3], 3) for *_, height in bars] == [0.5, 0.0, 1.0]
    assert {round(y + height, 1) for _, y, _, height in bars} == {216.0}
    assert bars[2][2] == pytest.approx(2 * bars[0][2], rel=0.01)


def test_named_bars_are_as_long_as_their_values():
    chart = named_bars("t", [("a", 1.0, "train"), ("b & c", 0.25, "val")], note="n")
    widths = [float(width) for width in re.findall(r' width="([\d.]+)" height', chart)]
    assert widths[1] == pytest.approx(widths[0] / 4, abs=0.1)
    assert "b &amp; c" in chart
    assert "0.2500" in chart
