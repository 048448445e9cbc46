"""Answers about every feature once it was counted, from its codes and weights: no second read of the activations."""
