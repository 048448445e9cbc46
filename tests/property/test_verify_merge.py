"""Findings merge into one report whatever their order, and however many workers found them, some of them twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubesae.ledger import Damage, Finding
from kubesae.verify.run import make_report

PARTS = st.one_of(st.none(), st.integers(0, 3))
FINDINGS = st.builds(
    Finding,
    kind=st.sampled_from(Damage),
    key=st.sampled_from(["a", "b/c", "b/d"]),
    detail=st.text(max_size=3),
    shard=PARTS,
    part=PARTS,
)


@given(st.lists(FINDINGS, max_size=130), st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_report_is_a_function_of_the_set_of_findings(findings, workers, random):
    def report(found):
        return make_report("0" * 64, "all", "full", ["k"], [], found, ([], [])).to_json()

    shares = [set(findings[index::workers]) for index in range(workers)]
    doubled = [*findings, *random.sample(findings, len(findings) // 2)]
    random.shuffle(doubled)
    assert report(findings) == report(doubled) == report({finding for share in shares for finding in share})
