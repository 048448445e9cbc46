"""Statistics of features, where each is most active, what they mean, and features with a theme."""

from kubesae.interpret.answers import answer, answer_lines, search_lines
from kubesae.interpret.console import feature_lines, statistics_lines, theme_lines
from kubesae.interpret.run import Interpreter, interpret, interpret_share, scan
from kubesae.interpret.statistics import Statistics
from kubesae.interpret.themes import TOP, Theme, find_themes

__all__ = [
    "TOP",
    "Interpreter",
    "Statistics",
    "Theme",
    "answer",
    "answer_lines",
    "feature_lines",
    "find_themes",
    "interpret",
    "interpret_share",
    "scan",
    "search_lines",
    "statistics_lines",
    "theme_lines",
]
