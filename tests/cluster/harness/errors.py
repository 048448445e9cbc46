"""What goes wrong with the cluster, said so that it can be mended."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """The cluster, or a program that talks to it, did not do what was asked."""


class CannotRunError(ClusterError):
    """This machine cannot run the cluster (not root, no Go, no packages): tests are skipped with this reason."""
