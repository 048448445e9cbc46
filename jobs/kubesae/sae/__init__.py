"""Sparse autoencoders: architectures, numerics, metrics, files. Needs torch.

from kubesae.sae import load_sae
reconstruction, features = load_sae("out/sae/layer-012-topk-4608")(acts)
"""

from kubesae.sae.config import SaeConfig
from kubesae.sae.files import load_sae, load_sae_from, save_sae
from kubesae.sae.inference import Sae
from kubesae.sae.kernels import Code
from kubesae.sae.metrics import Covariance, Sums
from kubesae.sae.normalise import Normaliser, fold
from kubesae.sae.weights import Weights, initial_weights

__all__ = [
    "Code",
    "Covariance",
    "Normaliser",
    "Sae",
    "SaeConfig",
    "Sums",
    "Weights",
    "fold",
    "initial_weights",
    "load_sae",
    "load_sae_from",
    "save_sae",
]
