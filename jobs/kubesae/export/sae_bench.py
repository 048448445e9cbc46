"""The result of SAEBench's core evaluation (PyPI: sae-bench 0.6.0), as its `CoreEvalOutput` validates it.

    <sae>_eval_results.json

Its schema has no place for "not measured"; SAEBench itself writes -1 there, and so do we:
`eval_result_unstructured` lists these fields. Taken from `evaluation.json`, where SAEBench's formula is ours: KL and
cross-entropy (against ablation to zero), explained variance (1 - FVU, over all rows at once), cosine, relative bias,
L0, the shares of features that are alive, and that are active on over a tenth of the rows. From the interpretation
where there is one, over all unflagged rows: L1, the share of features above a hundredth, and their weights. From the
answers: the mean largest cosine of decoder rows. Not ours: the mean of each row's ratio of norms (we have the ratio of
the mean norms), the mean squared error, encoders.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.experiment import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from kubesae.export.subject import Subject
    from kubesae.export.target import Target

NOT_MEASURED = -1.0
_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of URLs, RFC 9562


def write(subject: Subject, target: Target) -> None:
    """Write the result. Raises ConfigError when the SAE has not been evaluated."""
    target.put(f"{subject.named.name}_eval_results.json", canonical_json(result(subject)) + b"\n")


def loading(url: str) -> str:
    """Return the line that opens it."""
    return (
        "from glob import glob; from pydantic import TypeAdapter; "
        "from sae_bench.evals.core.eval_output import CoreEvalOutput; "
        f'result = TypeAdapter(CoreEvalOutput).validate_json(open(glob("{url}/*_eval_results.json")[0]).read())'
    )


def result(subject: Subject) -> dict[str, Any]:
    """Return the result."""
    evaluation, config = subject.evaluation, subject.named.sae.config
    found = _metrics(subject, evaluation)
    metrics = {
        group: {name: NOT_MEASURED if value is None else value for name, value in values.items()}
        for group, values in found.items()
    }
    made_from = f"{subject.named.sha256}/{canonical_json(evaluation).decode()}"
    return {
        "eval_type_id": "core",
        "eval_config": _config(subject, evaluation),
        "eval_id": str(uuid.uuid5(_NAMESPACE, made_from)),
        "datetime_epoch_millis": 0,
        "eval_result_metrics": metrics,
        "eval_result_details": [],
        "sae_bench_commit_hash": "evaluated by kubesae, not by SAEBench",
        "sae_lens_id": subject.named.name,
        "sae_lens_release_id": None,
        "sae_lens_version": None,
        "sae_cfg_dict": {
            "architecture": config.architecture,
            "d_in": config.d_model,
            "d_sae": config.d_sae,
            "k": config.k,
            "hook_name": subject.hook,
            "hook_layer": subject.named.layer,
            "model_name": subject.identity.model,
            "context_size": subject.identity.context,
            "dtype": "float32",
        },
        "eval_result_unstructured": {
            "kubesae": subject.provenance(),
            "evaluation": evaluation,
            "not_measured": sorted(
                f"{group}.{name}" for group, values in found.items() for name, value in values.items() if value is None
            ),
        },
    }


def _config(subject: Subject, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return SAEBench's settings, as far as they have a meaning here."""
    loss = evaluation["cross_entropy"] is not None
    return {
        "model_name": subject.identity.model,
        "llm_dtype": subject.identity.model_dtype,
        "batch_size_prompts": 1,
        "n_eval_reconstruction_batches": evaluation["cross_entropy"]["contexts"] if loss else 0,
        "n_eval_sparsity_variance_batches": evaluation["blocks"],
        "dataset": subject.corpora,
        "context_size": subject.identity.context,
        "compute_kl": loss,
        "compute_ce_loss": loss,
        "compute_l2_norms": True,
        "compute_sparsity_metrics": True,
        "compute_variance_metrics": True,
        "compute_featurewise_density_statistics": subject.optional_stored is not None,
        "compute_featurewise_weight_based_metrics": subject.answers is not None,
        "exclude_special_tokens_from_reconstruction": True,
        "verbose": False,
    }


def _metrics(subject: Subject, evaluation: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the metrics by category; None: not measured."""
    loss: dict[str, Any] = evaluation["cross_entropy"] or {}
    shrinkage = evaluation["shrinkage"]
    features = Frequencies.of(subject)
    return {
        "model_behavior_preservation": {
            "kl_div_score": loss.get("kl_recovered_zero"),
            "kl_div_with_ablation": loss.get("kl_zero_ablated"),
            "kl_div_with_sae": loss.get("kl_spliced"),
        },
        "model_performance_preservation": {
            "ce_loss_score": loss.get("recovered_zero"),
            "ce_loss_with_ablation": loss.get("zero_ablated"),
            "ce_loss_with_sae": loss.get("spliced"),
            "ce_loss_without_sae": loss.get("clean"),
        },
        "reconstruction_quality": {
            "explained_variance": 1 - evaluation["fvu"],
            "explained_variance_legacy": None,
            "mse": None,
            "cossim": shrinkage["cosine"],
        },
        "shrinkage": {
            "l2_norm_in": None,
            "l2_norm_out": None,
            "l2_ratio": None,
            "relative_reconstruction_bias": shrinkage["gamma"],
        },
        "sparsity": {"l0": evaluation["l0"], "l1": features.l1()},
        "token_stats": {
            "total_tokens_eval_reconstruction": loss.get("predictions", 0),
            "total_tokens_eval_sparsity_variance": evaluation["rows"],
        },
        "misc_metrics": {
            "freq_over_1_percent": features.share_above(0.01),
            "freq_over_10_percent": evaluation["density"]["dense_share"],
            "normalized_freq_over_1_percent": features.weight_above(0.01),
            "normalized_freq_over_10_percent": features.weight_above(0.1),
            "average_max_encoder_cosine_sim": None,
            "average_max_decoder_cosine_sim": _decoder_cosine(subject),
            "frac_alive": 1 - evaluation["inactive_share"],
        },
    }


class Frequencies:
    """How often features are active, and how much, by the interpretation; nothing is known where there is none."""

    def __init__(self, share_F: npt.NDArray[np.float64] | None, mean_F: npt.NDArray[np.float64] | None) -> None:
        """Share of the rows on which each is active, and mean activation over all rows."""
        self._share_F, self._mean_F = share_F, mean_F

    @classmethod
    def of(cls, subject: Subject) -> Frequencies:
        """Return those of an SAE."""
        if subject.optional_stored is None:
            return cls(None, None)
        statistics = subject.optional_stored.statistics
        return cls(statistics["frequency"].to_numpy(), statistics["mean"].to_numpy())

    def l1(self) -> float | None:
        """Return the mean over rows of the sum of activations."""
        return None if self._mean_F is None else float(self._mean_F.sum())

    def share_above(self, share: float) -> float | None:
        """Return the share of features that are active on more than this share of the rows."""
        return None if self._share_F is None else float((self._share_F > share).mean())

    def weight_above(self, share: float) -> float | None:
        """Return their share of all activations, counted; 0 where there are none."""
        if self._share_F is None:
            return None
        return float(self._share_F[self._share_F > share].sum() / (self._share_F.sum() or 1))


def _decoder_cosine(subject: Subject) -> float | None:
    """Return the mean over features of the cosine with the nearest decoder row."""
    if subject.answers is None:
        return None
    nearest = list(_first(subject.answers.neighbours["cosines"].to_pylist()))
    return float(np.mean(nearest)) if nearest else None


def _first(lists: list[list[float]]) -> Iterator[float]:
    return (values[0] for values in lists if values)
