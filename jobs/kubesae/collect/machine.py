"""What computes activations on this machine: the engine, and its numerics record."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kubesae.ledger import Numerics

if TYPE_CHECKING:
    from kubesae.collect.capture import Engine
    from kubesae.experiment import Experiment
    from kubesae.model import ModelSource


def load_engine(experiment: Experiment, source: ModelSource) -> Engine:
    """Load the experiment's model as deep as its layers need, or what it has besides its layers."""
    wanted = source, experiment.layers, experiment.model_dtype, experiment.collect.device
    if experiment.collect.engine == "streamed":
        from kubesae.model.streamed import StreamedEngine  # noqa: PLC0415 - imports torch

        return StreamedEngine.load(*wanted, experiment.collect.weights)
    from kubesae.model.replicas import load_resident  # noqa: PLC0415

    return load_resident(*wanted)


def numerics(engine: Engine, forward_batch: int, threads: int) -> Numerics:
    """Return what computes the bytes now."""
    import torch  # noqa: PLC0415 - seconds to import
    import transformers  # noqa: PLC0415

    return Numerics(
        engine=engine.name,
        forward_batch=forward_batch,
        device=engine.device_name,
        threads=threads,
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
    )


def set_threads(threads: int | None) -> int:
    """Set and return the CPU threads of this process: bf16 bits depend on them, so they are never left to chance."""
    import torch  # noqa: PLC0415 - seconds to import

    count = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(count)
    return count
