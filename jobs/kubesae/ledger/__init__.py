"""Plan of parts, keys, commit records, progress. No torch: the operator uses it."""

from kubesae.ledger import keys
from kubesae.ledger.damage import LOST_BYTES, Damage, Finding
from kubesae.ledger.orphans import orphans
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
from kubesae.ledger.record import LayerRecord, Numerics, Record, parse_record
from kubesae.ledger.reports import (
    Mode,
    Scope,
    VerifyReport,
    gate_is_open,
    planned_records,
    read_report,
    scope_records,
)
from kubesae.ledger.runs import read_run, write_run

__all__ = [
    "LOST_BYTES",
    "Block",
    "Damage",
    "Finding",
    "LayerRecord",
    "Mode",
    "Numerics",
    "Part",
    "Plan",
    "Record",
    "Scope",
    "ShardProgress",
    "VerifyReport",
    "chunk_edges",
    "chunks_done",
    "committed_parts",
    "contiguous",
    "gate_is_open",
    "keys",
    "orphans",
    "parse_record",
    "planned_records",
    "read_identity",
    "read_record",
    "read_report",
    "read_run",
    "record_list",
    "record_list_hash",
    "require_identity",
    "scope_records",
    "shard_progress",
    "share_of",
    "write_run",
]
