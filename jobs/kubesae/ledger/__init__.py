"""Plan of parts, keys, commit records, progress. No torch: the operator uses it."""

from kubesae.ledger import keys
from kubesae.ledger.damage import LOST_BYTES, Damage, Finding
from kubesae.ledger.orphans import orphans
from kubesae.ledger.pace import Collection, Commits, ShardState, shard_states
from kubesae.ledger.phases import (
    PHASES,
    Phase,
    is_collected,
    is_interpreted,
    is_prepared,
    is_trained,
    phase_complete,
    sae_name,
    sae_names,
)
from kubesae.ledger.plan import Block, Part, Plan, chunk_edges, chunks_done, share_of
from kubesae.ledger.progress import (
    ShardProgress,
    committed_parts,
    contiguous,
    read_identity,
    read_record,
    record_list,
    record_list_hash,
    require_identity,
    shard_progress,
)
from kubesae.ledger.record import LayerRecord, Numerics, Record, parse_record, storage_fvu
from kubesae.ledger.reports import (
    Mode,
    Scope,
    VerifyReport,
    gate_is_open,
    opens,
    planned_records,
    read_report,
    scope_records,
)
from kubesae.ledger.runs import read_run, write_run
from kubesae.ledger.training import TrainPoint, checkpoint_steps, last_point, read_best, read_curves

__all__ = [
    "LOST_BYTES",
    "PHASES",
    "Block",
    "Collection",
    "Commits",
    "Damage",
    "Finding",
    "LayerRecord",
    "Mode",
    "Numerics",
    "Part",
    "Phase",
    "Plan",
    "Record",
    "Scope",
    "ShardProgress",
    "ShardState",
    "TrainPoint",
    "VerifyReport",
    "checkpoint_steps",
    "chunk_edges",
    "chunks_done",
    "committed_parts",
    "contiguous",
    "gate_is_open",
    "is_collected",
    "is_interpreted",
    "is_prepared",
    "is_trained",
    "keys",
    "last_point",
    "opens",
    "orphans",
    "parse_record",
    "phase_complete",
    "planned_records",
    "read_best",
    "read_curves",
    "read_identity",
    "read_record",
    "read_report",
    "read_run",
    "record_list",
    "record_list_hash",
    "require_identity",
    "sae_name",
    "sae_names",
    "scope_records",
    "shard_progress",
    "shard_states",
    "share_of",
    "storage_fvu",
    "write_run",
]
