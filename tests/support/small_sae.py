"""A ReLU SAE over the small synthetic experiment, not trained: its features are random directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.experiment import canonical_json
from kubesae.ledger import keys
from kubesae.sae import Normaliser, SaeConfig, Weights, save_sae
from small_experiment import D_MODEL

if TYPE_CHECKING:
    from kubesae.sae import Sae
    from kubesae.store import Store

D_SAE = 24
DEAD = 5


def write_sae(
    store: Store, name: str = "small", *, layer: int = 4, seed: int = 0, d_model: int = D_MODEL, scale: float = 1
) -> None:
    """Write an SAE with D_SAE features, of which number DEAD never activates, and the pointer to it.

    `scale`: how many times larger its activations are.
    """
    generator = torch.Generator().manual_seed(seed)
    directions_FD = torch.nn.functional.normalize(torch.randn(D_SAE, d_model, generator=generator))
    bias_F = torch.full((D_SAE,), -1.0)
    bias_F[DEAD] = -1e6
    weights = Weights(scale * directions_FD, scale * bias_F, directions_FD.clone(), torch.full((d_model,), 0.5))
    config = SaeConfig(architecture="relu", d_model=d_model, d_sae=D_SAE, k=None)
    folder = keys.checkpoint_folder(name, 10)
    save_sae(store, folder, config, weights, Normaliser(torch.zeros(d_model), 1.0), {"layer": layer})
    pointer = {"checkpoint": folder.removeprefix(keys.sae_folder(name)).rstrip("/")}
    store.put(keys.best(name), canonical_json(pointer))


def dense_codes(sae: Sae, x: torch.Tensor) -> torch.Tensor:
    """Return feature activations by the formula, float64."""
    weights = [tensor.double() for tensor in sae.weights]
    return ((x.double() - weights[3]) @ weights[0].T + weights[1]).relu()
