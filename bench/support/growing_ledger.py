"""A ledger as an experiment leaves it while it is collected: most parts are committed, and each shard goes on.

Only what the operator reads is there: tokens' manifest, identity, pilot's report and the records; no activations.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kubesae.errors import KubesaeError
from kubesae.experiment import DataIdentity, canonical_json, sha256_hex
from kubesae.ledger import (
    LayerRecord,
    Numerics,
    Plan,
    Record,
    VerifyReport,
    keys,
    planned_records,
    record_list_hash,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubesae.experiment import Experiment
    from kubesae.store import Store

D_MODEL = 7168
NUMERICS = Numerics(engine="resident", forward_batch=8, device="fake", threads=8, versions={"torch": "2.15.0"})


class GrowingLedger:
    """The ledger of an experiment, `done` parts of each shard committed, and one more every `interval` seconds.

    `truth` holds the tokens that are committed, with the time before which they were not: (time, tokens), ascending.
    """

    def __init__(self, experiment: Experiment, store: Store, done: int, interval: float) -> None:
        self._experiment, self._store, self._interval = experiment, store, interval
        self._plan = Plan.of(experiment)
        self._manifest = canonical_json({"fake": True})
        self._identity = DataIdentity.of(experiment, sha256_hex(self._manifest), "0" * 40, D_MODEL)
        self._done = [done] * self._plan.num_shards
        self._began = time.time()
        self._stop = threading.Event()
        self._writer = threading.Thread(target=self._grow, name="ledger", daemon=True)
        self.truth = [(self._began, done_tokens(self._plan, done))]
        self._error: KubesaeError | None = None

    def plant(self, folder: Path) -> None:
        """Write what is there already as files into `folder`, where the S3 server keeps the store's objects.

        Records get the times at which they would have been committed.
        """
        fixed = {keys.TOKENS_MANIFEST: self._manifest, keys.IDENTITY: self._identity.to_json()}
        for key, data in {**fixed, keys.verify_report("pilot"): self._pilot().to_json()}.items():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(data)
        for shard, done in enumerate(self._done):
            (folder / keys.record_folder(shard)).mkdir(parents=True)
            for part in range(done):
                path = folder / keys.record(shard, part)
                path.write_bytes(self._record(shard, part).to_json())
                committed = self._due(shard) - (done - part) * self._interval
                os.utime(path, (committed, committed))

    @contextmanager
    def growing(self) -> Iterator[None]:
        """Let it grow meanwhile."""
        self._writer.start()
        try:
            yield
        finally:
            self._stop.set()
            self._writer.join()

    def check(self) -> None:
        """Raise what has kept it from growing."""
        if self._error is not None:
            raise self._error

    def _due(self, shard: int) -> float:
        """Return when the shard commits for the first time after the beginning."""
        return self._began + (shard + 1) * self._interval / self._plan.num_shards

    def _grow(self) -> None:
        number = 0
        while True:
            turn, shard = divmod(number, self._plan.num_shards)
            if self._stop.wait(max(0.0, self._due(shard) + turn * self._interval - time.time())):
                return
            part = self._done[shard]
            record = self._record(shard, part)
            self.truth.append((time.time(), self.truth[-1][1] + record.rows))
            try:
                self._store.create(keys.record(shard, part), record.to_json())
            except KubesaeError as error:
                self._error = error
                return
            self._done[shard] += 1
            number += 1

    def _record(self, shard: int, part: int) -> Record:
        layer, digest = self._experiment.layers[0], sha256_hex(f"{shard} {part}".encode())
        stored = LayerRecord(
            layer=layer,
            key=keys.tar(layer, shard, part, digest[:12]),
            bytes=2 * D_MODEL * self._plan.part(shard, part).rows,
            sha256=digest,
            blocks=tuple(range(0, 1 << 30, 1 << 26)),
            flags=(16, 0, 3),
            moments=keys.moments(layer, shard, part, digest[:12]),
            moments_sha256=digest,
        )
        return Record(
            identity=self._identity.sha256,
            shard=shard,
            part=part,
            rows=self._plan.part(shard, part).rows,
            tokens_sha256=digest,
            layers=(stored,),
            numerics=NUMERICS,
        )

    def _pilot(self) -> VerifyReport:
        records = planned_records(self._plan, "pilot", self._experiment.pilot.tokens)
        return VerifyReport(
            scope="pilot",
            mode="full",
            identity=self._identity.sha256,
            records=len(records),
            records_sha256=record_list_hash(records),
            tokens=self._plan.rows_before(0, len(records)),
            tars=len(records),
            bytes=0,
            tars_read=len(records),
            flagged={},
            orphans=(),
            findings=(),
            finding_count=0,
        )


def done_tokens(plan: Plan, parts: int) -> int:
    """Return the tokens of so many parts of each shard."""
    return sum(plan.rows_before(shard, parts) for shard in range(plan.num_shards))
