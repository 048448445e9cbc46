"""The definition: its files are up to date, and it says of an experiment what the operator and the charts rely on."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml

from kubesae.ledger import PHASES
from kubesae_operator import crd
from kubesae_operator.api import CONDITIONS, REASONS, SaeExperiment
from kubesae_operator.crd import FILES, definition, text
from kubesae_operator.phases import State
from kubesae_operator.progress import FIELDS

ROOT = Path(__file__).parents[3]
VERSION = definition()["spec"]["versions"][0]
SPEC, STATUS = (VERSION["schema"]["openAPIV3Schema"]["properties"][name] for name in ("spec", "status"))


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_what_the_code_makes(name):
    assert (ROOT / name).read_text(encoding="utf-8") == text(), "run python -m kubesae_operator.crd"


def test_the_program_writes_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(crd, "__file__", str(tmp_path / "operator" / "kubesae_operator" / "crd.py"))
    crd.main()
    for name in FILES:
        assert yaml.safe_load((tmp_path / name).read_text()) == definition()


def test_the_columns_are_those_that_are_promised_and_show_fields_that_there_are():
    columns = VERSION["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    assert shown == ["Phase", "Shards", "Tokens", "Percent", "Rate", "ETA", "Resume", "Train", "Age"]
    for column in columns:
        first, _, rest = column["jsonPath"].removeprefix(".").partition(".")
        if first == "status":
            field = STATUS
            for name in rest.split("[")[0].split("."):
                field = field["properties"][name]
            if "[" not in rest:
                assert field["type"] == column["type"]


def test_the_status_has_its_own_subresource_and_the_short_name_is_there():
    assert VERSION["subresources"] == {"status": {}}
    names = definition()["spec"]["names"]
    assert (names["shortNames"], definition()["metadata"]["name"]) == (["saex"], f"{names['plural']}.kubesae.dev")


def test_everything_that_the_operator_writes_has_a_field():
    assert STATUS["properties"].keys() >= FIELDS | {"phase", "phases", "conditions", "observedGeneration"}
    condition = STATUS["properties"]["conditions"]["items"]["properties"]
    assert condition["type"]["enum"] == list(CONDITIONS)
    assert condition["reason"]["enum"] == list(REASONS)
    assert STATUS["properties"]["phases"]["items"]["properties"]["state"]["enum"] == list(get_args(State))
    assert {"Pending", "Complete", "Failed", "Suspended", "Collecting"} <= set(STATUS["properties"]["phase"]["enum"])


def test_every_reason_is_explained():
    described = STATUS["properties"]["conditions"]["description"]
    for name, meaning in (CONDITIONS | REASONS).items():
        assert f"{name}: {meaning}" in described


def test_everything_that_the_operator_reads_has_a_field():
    given = {
        "suspend": True,
        "experiment": {"data": "s3://b/p"},
        "store": {"secretName": "s", "endpoint": "e", "region": "r", "caConfigMap": {"name": "c", "key": "k"}},
        "queueName": "q",
        "phases": ["train"],
    }
    assert given.keys() == SPEC["properties"].keys() - {"identity", "saes"}
    store = SPEC["properties"]["store"]["properties"]
    assert given["store"].keys() == store.keys()
    assert given["store"]["caConfigMap"].keys() == store["caConfigMap"]["properties"].keys()
    meta = {"namespace": "a", "name": "b", "uid": "u", "creationTimestamp": "2026-05-01T10:00:00Z"}
    full, empty = (SaeExperiment.of({"metadata": meta, "spec": spec}) for spec in (given, {}))
    for name in ("suspend", "description", "store", "queue", "phases"):
        assert getattr(full, name) != getattr(empty, name)
    assert SPEC["properties"]["phases"]["items"]["enum"] == list(PHASES)


def test_lists_are_merged_by_their_keys_and_not_replaced():
    for name, key in (("conditions", "type"), ("phases", "name")):
        field = STATUS["properties"][name]
        assert (field["x-kubernetes-list-type"], field["x-kubernetes-list-map-keys"]) == ("map", [key])
        assert key in field["items"]["required"]
