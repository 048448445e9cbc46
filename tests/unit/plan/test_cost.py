"""The bill: tiers, whole machines, spot machines, and a price file of one's own."""

from __future__ import annotations

import pytest
import yaml

from kubesae.errors import ConfigError
from kubesae.plan import Assumptions, load_prices
from kubesae.plan.cost import spot_factor
from kubesae.plan.prices import Tier, tiered
from planned import PRICES, REFERENCE, planned

TIERS = [Tier(up_to_gb=10, dollars=1.0), Tier(up_to_gb=30, dollars=0.5), Tier(up_to_gb=None, dollars=0.1)]


@pytest.mark.parametrize(("amount", "dollars"), [(0, 0), (4, 4), (10, 10), (20, 15), (30, 20), (130, 30)])
def test_each_part_has_the_price_of_its_tier(amount, dollars):
    assert tiered(TIERS, amount) == pytest.approx(dollars)


def test_the_sum_is_what_is_counted():
    report = planned("kimi-k2-thinking", **REFERENCE)
    assert report.on_demand == pytest.approx(sum(line.on_demand for line in report.costs if line.counted))
    assert [line.what for line in report.costs if not line.counted] == ["egress"]
    assert report.spot < report.on_demand


def test_machines_are_paid_whole():
    report = planned("kimi-k2-thinking", num_shards=5, layers=[45])
    assert report.collection.nodes == 2  # four slots of two GPUs a machine, and one more
    assert report.costs[0].on_demand == pytest.approx(report.collection.node_hours * 55.04)


def test_spot_machines_take_longer_by_what_preemptions_lose():
    assert spot_factor(Assumptions(preemptions_per_day=0), 600) == 1
    assert spot_factor(Assumptions(preemptions_per_day=24), 360) == pytest.approx(1.1)


def test_a_folder_costs_nothing():
    report = planned("gpt2", data="/some/folder")
    assert [line.what for line in report.costs] == ["collect", "train"]


def test_prices_are_dated_and_have_sources():
    assert PRICES.as_of
    assert PRICES.store.source
    assert all(node.source for node in PRICES.nodes)


def test_a_price_file_of_ones_own(tmp_path):
    values = PRICES.model_dump(mode="json")
    values["nodes"] = [values["nodes"][0] | {"name": "mine", "dollars_per_hour": 8.0}]
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump(values))
    assert load_prices(path).node("mine").dollars_per_hour == 8
    with pytest.raises(ConfigError, match=r"No GPU is called 'h100' .* Give --gpu one of: mine"):
        load_prices(path).node("h100")
    values["nodes"] *= 2
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="two nodes have the same name"):
        load_prices(path)
