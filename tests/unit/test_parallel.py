"""Many things at once give their results in order, and few of them wait."""

from __future__ import annotations

import time

import pytest

from kubesae.parallel import in_order


def test_few_results_wait_to_be_taken() -> None:
    """A result is as large as a part's moments, and there are tens of thousands."""
    begun = 0

    def begin(item: int) -> int:
        nonlocal begun
        begun += 1
        return item

    for taken, result in enumerate(in_order(begin, range(100), 2)):
        time.sleep(0.001)
        assert (result, begun <= taken + 1 + 2 * 2) == (taken, True)


def test_an_exception_ends_the_rest() -> None:
    begun: list[int] = []

    def fail_at_three(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    results = in_order(fail_at_three, range(100), 1)
    with pytest.raises(ValueError, match="three"):
        list(results)
    assert len(begun) < 10
