"""The price file: machines with what they can do and cost, and what a store costs. Dated, with a source each.

The package carries one (`prices.yaml`); `--prices FILE` takes another of the same fields.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from kubesae.errors import ConfigError
from kubesae.experiment import Section, parse_yaml, validate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GB = 1e9


class Node(Section):
    """A machine with GPUs, as it is rented. GB and TFLOP are decimal."""

    name: str = Field(description="what `--gpu` takes")
    instance: str = Field(description="the provider's name of the machine")
    gpu: str = Field(description="the GPU, for people")
    gpus: int = Field(gt=0, description="GPUs of the machine")
    memory_gb: float = Field(gt=0, description="memory of one GPU")
    bf16_tflops: float = Field(gt=0, description="dense bfloat16 peak of one GPU, in 10^12 FLOP a second")
    memory_gb_s: float = Field(gt=0, description="bandwidth of a GPU's memory, GB a second")
    fp8: bool = Field(description="the GPU multiplies FP8: weights stored so stay so in the resident engine")
    host_memory_gb: float = Field(gt=0, description="memory of the machine")
    host_to_gpu_gb_s: float = Field(gt=0, description="from host memory to one GPU, GB a second")
    disk_gb: float = Field(ge=0, description="local disks of the machine")
    disk_gb_s: float = Field(gt=0, description="what these read together, GB a second")
    dollars_per_hour: float = Field(ge=0, description="price of the whole machine on demand")
    spot_dollars_per_hour: float | None = Field(None, ge=0, description="price as a spot machine, where it is known")
    source: str = Field(description="where price and figures come from, and of when")


class Tier(Section):
    """A price of a GB, up to some amount."""

    up_to_gb: float | None = Field(description="the price holds up to this many GB; null: for all above")
    dollars: float = Field(ge=0, description="dollars a GB")


class StorePrices(Section):
    """What a store costs."""

    storage_tiers: tuple[Tier, ...] = Field(min_length=1, description="storage, dollars a GB and month")
    dollars_per_1000_writes: float = Field(ge=0, description="PUT, POST and LIST requests")
    dollars_per_1000_reads: float = Field(ge=0, description="GET and HEAD requests")
    egress_tiers: tuple[Tier, ...] = Field(min_length=1, description="bytes that leave the provider, dollars a GB")
    source: str = Field(description="where the prices come from, and of when")


class Prices(Section):
    """A price file."""

    as_of: str = Field(description="when the prices held")
    currency: str = Field(description="what `dollars` are")
    nodes: tuple[Node, ...] = Field(min_length=1, description="the machines")
    store: StorePrices = Field(description="the store")

    @model_validator(mode="after")
    def _consistent(self) -> Prices:
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            raise ValueError(f"two nodes have the same name: {names}; give each its own")
        return self

    def node(self, name: str) -> Node:
        """Return the machine with GPUs of this name.

        Raises:
            ConfigError: there is none.

        """
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes)
        raise ConfigError(f"No GPU is called {name!r} in the prices of {self.as_of}. Give --gpu one of: {names}.")


def load_prices(path: Path | None = None) -> Prices:
    """Return the prices of a file, else those of this package.

    Raises:
        ConfigError: the file cannot be read, or is no price file.

    """
    if path is None:
        packaged = files(__package__).joinpath("prices.yaml")
        return validate(Prices, parse_yaml(packaged.read_text(encoding="utf-8"), "prices.yaml"), "prices.yaml")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"Cannot read the price file {path}: {reason}. Give the path of a YAML file.") from error
    return validate(Prices, parse_yaml(text, str(path)), str(path))


def tiered(tiers: Sequence[Tier], amount_gb: float) -> float:
    """Return dollars for an amount, each part of it at the price of its tier."""
    dollars, below = 0.0, 0.0
    for tier in tiers:
        top = amount_gb if tier.up_to_gb is None else min(amount_gb, tier.up_to_gb)
        dollars += max(0.0, top - below) * tier.dollars
        below = max(below, top)
    return dollars
