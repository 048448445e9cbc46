"""kubesae: a language model and a corpus -> sparse-autoencoder features that people can read."""

__version__ = "0.1.0"
