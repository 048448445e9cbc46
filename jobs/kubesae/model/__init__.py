"""Truncated loading, capture hooks, engines."""

from kubesae.model.source import ModelSource, resolve_model

__all__ = ["ModelSource", "resolve_model"]
