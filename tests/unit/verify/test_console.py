"""The lines of a verification: the checks that hold, or what is wrong where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.ledger import VerifyReport, keys, read_identity, read_record, record_list
from kubesae.verify import report_lines, verify
from small_experiment import small_experiment

if TYPE_CHECKING:
    from kubesae.store import Store


def lines(store: Store, report: VerifyReport) -> list[str]:
    identity = read_identity(store)
    assert identity is not None
    return list(report_lines(report, identity, small_experiment(store.url)))


def test_the_lines_of_whole_data(small: Store) -> None:
    assert lines(small, verify(small, "all", "full", 200)) == [
        "✓ Found 3 activation chunks per shard",  # of 200 tokens in 502 and 501
        "✓ Total tokens: 1,003",
        "✓ Activation shape verified: (n_tokens, 8)",
        "✓ All chunks valid!",
    ]


def test_mode_ledger_says_last_what_was_not_read(small: Store) -> None:
    shown = lines(small, verify(small, "all", "ledger", 200))
    assert shown[-1] == "12 tars were not read; `kubesae verify --mode full` reads every byte"


def test_the_lines_of_the_pilot(small: Store) -> None:
    shown = lines(small, verify(small, "pilot", "full", 200))
    assert shown[0] == "✓ Found 2 activation chunks per shard"
    assert shown[1] == "✓ Total tokens: 384"
    assert shown[-1] == "✓ All checks passed!"


def test_the_lines_of_damage_and_orphans(small: Store) -> None:
    tar = read_record(small, 0, 0).layers[0].key
    small.delete(tar)
    small.put(keys.tar(1, 0, 0, "0" * 12), b"")
    assert lines(small, verify(small, "all", "full", 200)) == [
        "✗ 1 thing is wrong:",
        f"  missing tar: {tar}: the record names it, the store does not have it",
        "`kubesae repair` makes it again",
        f"  orphan (no record names it, harmless): {keys.tar(1, 0, 0, '0' * 12)}",
        "`kubesae gc` removes what nobody needs",
    ]


def test_long_lists_are_cut(small: Store) -> None:
    for key in record_list(small):
        small.delete(key)
    for number in range(30):
        small.put(keys.tar(1, 0, 0, f"{number:012d}"), b"")
    shown = lines(small, verify(small, "all", "full", 200))
    assert shown[0] == "✗ 6 things are wrong:"
    assert "  ... and 34 more" in shown  # 24 tars and moments of the parts, and 30, of which 20 are shown
