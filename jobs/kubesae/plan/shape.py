"""What a model is made of, as plain numbers: parameters, bytes and matrix sizes of every layer. No torch.

`plan.count` fills these from transformers' own modules; everything else of the planner is arithmetic on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# In the order in which tables show them.
KINDS = ("embeddings", "attention", "mlp", "experts", "shared experts", "router", "norms", "head")


@dataclass(frozen=True, slots=True)
class Group:
    """The tensors of one kind in one place.

    Attributes:
        kind: one of `KINDS`.
        parameters: all numbers in them.
        active: those that one token meets; fewer than `parameters` where a router chooses experts.
        multiplied: numbers of matrices that one token is multiplied with: 2 FLOP each. 0 for tables that are looked up.
        outputs: numbers that these matrices give for one token.
        disk: bytes in the checkpoint.
        packed: parameters that the checkpoint holds in fewer bits than its dtype (INT4, FP8).
        packed_disk: bytes of these in the checkpoint, with their scales.

    """

    kind: str
    parameters: int
    active: int
    multiplied: int
    outputs: int
    disk: int
    packed: int = 0
    packed_disk: int = 0

    def __add__(self, other: Group) -> Group:
        """Return both as one."""
        numbers = (getattr(self, name) + getattr(other, name) for name in self.__slots__ if name != "kind")
        return Group(self.kind, *numbers)

    def memory(self, itemsize: int, *, keeps_packed: bool) -> int:
        """Return bytes when it is loaded in a dtype of `itemsize` bytes; packed weights stay so or are expanded."""
        if keeps_packed:
            return (self.parameters - self.packed) * itemsize + self.packed_disk
        return self.parameters * itemsize


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention of a layer, as far as its cost grows with the context.

    Attributes:
        heads: query heads.
        qk_width: width of one head's queries and keys.
        v_width: width of one head's values.
        window: keys that a query sees at most; None: all.
        causal: a query sees only what comes before it.

    """

    heads: int
    qk_width: int
    v_width: int
    window: int | None
    causal: bool

    def keys(self, context: int) -> float:
        """Return how many keys a query of a context of this many tokens sees on average."""
        if not self.causal:
            return context
        window = min(self.window or context, context)
        # the first `window` queries see 1, 2, ..., window keys, all later ones `window`
        return (window * (window + 1) / 2 + (context - window) * window) / context

    def flops(self, context: int) -> float:
        """Return FLOP of one token: scores and the sum of values."""
        return 2 * self.keys(context) * self.heads * (self.qk_width + self.v_width)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its tensors by kind, and its attention (None: none whose cost grows with the context)."""

    groups: tuple[Group, ...]
    attention: Attention | None

    @property
    def whole(self) -> Group:
        """All its tensors as one."""
        return total(self.groups)

    @property
    def has_experts(self) -> bool:
        """Whether a router chooses among experts."""
        return any(group.kind == "experts" for group in self.groups)

    def flops(self, context: int) -> float:
        """Return FLOP of one token in a context of this many tokens."""
        attention = 0.0 if self.attention is None else self.attention.flops(context)
        return 2.0 * self.whole.multiplied + attention


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A whole model.

    Attributes:
        name: of the model.
        origin: where its config came from.
        model_type: architecture, by transformers' name.
        d_model: width of the residual stream.
        vocab_size: rows of the table of embeddings.
        max_context: longest context; None: not said.
        before: tensors before the first layer (embeddings).
        layers: the layers.
        after: tensors after the last one (final norm, head), which are not loaded.
        stored: dtype of the checkpoint.
        quantization: how the checkpoint is packed, in words; None: it is not.
        prediction_layers: further layers in the checkpoint that predict several tokens at once, which nothing loads.
        experts, active_experts: of a layer with a router; 0 where there is none.

    """

    name: str
    origin: str
    model_type: str
    d_model: int
    vocab_size: int
    max_context: int | None
    before: tuple[Group, ...]
    layers: tuple[Layer, ...]
    after: tuple[Group, ...]
    stored: str
    quantization: str | None
    prediction_layers: int
    experts: int
    active_experts: int

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def groups(self) -> tuple[Group, ...]:
        """All tensors."""
        return (*self.before, *(group for layer in self.layers for group in layer.groups), *self.after)

    @property
    def whole(self) -> Group:
        """All tensors as one."""
        return total(self.groups)

    def loaded(self, depth: int) -> tuple[Group, ...]:
        """Return the tensors that the first `depth` layers need: no later layer, no final norm, no head."""
        return (*self.before, *(group for layer in self.layers[:depth] for group in layer.groups))

    def flops(self, depth: int, context: int) -> float:
        """Return FLOP of one token through the first `depth` layers."""
        return sum(layer.flops(context) for layer in self.layers[:depth])


def total(groups: Iterable[Group]) -> Group:
    """Return groups as one, of kind `all`."""
    return sum(groups, Group("all", 0, 0, 0, 0, 0))


def by_kind(groups: Iterable[Group]) -> dict[str, Group]:
    """Return the sum of the groups of each kind, in the order of `KINDS`."""
    sums: dict[str, Group] = {}
    for group in groups:
        sums[group.kind] = sums[group.kind] + group if group.kind in sums else group
    return {kind: sums[kind] for kind in KINDS if kind in sums}


def runs(layers: tuple[Layer, ...]) -> Iterator[tuple[int, int, Layer]]:
    """Yield runs of layers that are alike: first, last, and one of them."""
    at = 0
    for layer, alike in groupby(layers):
        count = len(list(alike))
        yield at, at + count - 1, layer
        at += count
