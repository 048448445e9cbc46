"""The numbers of an experiment's status, as `kubectl get` and `describe` show them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.ledger import ShardState
    from kubesae_operator.bucket import SaeProgress
    from kubesae_operator.observe import Observed

MOST_ROWS = 32
"""shards of which each has a row"""

MOST_RESUME = 8
"""shards whose next part is named"""


def progress(observed: Observed) -> dict[str, Any]:
    """Return the fields that tell how far an experiment is; without a look at the store, those of the last one."""
    view = observed.view
    if view is None:
        return {name: value for name, value in observed.experiment.status.items() if name in FIELDS}
    found: dict[str, Any] = {}
    if view.collection is not None:
        shards = view.collection.shards
        done = sum(shard.state == "complete" for shard in shards)
        found |= {
            "shards": {"done": done, "total": len(shards)},
            "progress": f"{done}/{len(shards)}",
            "tokens": view.collection.tokens,
            "totalTokens": view.collection.total,
            "percent": f"{percent(view.collection.tokens, view.collection.total)}%",
            "bytes": view.bytes,
        }
        if not view.collection.complete and view.collection.rate:
            found["rate"] = f"{view.collection.rate:,.0f}/s"
            found["eta"] = eta(view.collection.eta or 0.0)
        if len(shards) <= MOST_ROWS:
            found["shardRows"] = [_row(observed, shard) for shard in shards]
    sae = _current(view.saes)
    if sae is not None:
        found["train"] = _train(sae)
    resume = _resume(observed, sae)
    if resume:
        found["resume"] = resume
    return found


FIELDS = frozenset(
    {"shards", "progress", "tokens", "totalTokens", "percent", "rate", "eta", "bytes", "resume", "train", "shardRows"}
)


def percent(part: int, whole: int) -> str:
    """Return a share with one decimal, cut and not rounded: 100.0 means all."""
    thousandths = 1000 * part // whole
    return f"{thousandths // 10}.{thousandths % 10}"


def eta(seconds: float) -> str:
    """Return a time as Kubernetes writes them, to the minute or finer: `45s`, `12m`, `1h20m`, `3d4h`."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole}s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h"


def _row(observed: Observed, shard: ShardState) -> str:
    """Return a shard's row: text, because `kubectl describe` gives each field of an object a line of its own."""
    row = f"{shard.shard}: {shard.tokens:,} tokens, chunk {shard.chunk}"
    if shard.last_commit is not None:
        row += f", committed {shard.last_commit:%Y-%m-%dT%H:%M:%SZ}"
    restarts = [pod.restarts for pod in observed.pods if pod.phase == "collect" and pod.index == shard.shard]
    return f"{row}, restarts {max(restarts)}" if any(restarts) else row


def _current(saes: tuple[SaeProgress, ...]) -> SaeProgress | None:
    """Return the SAE that is being trained, or else the last one that has been."""
    begun = [sae for sae in saes if sae.point is not None]
    training = [sae for sae in begun if not sae.trained]
    return (training or begun)[-1] if begun else None


def _train(sae: SaeProgress) -> dict[str, Any]:
    """Return the training's row. Its numbers are text: the API keeps no more digits than these."""
    point = sae.point
    if point is None:
        return {"sae": sae.name}
    loss, l0 = f"{point.loss:.4g}", f"{point.l0:.1f}"
    return {"sae": sae.name, "step": point.step, "loss": loss, "l0": l0, "summary": f"{loss}/{l0}"}


def _resume(observed: Observed, sae: SaeProgress | None) -> str:
    """Return from where work would go on: the next part of unfinished shards, or the newest checkpoint's step."""
    view = observed.view
    if view is not None and view.collection is not None and not view.collection.complete:
        return _next_parts(tuple(_unfinished(observed)))
    if sae is not None and not sae.trained and sae.step is not None:
        return f"step {sae.step}"
    return ""


def _unfinished(observed: Observed) -> Iterator[str]:
    view = observed.view
    if view is not None and view.collection is not None:
        for shard in view.collection.shards:
            if shard.state != "complete":
                yield f"{shard.shard}:{view.next_parts[shard.shard]}"


def _next_parts(all_of_them: tuple[str, ...]) -> str:
    more = len(all_of_them) - MOST_RESUME
    return " ".join(all_of_them[:MOST_RESUME]) + (f" +{more}" if more > 0 else "")
