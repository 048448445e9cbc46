"""The same examples on every run, and no limit on one example's time: the machines that test are slow and shared."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("kubesae", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("kubesae")
