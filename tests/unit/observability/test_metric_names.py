"""Page, dashboard and alerts speak of the metrics that there are, and of no others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubesae.cli.metrics import CollectMetrics, PilotMetrics, TrainMetrics
from kubesae_operator.metrics import Metrics as OperatorMetrics

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "k8s/dashboards/kubesae.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((ROOT / "k8s/alerts/kubesae.yaml").read_text(encoding="utf-8"))
# Labels that Prometheus gives every series of a Pod, and those of its histograms.
FROM_PROMETHEUS = {"namespace", "pod", "le"}
_NAME = re.compile(r"\bkubesae_[a-z0-9_]+")


def described(registry: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return kind and labels of the metrics of a registry, by the names that Prometheus stores."""
    found = {}
    for collector in registry._collector_to_names:
        if hasattr(collector, "_name"):
            ending = {"counter": "_total", "info": "_info"}.get(collector._type, "")
            kind = "gauge" if collector._type == "info" else collector._type
            labels = tuple(collector._labelnames) or (("program", "experiment") if ending == "_info" else ())
            found[collector._name + ending] = (kind, labels)
        else:
            for family in collector.collect():
                found[f"{family.name}_total"] = (family.type, tuple(family._labelnames))
    return found


PROGRAMS = {
    name: value for kind in (CollectMetrics, TrainMetrics) for name, value in described(kind("x").registry).items()
}
OPERATOR = described(OperatorMetrics().registry)
STORED = (
    {name for name, (kind, _) in (PROGRAMS | OPERATOR).items() if kind != "histogram"}
    | {f"{name}_{part}" for name, (kind, _) in OPERATOR.items() if kind == "histogram" for part in ("bucket", "sum")}
)  # fmt: skip


def table(heading: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| `")]
    return {
        name.strip(" `"): (kind.strip(), tuple(label.strip(" `") for label in labels.split(",") if label.strip()))
        for name, kind, labels in rows
    }


def test_the_page_has_the_metrics_that_there_are() -> None:
    assert table("Of the programs") == PROGRAMS
    assert table("Of the operator") == OPERATOR


def test_no_metric_has_two_meanings() -> None:
    assert not PROGRAMS.keys() & OPERATOR.keys()
    assert described(PilotMetrics("x").registry) == described(CollectMetrics("x").registry)


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    alerts = [rule["expr"] for group in ALERTS["spec"]["groups"] for rule in group["rules"]]
    queries = [item["definition"] for item in DASHBOARD["templating"]["list"] if "definition" in item]
    return panels + alerts + queries


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_names_metrics_and_labels_that_there_are(expression: str) -> None:
    names = set(_NAME.findall(expression))
    assert names
    assert names <= STORED
    base = {re.sub(r"_(bucket|sum)$", "", name) for name in names}
    labels = {label for name in base for label in (PROGRAMS | OPERATOR)[name][1]} | FROM_PROMETHEUS
    used = set(re.findall(r"(\w+)\s*=~?\s*\"", expression))
    used |= {label for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in group.split(", ")}
    assert used <= labels


def test_alerts_and_panels_together_use_most_of_what_there_is() -> None:
    used = {name for expression in expressions() for name in _NAME.findall(expression)}
    assert {name for name in PROGRAMS if name.startswith("kubesae_store_")} <= used
    assert len(used) > len(STORED) * 0.7


def test_every_alert_says_what_to_do() -> None:
    rules = [rule for group in ALERTS["spec"]["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_panels_do_not_lie_on_each_other() -> None:
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
