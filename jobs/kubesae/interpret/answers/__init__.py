"""Answers about every feature once it was counted, from its codes and weights: no second read of the activations."""

from kubesae.interpret.answers.lines import answer_lines, search_lines
from kubesae.interpret.answers.run import answer

__all__ = ["answer", "answer_lines", "search_lines"]
