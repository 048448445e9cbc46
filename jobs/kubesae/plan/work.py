"""What is to be done and on what: the experiment's numbers and the chosen machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError
from kubesae.ledger import Plan
from kubesae.plan.prices import GB
from kubesae.shards import codec

if TYPE_CHECKING:
    from kubesae.experiment import Experiment
    from kubesae.plan.assumptions import Assumptions
    from kubesae.plan.prices import Node
    from kubesae.plan.shape import ModelShape

ITEMSIZE = {"bfloat16": 2, "float16": 2, "float32": 4}
"""bytes of a number, by the dtype that a model computes in or that training takes rows in"""


@dataclass(frozen=True)
class Work:
    """An experiment, its plan of parts and its model.

    Attributes:
        experiment: the experiment.
        plan: its shards, parts and blocks.
        shape: the whole model.
        depth: layers that are loaded.

    """

    experiment: Experiment
    plan: Plan
    shape: ModelShape
    depth: int

    @classmethod
    def of(cls, experiment: Experiment, shape: ModelShape) -> Work:
        """Check the experiment against the model.

        Raises:
            ConfigError: the model has no such layer, or cannot hold such a context.

        """
        if experiment.layers[-1] >= shape.depth:
            raise ConfigError(
                f"Layer {experiment.layers[-1]} is out of range: {shape.name} has layers 0 to {shape.depth - 1}. Set "
                "`layers` to some of these."
            )
        if shape.max_context is not None and experiment.context > shape.max_context:
            raise ConfigError(
                f"`context` is {experiment.context}, but {shape.name} takes at most {shape.max_context} tokens. "
                "Lower it."
            )
        return cls(experiment, Plan.of(experiment), shape, experiment.layers[-1] + 1)

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the model while it computes."""
        return ITEMSIZE[self.experiment.model_dtype]

    @property
    def part_tokens(self) -> int:
        """Tokens of a whole part, or of the largest there is."""
        return min(self.experiment.contexts_per_part * self.experiment.context, self.plan.quota(0))

    @property
    def forward_tokens(self) -> int:
        """Tokens of one forward pass."""
        return min(self.experiment.collect.forward_batch * self.experiment.context, self.part_tokens)

    @property
    def row_bytes(self) -> int:
        """Bytes of a token's stored activations, all layers."""
        return len(self.experiment.layers) * codec(self.experiment.storage).row_bytes(self.shape.d_model)

    @property
    def flops(self) -> float:
        """FLOP of one token."""
        return self.shape.flops(self.depth, self.experiment.context)


@dataclass(frozen=True)
class Machines:
    """The machines that collect.

    Attributes:
        node: their type.
        gpus: GPUs of a slot.
        slots: slots that work at the same time.
        slots_per_node: of these on one machine.
        model_flops: FLOP a second that one GPU reaches in this model.
        measured: whether that was measured here.

    """

    node: Node
    gpus: int
    slots: int
    slots_per_node: int
    model_flops: float
    measured: bool = False

    @classmethod
    def of(cls, work: Work, node: Node, gpus: int, assumptions: Assumptions, measured: float | None = None) -> Machines:
        """Return the machines for one slot a shard; of this machine alone there are only as many as it holds.

        Args:
            work: what is to be done.
            node: type of the machines.
            gpus: of a slot.
            assumptions: the share of the peak that is reached.
            measured: FLOP a second of one GPU in this model, where it was measured.

        Raises:
            ConfigError: a machine has fewer GPUs than a slot wants.

        """
        if gpus > node.gpus:
            raise ConfigError(
                f"A slot of {gpus} GPUs does not fit {node.instance}, which has {node.gpus}. Lower --gpus-per-slot, or "
                "give another --gpu."
            )
        per_node = node.gpus // gpus
        shards = work.plan.num_shards
        slots = min(shards, per_node) if node.name == HERE else shards
        dense = work.shape.experts == 0
        share = assumptions.matmul_share_dense if dense else assumptions.matmul_share_moe
        flops = measured or node.bf16_tflops * 1e12 * share
        return cls(node, gpus, slots, min(per_node, slots), flops, measured is not None)

    @property
    def nodes(self) -> int:
        """Machines."""
        return -(-self.slots // self.slots_per_node)

    @property
    def gpu_bytes(self) -> int:
        """Memory of one GPU."""
        return int(self.node.memory_gb * GB)

    def host_bytes(self, assumptions: Assumptions) -> int:
        """Host memory of a machine that weights and queues may take."""
        return int(self.node.host_memory_gb * GB * assumptions.host_share)


HERE = "here"
"""name of the machine that `kubesae plan --calibrate` has measured"""
