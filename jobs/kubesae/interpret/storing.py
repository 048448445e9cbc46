"""What is stored of a pass: the codes of each unit, and the tables that are made of statistics and codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kubesae.experiment import sha256_hex
from kubesae.features import CodesFile
from kubesae.interpret.contexts import examples_table
from kubesae.interpret.positions import BINS as POSITION_BINS
from kubesae.interpret.positions import count_positions
from kubesae.interpret.samples import samples_table
from kubesae.interpret.statistics import statistics_table
from kubesae.interpret.windows import Windows
from kubesae.ledger import keys

if TYPE_CHECKING:
    import pyarrow as pa

    from kubesae.corpus import TokensManifest
    from kubesae.features import CodeCache, Codes
    from kubesae.interpret.statistics import Statistics
    from kubesae.ledger import Plan
    from kubesae.store import Store


def store_codes(output: Store, sae: str, unit: int, codes: Codes) -> CodesFile:
    """Write the codes of a unit and return what names them.

    Their key holds the hash of their content: who encodes the same on another kind of machine does not write over them.
    """
    content = codes.to_bytes()
    sha256 = sha256_hex(content)
    key = keys.interpretation_code(sae, unit, sha256[:12])
    output.create(key, content)
    return CodesFile(
        key=key, first_row=codes.first_row, rows=len(codes.kept_R), entries=len(codes.row_N), sha256=sha256
    )


def tables_of(
    data: Store, manifest: TokensManifest, plan: Plan, statistics: Statistics, cache: CodeCache, width: int
) -> dict[str, pa.Table]:
    """Return the tables that are stored, by their names.

    Args:
        data: the data store, which holds the tokens.
        manifest: of these tokens.
        plan: the plan of the data.
        statistics: of all rows.
        cache: codes of all rows, in memory file by file.
        width: tokens on each side of a row that is shown.

    """
    examples = examples_table(data, manifest, plan, statistics.top.entries(), width)
    samples = samples_table(data, manifest, plan, statistics, width)
    windows, positions_FP = Windows([examples, samples]), np.zeros((cache.features, POSITION_BINS), np.int64)
    for codes in cache.files():
        windows.fill(codes)
        positions_FP += count_positions(codes, plan)
    examples, samples = windows.tables()
    return {"statistics": statistics_table(statistics, positions_FP), "examples": examples, "samples": samples}
