"""Remove what no record names and nobody is writing any more."""

from kubesae.gc.garbage import Garbage
from kubesae.gc.interpretations import find_leftovers
from kubesae.gc.run import collect_garbage, find_garbage

__all__ = ["Garbage", "collect_garbage", "find_garbage", "find_leftovers"]
