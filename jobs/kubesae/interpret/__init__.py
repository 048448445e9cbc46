"""Statistics of features, where each is most active, and features with a theme."""

from kubesae.interpret.console import feature_lines, statistics_lines, theme_lines
from kubesae.interpret.run import Interpreter, interpret, interpret_share, scan
from kubesae.interpret.statistics import Statistics
from kubesae.interpret.themes import TOP, Theme, find_themes

__all__ = [
    "TOP",
    "Interpreter",
    "Statistics",
    "Theme",
    "feature_lines",
    "find_themes",
    "interpret",
    "interpret_share",
    "scan",
    "statistics_lines",
    "theme_lines",
]
