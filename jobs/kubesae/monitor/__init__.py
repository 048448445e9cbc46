"""How far an experiment is, from what lies in its store."""

from kubesae.monitor.console import Row, collection_rows, snapshot_rows
from kubesae.monitor.observe import Snapshot, observe, observe_collection

__all__ = [
    "Row",
    "Snapshot",
    "collection_rows",
    "observe",
    "observe_collection",
    "snapshot_rows",
]
