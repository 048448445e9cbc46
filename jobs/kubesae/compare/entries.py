"""What `sae/sweep.json` says: a row an SAE, made from metadata of its best checkpoint and from its evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from kubesae.experiment import Section, canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence


class Entry(Section):
    """An SAE, as its best checkpoint is."""

    name: str = Field(description="name of the SAE")
    identity: str = Field(description="identity of the data it was trained on")
    layer: int = Field(description="layer whose output it reconstructs")
    architecture: str = Field(description="relu, topk, batchtopk, matryoshka, jumprelu or gated")
    d_sae: int = Field(description="number of features")
    k: int | None = Field(description="active features of a row; null for relu, jumprelu and gated")
    l1_coeff: float | None = Field(
        description="sparsity coefficient that was in use (found, with target_l0); of relu and gated"
    )
    l0_coeff: float | None = Field(description="the same of jumprelu, whose penalty is another one")
    seed: int = Field(description="seed of the initial weights")
    order_seed: int = Field(description="seed of the order of the data")
    lr: float | None = Field(description="peak of the learning rate; null where the length of the training set it")
    step: int = Field(description="steps that it has learned")
    epoch: int = Field(description="epochs of these, of which this one was the best")
    l0: float = Field(description="mean number of active features of a validation row")
    fvu: float = Field(description="fraction of variance unexplained, of validation rows")
    dead_share: float = Field(description="share of features that no training row of that epoch activated")
    val_loss: float = Field(description="loss of validation rows")
    ce_recovered: float | None = Field(
        description="CE loss recovered against ablation to zero; null where this checkpoint was not evaluated so"
    )
    sha256: str = Field(description="SHA-256 of its weights")
    frontier: bool = Field(description="no SAE of the same data and layer has both L0 and FVU as low, and one lower")


class LeftOut(Section):
    """An SAE that cannot be compared."""

    name: str = Field(description="name of the SAE")
    reason: str = Field(description="why it cannot be compared")


class Comparison(Section):
    """The SAEs by layer and L0, and those that are left out."""

    format: Literal[1] = Field(1, description="version of the report")
    saes: tuple[Entry, ...] = Field(description="the SAEs, by layer, L0 and name")
    left_out: tuple[LeftOut, ...] = Field(description="SAEs that cannot be compared, by name")

    def to_json(self) -> bytes:
        """Return the report's bytes."""
        return canonical_json(self.model_dump(mode="json"))


def entry_values(name: str, metadata: dict[str, Any], evaluation: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fields of an `Entry` but for `frontier`.

    Args:
        name: of the SAE.
        metadata: of its best checkpoint.
        evaluation: what is there of one; it counts if it is of the same weights.

    Raises:
        KeyError, TypeError: something is missing.

    """
    config, training, metrics = metadata["config"], metadata["training"], metadata["metrics"]
    return {
        "name": name,
        **{field: metadata[field] for field in ("identity", "layer", "sha256", "step")},
        **{field: config[field] for field in ("architecture", "d_sae", "k")},
        **_coefficients(config["architecture"], metadata["l1_coeff"]),
        **{field: training[field] for field in ("seed", "lr")},
        "order_seed": training.get("order_seed", training["seed"]),  # one seed was both, once
        **{field: metrics[field] for field in ("epoch", "l0", "fvu", "dead_share", "val_loss")},
        "ce_recovered": _recovered(evaluation, metadata["sha256"]),
    }


def _coefficients(architecture: str, in_use: float) -> dict[str, float | None]:
    """Return the sparsity coefficient of a checkpoint (its `l1_coeff`, whatever the penalty) under its own name."""
    return {
        "l1_coeff": in_use if architecture in {"relu", "gated"} else None,
        "l0_coeff": in_use if architecture == "jumprelu" else None,
    }


def _recovered(evaluation: dict[str, Any] | None, sha256: str) -> float | None:
    if evaluation is None or evaluation.get("sae_sha256") != sha256:
        return None
    loss = evaluation.get("cross_entropy") or {}
    recovered: float | None = loss.get("recovered_zero")
    return recovered


def with_frontier(rows: Sequence[dict[str, Any]]) -> list[Entry]:
    """Return the entries of rows of `entry_values`, sorted, with those marked that no other one beats.

    Raises:
        pydantic.ValidationError: a value is not what it should be.

    """
    entries = [Entry(**row, frontier=not any(_beats(other, row) for other in rows)) for row in rows]
    return sorted(entries, key=lambda entry: (entry.layer, entry.identity, entry.l0, entry.fvu, entry.name))


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether `one` is as sparse as `other` and reconstructs as well, and does one of them better."""
    if (one["identity"], one["layer"]) != (other["identity"], other["layer"]):
        return False
    mine, theirs = (one["l0"], one["fvu"]), (other["l0"], other["fvu"])
    return mine != theirs and mine[0] <= theirs[0] and mine[1] <= theirs[1]
