"""Interpret: one pass over the activations gives the statistics of every feature, and where it is most active.

    kubesae interpret experiment.yaml --statistics
    kubesae interpret experiment.yaml --index 0 --of 3    # one of three workers, in any order

Blocks are read in plan order, one ahead, and encoded one by one: memory holds two blocks, the codes of a unit (twice
while they are put in order), and the statistics; both are stored (`units`). Whoever finds all units merges them. A
second call with the same data and SAE reads what the first one stored.
Legend: N rows of a slice, D d_model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from kubesae.corpus import TokensManifest, Vocabulary, require_manifest
from kubesae.errors import ConfigError, StoreError
from kubesae.features import CodeCache, CodesBuilder, Source, Stored, read_stored, write_stored
from kubesae.interpret.contexts import examples_table
from kubesae.interpret.kept import Entries
from kubesae.interpret.state import to_bytes
from kubesae.interpret.statistics import Statistics
from kubesae.interpret.storing import store_codes, tables_of
from kubesae.interpret.units import cut, merged, stored_units
from kubesae.interpret.windows import Windows, alone
from kubesae.ledger import Plan, require_identity, share_of
from kubesae.parallel import in_order
from kubesae.sae.named import NamedSae, open_named
from kubesae.shards import BlockRef, read_block, read_index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubesae.experiment import DataIdentity, Interpret
    from kubesae.interpret.units import Unit
    from kubesae.sae import Sae
    from kubesae.shards import BlockData
    from kubesae.store import Store

    Progress = Callable[[int, int], None]

# Rows encoded at a time, counted from the first of a block: a row's bits may depend on which rows it is encoded with,
# so the cut is the same for every worker.
SLICE = 4096


@dataclass(frozen=True)
class Interpreter:
    """Everything that questions about one SAE's features are answered from."""

    data: Store
    output: Store
    identity: DataIdentity
    manifest: TokensManifest
    named: NamedSae
    stored: Stored

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's vocabulary, read from the data."""
        return Vocabulary.read(self.data, self.manifest)

    def examples(self, feature: int, count: int) -> pa.Table:
        """Return the `count` most active rows of one feature; fewer where it is active on fewer.

        More than are stored are found in the sparse-code cache. Columns as in `contexts.examples_table` and
        `windows.Windows`.

        Raises:
            ConfigError: there is no such feature.

        """
        features = self.stored.info.features
        if not 0 <= feature < features:
            raise ConfigError(
                f"SAE {self.named.name} has no feature {feature}: its features are 0 to {features - 1}. Choose one."
            )
        info = self.stored.info
        active = self.stored.statistics["count"][feature].as_py()
        if min(count, active) <= info.source.top_k:
            first, last = np.searchsorted(self.stored.examples["feature"].to_numpy(), [feature, feature + 1])
            return self.stored.examples.slice(first, min(count, last - first))
        row_N, value_N = self.stored.cache(self.output).of(feature)
        best = np.lexsort((row_N, -value_N))[:count]
        entries = Entries(np.zeros(len(best), np.int64), np.arange(len(best)), value_N[best], row_N[best])
        width = info.source.context_tokens
        table = examples_table(self.data, self.manifest, Plan.of(self.identity), entries, width)
        windows = Windows([table])
        windows.fill(alone(row_N, value_N, self.identity.tokens))
        (table,) = windows.tables()
        number = table.schema.get_field_index("feature")
        return table.set_column(number, "feature", pa.array(np.full(len(table), feature, np.int32)))


def interpret(
    data: Store,
    output: Store,
    name: str | None,
    settings: Interpret,
    progress: Progress = lambda _done, _total: None,
) -> Interpreter:
    """Interpret an SAE, or read how it was interpreted.

    Args:
        data: store of tokens and activations.
        output: store of SAEs, to which the interpretation goes.
        name: the SAE; None: the only one there is.
        settings: what to keep of each feature.
        progress: called during the pass with the number of rows read and of all rows.

    Raises:
        ConfigError: there is no data, or no such SAE, or it does not fit the data.
        DamagedError: stored bytes are not what they should be.

    """
    found = interpret_share(data, output, name, settings, 0, 1, progress)
    if found is None:
        raise StoreError(f"Statistics that were written to {output.url} are not there any more. Interpret again.")
    return found


def interpret_share(
    data: Store,
    output: Store,
    name: str | None,
    settings: Interpret,
    index: int,
    of: int,
    progress: Progress = lambda _done, _total: None,
) -> Interpreter | None:
    """Encode what is worker `index`'s of `of`; merge if all is encoded. Other arguments and errors as `interpret`.

    Returns:
        None when others have not done their shares: whoever is last merges.

    """
    identity, manifest = require_identity(data), require_manifest(data)
    plan, named = Plan.of(identity), open_named(output, name, identity)
    refs = read_index(data, identity, named.layer)
    source = _source(identity, named, refs, settings)
    units = cut(refs, plan, source, settings.unit_tokens)
    stored = read_stored(output, source)
    if stored is None:
        _encode(data, output, source, [units[i] for i in share_of(len(units), index, of)], named.sae, progress)
        found = merged(output, units, source, named.sae.config.d_sae)
        if found is None:  # or another worker has merged them
            stored = read_stored(output, source)
        else:
            cache = CodeCache(output, found[1], named.sae.config.d_sae)
            tables = tables_of(data, manifest, plan, found[0], cache, source.context_tokens)
            stored = write_stored(output, source, found[0].rows, found[0].flagged, tables, found[1])
    if stored is None:
        return None
    for key in stored_units(output, source) & {unit.key for unit in units}:
        output.delete(key)
    return Interpreter(data, output, identity, manifest, named, stored)


def _source(identity: DataIdentity, named: NamedSae, refs: Sequence[BlockRef], settings: Interpret) -> Source:
    return Source(
        identity=identity.sha256,
        sae=named.name,
        sae_sha256=named.sha256,
        layer=named.layer,
        rows=sum(ref.rows for ref in refs),
        top_k=settings.top_k,
        samples=settings.samples,
        context_tokens=settings.context_tokens,
    )


def _encode(data: Store, output: Store, source: Source, units: Sequence[Unit], sae: Sae, progress: Progress) -> None:
    """Store the statistics and codes of those units that have none, until the interpretation is there without them."""
    there = stored_units(output, source)
    units = [unit for unit in units if unit.key not in there]
    total, done = sum(unit.rows for unit in units), 0
    for unit in units:
        if read_stored(output, source) is not None:
            return

        def further(rows: int, _of: int, before: int = done) -> None:
            progress(before + rows, total)

        builder = CodesBuilder(unit.first_row, unit.rows, sae.config.d_sae)
        statistics = scan(data, unit.refs, sae, source.top_k, source.samples, codes=builder, progress=further)
        output.create(unit.key, to_bytes(statistics, store_codes(output, source.sae, unit.number, builder.finish())))
        done += unit.rows


def scan(
    data: Store,
    refs: Sequence[BlockRef],
    sae: Sae,
    top_k: int,
    samples: int = 1,
    *,
    codes: CodesBuilder | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Statistics:
    """Encode blocks, return the statistics of all features, and give `codes` their codes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sae = sae.to(device)
    statistics = Statistics.zero(sae.config.d_sae, top_k, samples)
    total, done = sum(ref.rows for ref in refs), 0
    for block in in_order(lambda ref: read_block(data, ref), refs, 1, ahead=1):  # each while one is worked on
        for start in range(0, len(block.flags), SLICE):
            _add_slice(statistics, codes, block, slice(start, start + SLICE), sae, device)
        done += len(block.flags)
        progress(done, total)
    return statistics


def _add_slice(
    statistics: Statistics, codes: CodesBuilder | None, block: BlockData, rows: slice, sae: Sae, device: str
) -> None:
    flags = block.flags[rows]
    kept_N = np.flatnonzero(flags == 0)
    x_ND = block.stored.float32(rows.start + kept_N)
    code = sae.codes(torch.from_numpy(x_ND).to(device))
    row_N, feature_N, value_N = (part.cpu().numpy() for part in (code.rows_N, code.features_N, code.values_N))
    kept_N += block.row + rows.start
    statistics.add(kept_N[row_N], feature_N, value_N, rows=len(kept_N), flagged=len(flags) - len(kept_N))
    if codes is not None:
        codes.add(kept_N, kept_N[row_N], feature_N, value_N)
