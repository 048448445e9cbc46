"""The queue of what is to be looked at: nothing twice at once, nothing forgotten, failures less and less often."""

from __future__ import annotations

import threading
import time

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fake_clock import Clock
from kubesae_operator import queue as module
from kubesae_operator.queue import WorkQueue

A, B = ("ns", "a"), ("ns", "b")


def test_what_is_named_twice_is_looked_at_once():
    queue = WorkQueue()
    queue.add(A)
    queue.add(A)
    queue.add(B)
    assert {queue.take(), queue.take()} == {A, B}
    assert not queue._due


def test_the_earlier_time_counts():
    queue = WorkQueue()
    queue.add(A, 60.0)
    queue.add(A)
    queue.add(A, 60.0)
    assert queue.take() == A


def test_nothing_is_due_before_its_time():
    queue = WorkQueue()
    began = time.monotonic()
    queue.add(A, 0.2)
    assert queue.take() == A
    assert time.monotonic() - began >= 0.2


def test_a_key_is_worked_on_by_one_at_a_time_and_again_if_it_was_named_meanwhile():
    queue = WorkQueue()
    queue.add(A)
    assert queue.take() == A
    queue.add(A)
    taken = []
    other = threading.Thread(target=lambda: taken.append(queue.take()))
    other.start()
    other.join(0.1)
    assert taken == []
    queue.done(A)
    other.join(10)
    assert taken == [A]


def test_failures_wait_longer_and_longer_until_one_works():
    queue = WorkQueue()
    assert [queue.failed(A) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert queue.failed(B) == 1
    queue.done(A)
    assert queue.failed(A) == 1


def test_after_a_failure_a_change_is_looked_at_at_once():
    queue = WorkQueue()
    queue.add(A)
    queue.take()
    queue.failed(A)
    queue.add(A)
    assert queue.take() == A


def test_closing_ends_every_wait():
    queue = WorkQueue()
    ends = []
    threads = [threading.Thread(target=lambda: ends.append(queue.take())) for _ in range(4)]
    for thread in threads:
        thread.start()
    queue.close()
    for thread in threads:
        thread.join(10)
    assert ends == [None] * 4
    queue.add(A)
    assert queue.take() is None


def test_many_workers_lose_nothing_and_share_nothing():
    queue, busy, seen, lock = WorkQueue(), set(), dict.fromkeys(range(20), 0), threading.Lock()
    clashes = []

    def work():
        while key := queue.take():
            with lock:
                clashes.extend({key} & busy)
                busy.add(key)
            seen[int(key[1])] += 1
            with lock:
                busy.remove(key)
            queue.done(key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        for number in range(20):
            queue.add(("ns", str(number)))
        time.sleep(0.001)
    last = dict(seen)
    for number in range(20):
        queue.add(("ns", str(number)))
    end = time.monotonic() + 20
    while any(seen[number] == last[number] for number in seen) and time.monotonic() < end:
        time.sleep(0.005)
    queue.close()
    for thread in threads:
        thread.join(10)
    assert all(seen[number] > last[number] for number in seen)
    assert not clashes


class QueueMachine(RuleBasedStateMachine):
    """The queue against the plainest model of it, on a clock of our own."""

    keys = st.sampled_from([A, B, ("ns", "c")])

    def __init__(self):
        super().__init__()
        self.clock = Clock(0.0)
        self.original, module.time = module.time, self.clock
        self.queue = WorkQueue()
        self.due = {}
        self.taken = set()
        self.failures = {}

    def teardown(self):
        module.time = self.original

    @rule(key=keys, delay=st.sampled_from([0.0, 0.5, 5.0]))
    def add(self, key, delay):
        self.queue.add(key, delay)
        self.due[key] = min(self.clock.now + delay, self.due.get(key, float("inf")))

    @rule(seconds=st.sampled_from([0.25, 1.0, 61.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    def ready(self):
        return sorted((due, key) for key, due in self.due.items() if key not in self.taken and due <= self.clock.now)

    @precondition(ready)
    @rule()
    def take(self):
        _, key = self.ready()[0]
        assert self.queue.take() == key
        del self.due[key]
        self.taken.add(key)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), works=st.booleans())
    def finish(self, data, works):
        key = data.draw(st.sampled_from(sorted(self.taken)))
        self.taken.remove(key)
        if works:
            self.queue.done(key)
            self.failures[key] = 0
            return
        self.failures[key] = self.failures.get(key, 0) + 1
        pause = min(2.0 ** (self.failures[key] - 1), 60.0)
        assert self.queue.failed(key) == pause
        self.due[key] = min(self.clock.now + pause, self.due.get(key, float("inf")))

    @invariant()
    def knows_what_the_model_knows(self):
        assert self.queue._due == self.due
        assert self.queue._taken == self.taken


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(stateful_step_count=25, max_examples=30)
