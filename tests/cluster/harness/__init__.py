"""A real one-node Kubernetes for the tests, on a plain Linux machine; or the one that KUBECONFIG names."""

from harness.errors import CannotRunError, ClusterError
from harness.given import Given
from harness.instance import Instance
from harness.kube import Kube
from harness.local import Local

__all__ = ["CannotRunError", "ClusterError", "Given", "Instance", "Kube", "Local"]
