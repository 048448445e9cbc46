"""Train an SAE on collected activations, straight from the tars in the store.

    kubesae train experiment.yaml
    torchrun --nproc_per_node=2 -m kubesae.train experiment.yaml

In order: the data's identity and blocks, the settings (fixed by the SAE's name), the newest checkpoint or a start from a
fixed sample, then epochs (`trainer`), then the report. Started again after a kill it goes on bit for bit; a finished
training is only reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kubesae.errors import ConfigError
from kubesae.ledger import Plan, chunk_edges, keys, read_identity
from kubesae.sae import Normaliser, SaeConfig, initial_weights
from kubesae.shards import read_index
from kubesae.train.advice import advise
from kubesae.train.checkpoint import Checkpoints, Progress, claim_name
from kubesae.train.console import Console, silent
from kubesae.train.distributed import Ranks, join_ranks
from kubesae.train.learner import Learner
from kubesae.train.metrics import MetricsLog
from kubesae.train.reader import BlockSource, Reader
from kubesae.train.report import report_html
from kubesae.train.split import Split, split_blocks
from kubesae.train.stopping import noticing_signals
from kubesae.train.trainer import Limits, Trainer

if TYPE_CHECKING:
    from kubesae.experiment import DataIdentity
    from kubesae.experiment import Sae as Settings
    from kubesae.store import Store
    from kubesae.train.checkpoint import Resumed

# Rows of the first training blocks that the normaliser and the decoder's bias are fitted to.
SAMPLE_ROWS = 32_768
_MEDIAN_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training ended with.

    Attributes:
        name: of the SAE.
        best: key of the folder of the best checkpoint.
        metrics: of the best epoch, on validation rows.
        report: key of report.html.
        advice: what the numbers say, a sentence each.

    """

    name: str
    best: str
    metrics: dict[str, Any]
    report: str
    advice: list[str]


def run_training(
    data: Store,
    output: Store,
    settings: Settings,
    *,
    chunk: int,
    console: Console,
    workers: int = 2,
    device: str = "auto",
    limits: Limits | None = None,
) -> TrainResult:
    """Train one SAE; see the module's docstring.

    Args:
        data: store of tokens and activations.
        output: store of SAEs.
        settings: the SAE and how it is trained.
        chunk: rows of a chunk, for the line that counts them.
        console: where lines and progress bars go (those of the first rank).
        workers: blocks read at the same time.
        device: "auto" or a torch device.
        limits: when checkpoints are written.

    Raises:
        ConfigError: there is no such data, the settings contradict each other or it, or training diverged.
        IdentityError: the SAE's name has other settings or other data.
        Interrupted: a signal came.

    """
    with join_ranks(device) as ranks, noticing_signals() as stop, torch.no_grad():
        if not ranks.first:
            console = Console(silent)
        identity = require_identity(data)
        settings = complete(settings, identity)
        refs = read_index(data, identity, settings.layer)
        split = split_blocks(refs, identity.sha256, settings.validation, settings.max_tokens)
        name = settings.name
        if ranks.first:
            claim_name(output, name, config_document(settings, identity))
        _announce(console, Plan.of(identity), chunk, split, settings)
        source = BlockSource(data, identity.storage, identity.d_model, workers)
        checkpoints = Checkpoints(output, name)
        try:
            trainer = _prepare(ranks, settings, identity, split, source, checkpoints, output)
            trainer.console, trainer.stop, trainer.limits = console, stop, limits or Limits()
            trainer.run()
        finally:
            source.close()
        return _finish(trainer, output, settings, console)
