"""report.html and its charts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from kubesae.page import Series, line_chart
from small_training import BATCHTOPK, RELU, TOPK, Training


class Checker(HTMLParser):
    """Notes tags that stay open, and every URL."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value for name, value in attrs if name in {"src", "href", "action", "data"} and value]
        if tag not in {"meta", "!doctype", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("settings", [TOPK, BATCHTOPK, RELU | {"target_l0": 6.0}], ids=["topk", "batchtopk", "relu"])
def test_the_page_is_whole_and_loads_nothing(training: Training, settings: dict[str, object]) -> None:
    result = training.run(settings)
    page = training.output.read(result.report).decode()
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.urls == []
    assert "http" not in page
    assert "url(" not in page
    assert f"{result.metrics['fvu']:.4f}" in page
    assert "prefers-color-scheme: dark" in page
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) == (7 if settings["architecture"] == "relu" else 6)
    for chart in charts:
        ET.fromstring(chart)
    assert page.count("<circle") == 4 * 3


def test_names_are_escaped(training: Training) -> None:
    from kubesae.train.report import report_html

    result = training.run(TOPK | {"epochs": 1})
    about = {"name": "<b>", "layer": 4, "model": "a & b", "model_revision": "r", "identity": "i",
             "training": {"architecture": "topk", "d_sae": 24}, "numerics": {}}  # fmt: skip
    page = report_html(about, [], result.metrics, ["more <i>"])
    assert "&lt;b&gt;: SAE of layer 4 of a &amp; b" in page
    assert "more &lt;i&gt;" in page
    assert "<figure>" not in page


def test_points_are_drawn_where_they_belong() -> None:
    chart = line_chart("t", [Series("a", "train", [(0, 0.0), (50, 5.0), (100, 10.0)])], x_label="x")
    points = re.search(r'points="([^"]+)"', chart)[1].split()
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points)
    assert x0 < x1 < x2
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 > y1 > y2
    assert y0 - y1 == pytest.approx(y1 - y2)


def test_a_logarithmic_axis_spaces_factors_equally() -> None:
    chart = line_chart("t", [Series("a", "train", [(0, 1.0), (1, 10.0), (2, 100.0)])], x_label="x", log=True)
    ys = [float(point.split(",")[1]) for point in re.search(r'points="([^"]+)"', chart)[1].split()]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.1)


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [float("nan")], [1e-9, 2e-9], [1e6, 5e6], [0.112, 0.1121]])
@pytest.mark.parametrize("log", [False, True])
def test_odd_values_give_a_chart_or_none(values: list[float], *, log: bool) -> None:
    chart = line_chart("t", [Series("a", "train", list(enumerate(values)), dots=True)], x_label="x", log=log)
    assert "nan" not in chart
    if values[0] == values[0]:
        assert chart.count("<circle") == len(values)
        assert len(re.findall('class="grid"', chart)) >= 2
        for y in re.findall(r'y1?="(-?[\d.]+)"', chart):
            assert 0 <= float(y) <= 250
