"""What was measured on this machine (`kubesae plan --calibrate`), and a plan that takes it for the machine `here`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import Section, canonical_json, parse_json_object, sha256_hex, validate
from kubesae.plan.prices import Node
from kubesae.plan.work import HERE

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from kubesae.experiment import Experiment
    from kubesae.plan.assumptions import Assumptions
    from kubesae.plan.prices import Prices
    from kubesae.plan.shape import ModelShape
    from kubesae.plan.work import Work

FILE = "calibration.json"


class MeasuredModel(Section):
    """How fast a model ran here, with random weights."""

    key: str = Field(description="SHA-256 over the shape of the model and the dtype it computes in")
    name: str = Field(description="name of the model")
    layers: int = Field(description="layers that were run")
    context: int = Field(description="tokens of a context")
    forward_batch: int = Field(description="contexts of a forward pass")
    workers: int = Field(description="processes that ran at the same time")
    tokens_per_second: float = Field(gt=0, description="of all processes")
    flops: float = Field(gt=0, description="FLOP a second that this comes to")


class Calibration(Section):
    """What was measured, and on what."""

    format: Literal[1] = Field(1, description="version of this file")
    measured: str = Field(description="when, ISO 8601, UTC")
    device: str = Field(description="name of the GPU, or of the CPU")
    gpus: int = Field(gt=0, description="GPUs; 1 for the CPU")
    memory_gb: float = Field(gt=0, description="memory of one GPU, or of the machine")
    host_memory_gb: float = Field(gt=0, description="memory of the machine")
    matmul_tflops: float = Field(gt=0, description="bfloat16 products, 10^12 FLOP a second")
    memory_gb_s: float = Field(gt=0, description="copying within memory, GB read and written a second")
    host_to_gpu_gb_s: float = Field(gt=0, description="from pinned memory to a GPU; without one: within memory")
    disk_gb: float = Field(ge=0, description="free space of the disk")
    disk_gb_s: float = Field(gt=0, description="reading a file that is not in the page cache")
    startup_seconds: float = Field(ge=0, description="until a new process has imported what it runs and has a model")
    upload_gb_s: float | None = Field(None, gt=0, description="to the experiment's store; null: not measured")
    download_gb_s: float | None = Field(None, gt=0, description="from it")
    model: MeasuredModel | None = Field(None, description="the experiment's model; null: not measured")

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return canonical_json(self.model_dump(mode="json")) + b"\n"


@dataclass(frozen=True)
class Calibrated:
    """What a plan takes from a calibration: machine, assumptions that were measured, the model's speed; in words."""

    node: Node
    assumptions: Assumptions
    model_flops: float | None
    words: str | None


def load_calibration(path: Path) -> Calibration:
    """Return a calibration.

    Raises:
        ConfigError: there is none, or it is none.

    """
    try:
        values = parse_json_object(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(
            f"Cannot read the calibration {path}: {error.strerror}. Make one: `kubesae plan --calibrate`."
        ) from error
    except DamagedError as error:
        raise ConfigError(f"{error} Make one anew: `kubesae plan --calibrate`.") from error
    return validate(Calibration, values, str(path))


def model_key(shape: ModelShape, experiment: Experiment) -> str:
    """Return what makes two models as fast as each other: their layers and dtype, not their name."""
    layers: list[Any] = [
        [[group.kind, group.parameters, group.active, group.outputs] for group in layer.groups]
        for layer in shape.layers
    ]
    values = {"layers": layers, "dtype": experiment.model_dtype, "d_model": shape.d_model}
    return sha256_hex(canonical_json(values))


def calibrated(
    work: Work, prices: Prices, assumptions: Assumptions, gpu: str, calibration: Calibration | None
) -> Calibrated:
    """Return the machine of a plan: one of the price file as it is, or this one as it was measured.

    Raises:
        ConfigError: there is no such GPU, or this machine was not measured.

    """
    if gpu != HERE:
        return Calibrated(prices.node(gpu), assumptions, None, None)
    if calibration is None:
        raise ConfigError(
            "This machine has not been measured. Run `kubesae plan --calibrate` first, or give another --gpu."
        )
    changes: dict[str, float] = {"start_seconds": calibration.startup_seconds, "reserve_gb": 1.0, "host_share": 0.9}
    if calibration.upload_gb_s is not None and calibration.download_gb_s is not None:
        changes |= {"upload_gb_s": calibration.upload_gb_s, "read_gb_s": calibration.download_gb_s}
    kept = {name: value for name, value in changes.items() if name not in assumptions.model_fields_set}
    measured = calibration.model
    same = measured is not None and measured.key == model_key(work.shape, work.experiment)
    words = f"{calibration.device}, measured {calibration.measured[:10]}"
    if measured is not None and same:
        words += f"; {measured.name}: {measured.tokens_per_second:,.0f} tokens/s through {measured.layers} layers"
    return Calibrated(
        _node(calibration),
        assumptions.model_copy(update=kept),
        measured.flops / calibration.gpus if measured is not None and same else None,
        words,
    )


def _node(calibration: Calibration) -> Node:
    return Node(
        name=HERE,
        instance="this machine",
        gpu=calibration.device,
        gpus=calibration.gpus,
        memory_gb=calibration.memory_gb,
        bf16_tflops=calibration.matmul_tflops,
        memory_gb_s=calibration.memory_gb_s,
        fp8=False,
        host_memory_gb=calibration.host_memory_gb,
        host_to_gpu_gb_s=calibration.host_to_gpu_gb_s,
        disk_gb=calibration.disk_gb,
        disk_gb_s=calibration.disk_gb_s,
        dollars_per_hour=0.0,
        spot_dollars_per_hour=0.0,
        source="not paid",
    )
