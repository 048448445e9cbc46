"""One replica leads: taken when it is free, over when its holder is gone, given back at the end, and never two."""

from __future__ import annotations

import contextlib
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fake_api import LEASES, Fault
from fake_clock import Clock
from kubesae_operator import election as module
from kubesae_operator.client import ApiError, Unanswered
from kubesae_operator.election import LEAD_SECONDS, LEASE_SECONDS, RENEW_SECONDS, Election


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def lease(server):
    return server.get(*LEASES, "system", "kubesae-operator")["spec"]


def replica(server, name, elected=lambda: None):
    return Election(server.client(), "system", name, elected)


def test_the_first_makes_the_lease_and_the_second_waits(server, clock):
    one, two = replica(server, "one"), replica(server, "two")
    one._take()
    two._take()
    assert (one.leads, two.leads) == (True, False)
    assert lease(server)["holderIdentity"] == "one"
    assert lease(server)["leaseDurationSeconds"] == LEASE_SECONDS
    assert lease(server)["leaseTransitions"] == 0


def test_a_renewal_moves_the_renewal_time_alone(server, clock):
    one = replica(server, "one")
    one._take()
    before = lease(server)
    clock.now += RENEW_SECONDS
    one._take()
    after = lease(server)
    assert after.pop("renewTime") > before.pop("renewTime")
    assert after == before


def test_a_leader_that_cannot_renew_leads_no_longer_before_another_may(server, clock):
    one, two = replica(server, "one"), replica(server, "two")
    one._take()
    two._take()
    server.next("GET .*leases", Fault(status=500), Fault(drop=True))
    for error in (ApiError, Unanswered):
        clock.now += LEAD_SECONDS / 2
        with pytest.raises(error):
            one._take()
    assert not one.leads
    clock.now += LEASE_SECONDS - LEAD_SECONDS
    two._take()
    assert not two.leads
    clock.now += 0.1
    two._take()
    assert two.leads
    assert lease(server)["holderIdentity"] == "two"
    assert lease(server)["leaseTransitions"] == 1
    one._take()
    assert not one.leads


def test_a_holder_whose_clock_is_wrong_is_believed_by_its_renewals(server, clock):
    two = replica(server, "two")
    held = {"holderIdentity": "one", "leaseDurationSeconds": 30, "renewTime": "1999-01-01T00:00:00.000000Z"}
    server.put(*LEASES, {"metadata": {"namespace": "system", "name": "kubesae-operator"}, "spec": held})
    for _ in range(10):
        two._take()
        assert not two.leads
        clock.now += 20
        server.put(*LEASES, {"metadata": {"namespace": "system", "name": "kubesae-operator"}, "spec": held})


def test_of_two_that_take_a_free_lease_together_one_gets_it(server, clock):
    one, two = replica(server, "one"), replica(server, "two")
    one._take()
    clock.now += 1
    one._release()
    read = two._api.get
    two._api.get = lambda path, **query: (read(path, **query), one._take())[0]  # one is faster
    two._take()
    assert (one.leads, two.leads) == (True, False)


def test_of_two_that_make_the_lease_together_one_gets_it(server, clock):
    one, two = replica(server, "one"), replica(server, "two")
    make = two._api.post
    two._api.post = lambda path, body: (one._take(), make(path, body))[1]
    two._take()
    assert (one.leads, two.leads) == (True, False)


def test_an_orderly_end_gives_the_lease_back_at_once(server, clock):
    one, two = replica(server, "one"), replica(server, "two")
    one._take()
    one._release()
    assert not one.leads
    assert lease(server)["holderIdentity"] == ""
    two._take()
    assert two.leads


def test_at_its_end_a_replica_gives_nothing_back_that_is_anothers(server, clock):
    one, two = replica(server, "one"), replica(server, "two")
    one._take()
    two._release()
    assert lease(server)["holderIdentity"] == "one"
    clock.now += LEAD_SECONDS + 1
    two._take()
    clock.now += LEASE_SECONDS + 1
    two._take()
    one._release()
    assert lease(server)["holderIdentity"] == "two"


def test_a_lease_that_a_person_gave_to_another_is_left_to_it(server, clock):
    one = replica(server, "one")
    one._take()
    given = server.get(*LEASES, "system", "kubesae-operator")
    server.put(*LEASES, {**given, "spec": {**given["spec"], "holderIdentity": "two"}})
    one._release()
    assert lease(server)["holderIdentity"] == "two"


def test_an_end_without_an_answer_is_an_end(server, clock):
    one = replica(server, "one")
    one._take()
    server.stop()
    one._release()
    assert not one.leads


def test_each_time_that_it_begins_to_lead_is_told(server, clock):
    told = []
    one = replica(server, "one", lambda: told.append(clock.now))
    for _ in range(3):
        one._take()
        clock.now += RENEW_SECONDS
    assert len(told) == 1
    clock.now += LEAD_SECONDS
    one._take()
    assert len(told) == 2


def test_a_renewal_that_comes_too_late_is_told_as_a_new_beginning(server, clock):
    # Between the lapse and the renewal the workers have dropped what they were given.
    told = []
    one = replica(server, "one", lambda: told.append(clock.now))
    one._take()
    clock.now += 10
    write = one._api.put

    def slow(path, body):
        clock.now += 12
        assert not one.leads
        return write(path, body)

    one._api.put = slow
    one._take()
    assert one.leads
    assert len(told) == 2


def test_a_lease_that_is_too_old_when_its_answer_comes_is_no_lead(server, clock):
    told = []
    one = replica(server, "one", lambda: told.append(clock.now))
    make = one._api.post

    def slow(path, body):
        clock.now += LEAD_SECONDS
        return make(path, body)

    one._api.post = slow
    one._take()
    assert not one.leads
    assert told == []


def test_while_it_runs_it_leads_and_at_its_stop_it_does_not(server, until):
    elected = threading.Event()
    one = replica(server, "one", elected.set)
    stop = threading.Event()
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    assert elected.wait(10)
    assert one.leads
    stop.set()
    thread.join(2)
    assert not thread.is_alive()
    assert lease(server)["holderIdentity"] == ""


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=403), Fault(drop=True)], ids=str)
def test_a_failure_ends_no_candidacy(server, monkeypatch, fault):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    server.next("leases", fault, fault)
    elected, stop = threading.Event(), threading.Event()
    one = replica(server, "one", elected.set)
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    assert elected.wait(10)
    stop.set()
    thread.join(10)


def test_what_nobody_thought_of_ends_no_candidacy_either(server, monkeypatch, caplog):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    elected, stop = threading.Event(), threading.Event()
    one = replica(server, "one", elected.set)
    read, failures = one._api.get, [ValueError("no token any more")]
    one._api.get = lambda path: (_ for _ in ()).throw(failures.pop()) if failures else read(path)
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    assert elected.wait(10)
    stop.set()
    thread.join(10)
    assert "no token any more" in caplog.text


class LeaseApi:
    """One lease in memory. The next requests fail as `faults` say: before they are carried out, or after."""

    def __init__(self):
        self.lease = None
        self.version = 0
        self.faults = []
        self.before = self.after = lambda: None

    def get(self, _path):
        self.fail("before")
        if self.lease is None:
            raise ApiError(404, "no lease")
        return {**self.lease, "metadata": {"resourceVersion": str(self.version)}}

    def post(self, _path, body):
        self.write(body, lambda: self.lease is None)

    def put(self, _path, body):
        self.write(body, lambda: self.lease and body["metadata"]["resourceVersion"] == str(self.version))

    def write(self, body, allowed):
        before, after = self.before, self.after
        self.before = self.after = lambda: None
        before()
        self.fail("before")
        if not allowed():
            raise ApiError(409, "conflict")
        self.lease, self.version = body, self.version + 1
        after()
        self.fail("after")

    def fail(self, when):
        if self.faults and self.faults[0] == when:
            raise Unanswered(self.faults.pop())


class Elections(RuleBasedStateMachine):
    """Three replicas, each at its own pace, with requests that fail, are slow, or whose answer is lost."""

    numbers = st.integers(0, 2)

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.original, module.time = module.time, self.clock
        self.api = LeaseApi()
        self.replicas = [Election(self.api, "system", name, lambda: None) for name in ("a", "b", "c")]

    def teardown(self):
        module.time = self.original

    @rule(seconds=st.sampled_from([1.0, 5.0, 10.0, 19.9, 30.1]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(number=numbers, fault=st.sampled_from(["", "before", "after"]))
    def turn(self, number, fault):
        self.api.faults = [fault] if fault else []
        with contextlib.suppress(ApiError, Unanswered):
            self.replicas[number]._take()
        self.api.faults = []

    @rule(number=numbers, other=numbers, seconds=st.sampled_from([1.0, 15.0, 25.0]), late=st.booleans())
    def slow_turn(self, number, other, seconds, late):
        """Another one's turn, and time, before what this one writes arrives, or before it hears that it did."""

        def meanwhile():
            if other != number:
                self.replicas[other]._take()
            self.clock.now += seconds

        self.api.before, self.api.after = (lambda: None, meanwhile) if late else (meanwhile, lambda: None)
        self.replicas[number]._take()
        self.api.before = self.api.after = lambda: None

    @rule(number=numbers)
    def end(self, number):
        self.replicas[number]._release()

    @invariant()
    def one_leads_at_most(self):
        assert sum(replica.leads for replica in self.replicas) <= 1


TestElections = Elections.TestCase
TestElections.settings = settings(stateful_step_count=30, max_examples=40)
TestElections.settings = settings(stateful_step_count=40)
