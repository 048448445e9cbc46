"""A watch has what the server has, through everything that a server, a proxy and a network do to it."""

from __future__ import annotations

import threading
import time

import pytest

from fake_api import JOBS, Fault
from kubesae_operator import watch as module
from kubesae_operator.watch import Watch

PATH = "/apis/batch/v1/jobs"
WATCHED = r"GET .*/jobs\?.*watch=1"
LISTED = r"GET .*/jobs\?.*limit="


class Followed:
    """A watch in a thread, and what it has told."""

    def __init__(self, server, path=PATH, query=None):
        self.server = server
        self.told = []
        self.watch = Watch(server.client(), path, query or {}, self.project, lambda *pair: self.told.append(pair))
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch.run, args=(self.stop,), daemon=True)

    def project(self, item):
        return item["metadata"]["name"], item["spec"]["n"]

    @property
    def seen(self):
        return dict(sorted(self.watch.objects.values()))

    def end(self):
        self.stop.set()
        self.server.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def followed(server, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(module, "ABSENT_SECONDS", 0.05)
    followed = Followed(server)
    followed.thread.start()
    yield followed
    followed.end()


def job(name, n=0, namespace="a", **meta):
    return {"metadata": {"namespace": namespace, "name": name, **meta}, "spec": {"n": n}}


def test_what_is_there_is_listed_in_pages_and_then_followed(server, monkeypatch, until):
    monkeypatch.setattr(module, "PAGE", 2)
    label = {"kubesae.dev/experiment": "exp"}
    for number in range(5):
        server.put(*JOBS, job(f"j{number}", number, labels=label))
    server.put(*JOBS, job("foreign"))
    followed = Followed(server, query={"labelSelector": "kubesae.dev/experiment"})
    followed.thread.start()
    until(lambda: followed.watch.synced)
    assert followed.seen == {f"j{number}": number for number in range(5)}
    assert server.count(LISTED) == 3
    server.put(*JOBS, job("j0", 7, labels=label))
    server.put(*JOBS, job("new", 8, namespace="b", labels=label))
    server.delete(*JOBS, "a", "j1")
    until(lambda: followed.seen == {"j0": 7, "j2": 2, "j3": 3, "j4": 4, "new": 8})
    assert followed.told[5:] == [(("j0", 0), ("j0", 7)), (None, ("new", 8)), (("j1", 1), None)]
    assert server.count(LISTED) == 3
    assert all("labelSelector=kubesae.dev/experiment" in request for request in server.requests)
    followed.end()


def test_of_one_namespace_nothing_else_is_seen(server, until):
    server.put(*JOBS, job("mine"))
    server.put(*JOBS, job("theirs", namespace="b"))
    followed = Followed(server, "/apis/batch/v1/namespaces/a/jobs")
    followed.thread.start()
    until(lambda: followed.watch.synced)
    assert followed.seen == {"mine": 0}
    followed.end()


@pytest.mark.parametrize("fault", [Fault(gone=True), Fault(status=410)], ids=["in the answer", "as the answer"])
def test_a_version_that_the_server_has_forgotten_means_listing_anew(server, followed, until, caplog, fault):
    server.put(*JOBS, job("kept"))
    server.put(*JOBS, job("lost"))
    until(lambda: server.watchers and len(followed.seen) == 2)
    server.next(WATCHED, fault, fault)  # the new list may be too old at once
    with server.changed:
        del server.objects[JOBS, "a", "lost"]  # nobody tells of it
        server.put(*JOBS, job("new", 1))
        server.forget()
        server.end_watches()
    until(lambda: server.count(LISTED) == 3 and server.watchers)
    assert followed.seen == {"kept": 0, "new": 1}
    assert (("lost", 0), None) in followed.told
    assert "HTTP 410" not in caplog.text  # nothing is wrong


def test_a_list_whose_pages_are_too_old_is_begun_anew(server, monkeypatch, until):
    monkeypatch.setattr(module, "PAGE", 1)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    server.put(*JOBS, job("a"))
    server.put(*JOBS, job("b"))
    server.next("continue=1", Fault(status=410))
    followed = Followed(server)
    followed.thread.start()
    until(lambda: followed.watch.synced)
    assert followed.seen == {"a": 0, "b": 0}
    assert server.count(LISTED) == 4
    followed.end()


@pytest.mark.parametrize("fault", [Fault(cut=True), Fault(drop=True)], ids=["in a line", "before it"])
def test_an_answer_that_is_cut_off_is_asked_for_again_from_where_it_was(server, followed, until, fault):
    server.put(*JOBS, job("a"))
    until(lambda: server.watchers and followed.seen)
    server.next(WATCHED, fault, fault)
    server.end_watches()
    until(lambda: not server._faults)
    server.put(*JOBS, job("b", 1))
    until(lambda: followed.seen == {"a": 0, "b": 1})
    assert server.count(LISTED) == 1
    assert len(followed.told) == 2


@pytest.mark.parametrize(
    "fault", [Fault(garbage=True), Fault(status=500), Fault(status=403), Fault(status=429)], ids=str
)
def test_after_nonsense_or_a_refusal_everything_is_listed_again(server, followed, until, fault):
    server.put(*JOBS, job("a"))
    until(lambda: server.watchers and followed.seen)
    server.next(WATCHED, fault)
    server.next(LISTED, Fault(status=500), Fault(drop=True))
    server.end_watches()
    until(lambda: server.count(LISTED) == 4)
    server.put(*JOBS, job("b", 1))
    until(lambda: followed.seen == {"a": 0, "b": 1})
    assert len(followed.told) == 2  # what has not changed is not told again


def test_an_answer_that_falls_silent_is_given_up(server, followed, until, monkeypatch):
    server.put(*JOBS, job("a"))
    until(lambda: server.watchers and followed.seen)
    monkeypatch.setattr(module, "SILENCE", 0.2)
    server.next(WATCHED, Fault(stall=True))
    server.end_watches()
    until(lambda: not server._faults)
    heard = followed.watch.heard
    server.put(*JOBS, job("b", 1))
    until(lambda: followed.seen == {"a": 0, "b": 1})
    assert server.count(LISTED) == 1
    assert followed.watch.heard > heard


def test_only_words_of_the_server_count_as_heard(server, followed, until):
    until(lambda: server.watchers)
    heard = followed.watch.heard
    server.next(WATCHED, *[Fault(drop=True)] * 3)
    server.end_watches()
    until(lambda: not server._faults)
    assert followed.watch.heard == heard
    server.bookmark()
    until(lambda: followed.watch.heard > heard)


def test_a_bookmark_moves_the_place_to_go_on_from(server, followed, until):
    until(lambda: server.watchers)
    server.bookmark()
    version = server.version
    until(lambda: followed.watch._version == str(version))
    server.end_watches()
    until(lambda: server.count(f"watch=1.*resourceVersion={version}$"))
    assert followed.told == []


def test_a_server_that_ends_every_answer_at_once_is_not_asked_without_a_pause(server, followed, until):
    until(lambda: server.watchers)
    server.next(WATCHED, *[Fault(empty=True)] * 1000)
    server.end_watches()
    time.sleep(0.5)
    assert 2 < server.count(WATCHED) < 50  # pauses of 5 to 50 ms
    server._faults.clear()
    server.put(*JOBS, job("a"))
    until(lambda: followed.seen == {"a": 0})


def test_a_kind_that_the_cluster_does_not_know_has_no_objects_until_it_appears(server, monkeypatch, until):
    monkeypatch.setattr(module, "ABSENT_SECONDS", 0.05)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    server.kinds.remove(JOBS)
    followed = Followed(server)
    followed.thread.start()
    until(lambda: followed.watch.absent)
    assert followed.watch.synced
    assert followed.seen == {}
    heard = followed.watch.heard
    until(lambda: followed.watch.heard > heard)  # asked again, and alive
    server.kinds.add(JOBS)
    server.put(*JOBS, job("a"))
    until(lambda: followed.seen == {"a": 0})
    assert not followed.watch.absent
    until(lambda: server.watchers == 1)
    server.kinds.remove(JOBS)
    server.end_watches()
    until(lambda: followed.seen == {})
    assert followed.told == [(None, ("a", 0)), (("a", 0), None)]
    followed.end()


def test_an_object_that_makes_no_sense_hides_no_other(server, followed, until, caplog):
    server.put(*JOBS, job("a"))
    until(lambda: followed.seen == {"a": 0})
    server.put(*JOBS, {"metadata": {"namespace": "a", "name": "odd"}, "spec": {}})
    server.put(*JOBS, job("b", 1))
    until(lambda: followed.seen == {"a": 0, "b": 1})
    server.forget()
    server.end_watches()
    until(lambda: server.count(LISTED) == 2)
    server.put(*JOBS, job("odd", 2))
    until(lambda: followed.seen == {"a": 0, "b": 1, "odd": 2})
    assert "a/odd" in caplog.text


def test_no_pause_is_longer_than_the_longest_and_a_success_makes_it_short_again(server, monkeypatch, until):
    pauses = []
    monkeypatch.setattr(module.random, "uniform", lambda low, high: pauses.append((low, high)) or 0.0)
    server.next(WATCHED, *[Fault(drop=True)] * 9)
    followed = Followed(server)
    followed.thread.start()
    until(lambda: not server._faults)
    until(lambda: server.count(WATCHED) == 10)
    assert [high for _, high in pauses] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert all(low == high / 2 for low, high in pauses)
    server.put(*JOBS, job("a"))
    until(lambda: followed.seen)
    server.end_watches()
    until(lambda: len(pauses) == 10)
    assert pauses[-1][1] == 0.5
    followed.end()
