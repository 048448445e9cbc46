"""Features while a model reasons: on one text, or on problems that it solves, with the tests that could refute them.

bench = Bench.open(experiment, data, output, None)
summary = reason(bench, Asked(problems=Path("problems.jsonl"), name="gsm8k"))
"""

from kubesae.reason.analyse import reason
from kubesae.reason.console import intervention_lines, summary_lines
from kubesae.reason.edit import KINDS, Edit, Editor
from kubesae.reason.intervene import check_feature, intervene, intervene_on_text
from kubesae.reason.look import NO_LABELS, look, look_lines
from kubesae.reason.run import Asked, Bench

__all__ = [
    "KINDS",
    "NO_LABELS",
    "Asked",
    "Bench",
    "Edit",
    "Editor",
    "check_feature",
    "intervene",
    "intervene_on_text",
    "intervention_lines",
    "look",
    "look_lines",
    "reason",
    "summary_lines",
]
