"""How far an experiment is, from what lies in its store."""

from kubesae.monitor.console import Row, collection_rows, snapshot_rows
from kubesae.monitor.observe import Snapshot, observe, observe_collection
from kubesae.monitor.shards import Collection, ShardState, shard_states

__all__ = [
    "Collection",
    "Row",
    "ShardState",
    "Snapshot",
    "collection_rows",
    "observe",
    "observe_collection",
    "shard_states",
    "snapshot_rows",
]
