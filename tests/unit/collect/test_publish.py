"""Parts are uploaded side by side and committed in order; after a failure nothing more is."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from kubesae.collect import publish
from kubesae.collect.publish import Publisher


class Parts:
    """Stands for all that publishing does to a part: uploads end when they are let go, in any order."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let_go = [threading.Event() for _ in range(count)]
        self.started = [threading.Event() for _ in range(count)]
        self.broken: set[int] = set()
        self.records: list[int] = []
        self.committed: list[int] = []
        monkeypatch.setattr(publish, "finish_part", lambda captured, *_: self.finished(captured.part.index))
        monkeypatch.setattr(publish, "commit", lambda _, record: self.records.append(record))
        self.publisher = Publisher(None, None, lambda _: None, self.committed.append, size=2)
        self.captured = [SimpleNamespace(part=SimpleNamespace(index=i), forward_batch=1) for i in range(count)]

    def finished(self, index: int) -> SimpleNamespace:
        def upload(_: object) -> None:
            self.started[index].set()
            assert self.let_go[index].wait(30)
            if index in self.broken:
                raise OSError("broken")

        return SimpleNamespace(record=index, upload=upload)


def test_uploads_run_side_by_side_and_commits_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(4, monkeypatch)
    for captured in parts.captured:
        parts.publisher.publish(captured)
    assert parts.started[1].wait(30)  # while the first one is still on its way
    parts.let_go[1].set()
    assert not parts.started[2].wait(0.2)  # two parts are in hand, no more
    assert parts.records == []
    for event in parts.let_go:
        event.set()
    parts.publisher.finish()
    assert parts.records == parts.committed == [0, 1, 2, 3]


@pytest.mark.parametrize("first", [0, 1])
def test_after_a_failure_the_parts_before_it_are_committed_and_none_after(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    parts = Parts(4, monkeypatch)
    parts.broken.add(1)
    for captured in parts.captured:
        parts.publisher.publish(captured)
    parts.let_go[first].set()
    for event in parts.let_go:
        event.set()
    with pytest.raises(OSError, match="broken"):
        parts.publisher.finish()
    parts.publisher.stop()
    assert parts.records == [0]


def test_stopping_waits_for_what_is_on_its_way_and_drops_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(4, monkeypatch)
    for captured in parts.captured:
        parts.publisher.publish(captured)
    assert parts.started[0].wait(30)
    assert parts.started[1].wait(30)
    for event in parts.let_go:
        threading.Timer(0.2, event.set).start()
    parts.publisher.stop()
    assert parts.records == [0, 1]
    assert not parts.started[2].is_set()
