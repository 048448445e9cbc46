"""Fetch: bring a model to where programs load it from."""

from kubesae.fetch.run import Fetched, fetch
from kubesae.fetch.sources import find_source

__all__ = ["Fetched", "fetch", "find_source"]
