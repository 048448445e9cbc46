"""Explanations of features by a language model, with scores of how well they tell where a feature is active."""

from kubesae.interpret.explain.endpoint import KEY, Endpoint
from kubesae.interpret.explain.run import choose, explain, open_interpretation, prompts

__all__ = ["KEY", "Endpoint", "choose", "explain", "open_interpretation", "prompts"]
