"""The kinds of damage are a contract: the documents list them, all of them, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from kubesae.ledger import LOST_BYTES, Damage, Finding

CONTRACTS = Path(__file__).parents[3] / "docs" / "contracts.md"


def test_the_documents_list_every_kind_in_order() -> None:
    section = CONTRACTS.read_text(encoding="utf-8").split("## Damage")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE) == [str(kind) for kind in Damage]


def test_a_finding_is_of_a_kind_that_is_known() -> None:
    assert Finding(kind="missing tar", key="k", detail="d").kind is Damage.MISSING_TAR
    with pytest.raises(ValidationError, match="missing record"):
        Finding(kind="something else", key="k", detail="d")


def test_lost_bytes_say_nothing_against_the_record() -> None:
    assert {kind for kind in Damage if kind.endswith("record")}.isdisjoint(LOST_BYTES)
    assert Damage.WRONG_MOMENTS not in LOST_BYTES
