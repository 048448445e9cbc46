"""Which rows are shown of each feature beside those of its largest activations: random ones, and some of each decile.

Largest activations show what a feature responds to most, not what it mostly responds to; a rating of explanations needs
both random rows and rows from all along its range. Deciles of activation are estimated from the histogram, and rows of
each come from all samples that were kept, in the order of their hash.

N = rows of interest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from kubesae.interpret.contexts import examples_table
from kubesae.interpret.histogram import quantiles
from kubesae.interpret.kept import Entries, by_hash
from kubesae.interpret.statistics import STRATA

if TYPE_CHECKING:
    import numpy.typing as npt

    from kubesae.corpus import TokensManifest
    from kubesae.interpret.statistics import Statistics
    from kubesae.ledger import Plan
    from kubesae.store import Store

PER_DECILE = 2
KINDS = ("random", "decile")


def samples_table(store: Store, manifest: TokensManifest, plan: Plan, statistics: Statistics, width: int) -> pa.Table:
    """Return sampled rows of every feature with their contexts, by feature and rank.

    Columns as in `contexts.examples_table`, and: kind, `random` (a uniform sample of the rows on which the feature is
    active, in the order of their hash) or, after these, `decile` (at most two rows of each); decile, 0 for the tenth of
    the smallest activations of the feature to 9. A row may be there once of each kind.
    """
    random, every = statistics.sample.entries(), _every(statistics)
    decile_N = np.floor(10 * quantiles(statistics.histogram_FB, every.cell_N, every.value_N)).astype(np.int64)
    order = np.lexsort((by_hash(every.row_N), decile_N, every.cell_N))
    chosen = order[_place(10 * every.cell_N[order] + decile_N[order]) < PER_DECILE]
    feature_N = np.concatenate([random.cell_N, every.cell_N[chosen]])
    value_N = np.concatenate([random.value_N, every.value_N[chosen]])
    row_N = np.concatenate([random.row_N, every.row_N[chosen]])
    kind_N = np.repeat([0, 1], [len(random.cell_N), len(chosen)])
    by_feature = np.argsort(feature_N, kind="stable")
    feature_N, value_N, row_N, kind_N = (x[by_feature] for x in (feature_N, value_N, row_N, kind_N))
    shown = Entries(feature_N, _place(feature_N), value_N, row_N)
    decile_N = np.floor(10 * quantiles(statistics.histogram_FB, feature_N, value_N))
    table = examples_table(store, manifest, plan, shown, width)
    table = table.append_column("kind", pa.array(KINDS, pa.string()).take(pa.array(kind_N)))
    return table.append_column("decile", pa.array(decile_N.astype(np.int8)))


def _every(statistics: Statistics) -> Entries:
    """Every sampled row of each feature once; cells are features."""
    parts = statistics.sample.entries(), statistics.strata.entries()
    feature_N = np.concatenate([parts[0].cell_N, parts[1].cell_N // STRATA])
    value_N, row_N = (np.concatenate([part[i] for part in parts]) for i in (2, 3))
    order = np.lexsort((row_N, feature_N))
    feature_N, value_N, row_N = feature_N[order], value_N[order], row_N[order]
    new = (np.diff(feature_N, prepend=-1) != 0) | (np.diff(row_N, prepend=-1) != 0)
    return Entries(feature_N[new], _place(feature_N[new]), value_N[new], row_N[new])


def _place(group_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Place of each item, from 0, in its group; groups lie together."""
    index_N = np.arange(len(group_N))
    first_N = np.where(np.diff(group_N, prepend=-1) != 0, index_N, 0)
    place: npt.NDArray[np.int64] = index_N - np.maximum.accumulate(first_N)
    return place
