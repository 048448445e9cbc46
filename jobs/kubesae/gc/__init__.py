"""Remove what no record names and nobody is writing any more."""

from kubesae.gc.run import Garbage, collect_garbage, find_garbage

__all__ = ["Garbage", "collect_garbage", "find_garbage"]
