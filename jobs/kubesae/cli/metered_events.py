"""Events of collection that become metrics beside lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.collect import Events

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.cli.metrics import CollectMetrics
    from kubesae.ledger import Record


class MeteredEvents(Events):
    """Tells metrics what it tells the log, and what only they count."""

    def __init__(self, say: Callable[[str], None], chunk: int, metrics: CollectMetrics) -> None:
        """See `Events`."""
        super().__init__(say, chunk)
        self._metrics = metrics

    def start(self, shard: int, rows: int, total: int) -> None:
        """See `Events.start`."""
        super().start(shard, rows, total)
        self._metrics.shard_tokens.labels(str(shard)).set(rows)
        self._metrics.shard_wanted.labels(str(shard)).set(total)

    def committed(self, shard: int, rows: int) -> None:
        """See `Events.committed`."""
        super().committed(shard, rows)
        self._metrics.shard_tokens.labels(str(shard)).set(rows)

    def stored(self, record: Record) -> None:
        """See `Events.stored`."""
        self._metrics.parts.inc()
        self._metrics.tokens.inc(record.rows)
        self._metrics.bytes.inc(sum(layer.bytes for layer in record.layers))

    def waiting(self, parts: int) -> None:
        """See `Events.waiting`."""
        self._metrics.queue.set(parts)


def events(say: Callable[[str], None], chunk: int, metrics: CollectMetrics | None) -> Events:
    """Return what collection is told about, with metrics where there are such."""
    return MeteredEvents(say, chunk, metrics) if metrics else Events(say, chunk)
