"""The reading of a store on a real server: what is wrong is said, once, so that it can be mended; then it goes on."""

from __future__ import annotations

import base64
import logging

import pytest

from fake_api import SECRETS, Fault
from fake_clock import Clock
from kubesae.errors import Interrupted, StoreError
from kubesae.store import open_store
from kubesae_operator import reading as module
from kubesae_operator.api import StoreRef
from kubesae_operator.bucket import StoreView
from kubesae_operator.reading import LISTS_PER_HOUR, LOOK_SECONDS, QUIET_SECONDS, TELL_SECONDS, WHOLE_SECONDS, Reading
from observed import NAMESPACE, NOW, experiment
from s3_server import free_port
from small_experiment import VALUES


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def reading(api, clock):
    return Reading(api)


def put_secret(server, key, secret):
    data = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    server.put(*SECRETS, {"metadata": {"namespace": NAMESPACE, "name": "s3"}, "data": encoded})


@pytest.fixture
def about(server, s3_server):
    """Give what makes an experiment over a prefix of the server, with its right credentials in a Secret."""
    put_secret(server, s3_server.access, s3_server.secret)

    def make(data, *, endpoint=s3_server.endpoint, secret="s3", **changes):
        store = StoreRef(secret, endpoint, "us-east-1")
        return experiment(description=VALUES | {"data": data} | changes, store=store)

    return make


def look(reading, wanted, clock):
    """Look when the next look is due; return the problem."""
    clock.now += 3600
    reading.read(wanted, busy=True, hurry=False)
    return reading.problem


def test_an_empty_prefix_is_read_without_a_problem(reading, about, s3_server, clock):
    assert look(reading, about(f"{s3_server.new_bucket()}/data"), clock) is None
    assert reading.view.complete == frozenset()


@pytest.mark.parametrize("wrong", ["secret", "key"])
def test_wrong_credentials_are_named_and_once_corrected_used(server, reading, about, s3_server, clock, caplog, wrong):
    wanted = about(f"{s3_server.new_bucket()}/data")
    put_secret(server, s3_server.access if wrong == "secret" else "nobody", "wrong")
    for _ in range(3):
        found = look(reading, wanted, clock)
        assert found.reason == "CredentialsRefused"
        assert found.message.endswith("). Correct Secret s3 in namespace research, or store.endpoint.")
        assert "AWS_" not in found.message  # there is no shell here
    put_secret(server, s3_server.access, s3_server.secret)
    assert look(reading, wanted, clock) is None
    assert reading.view is not None


def test_a_bucket_that_is_not_there_is_named_and_once_made_read(reading, about, s3_server, clock):
    wanted = about("s3://no-such-bucket-yet/data")
    found = look(reading, wanted, clock)
    assert found.reason == "BucketMissing"
    assert "s3://no-such-bucket-yet/data" in found.message
    assert found.message.endswith("Create the bucket, or correct experiment.data or store.endpoint.")
    s3_server.client.create_bucket(Bucket="no-such-bucket-yet")
    assert look(reading, wanted, clock) is None


def test_credentials_that_may_not_read_are_told_what_to_allow(server, reading, about, s3_server, clock):
    url = s3_server.new_bucket()
    s3_server.admin("create-user", "--access", "looker", "--secret", "looker-secret", "--role", "user")
    put_secret(server, "looker", "looker-secret")
    found = look(reading, about(f"{url}/data"), clock)
    assert found.reason == "AccessDenied"
    assert "Allow Secret s3 in namespace research to list and get below that prefix" in found.message


def test_a_server_that_does_not_answer_is_told(reading, about, s3_server, clock, monkeypatch):
    data = f"{s3_server.new_bucket()}/data"
    assert look(reading, about(data), clock) is None
    monkeypatch.setattr(module, "DEADLINE", 0.3)
    found = look(reading, about(data, endpoint=f"http://127.0.0.1:{free_port()}"), clock)
    assert found.reason == "StoreUnreachable"
    assert found.message.endswith("Check the server, store.endpoint, and what NetworkPolicies let the operator reach.")
    assert found.message.count("Check") == 1
    assert reading.view is None  # another store is asked for: what was seen is of no use


@pytest.mark.parametrize("endpoint", ["no url", "ftp://x"])
def test_an_endpoint_that_is_none_is_a_matter_of_settings(reading, about, clock, endpoint):
    found = look(reading, about("s3://bucket/data", endpoint=endpoint), clock)
    assert (found.reason, "store.endpoint" in found.message) == ("StoreSettings", True)


def test_a_folder_cannot_be_seen_from_here(reading, about, clock):
    for changes in ({}, {"output": "/mnt/output"}):
        found = look(reading, about("s3://bucket/data" if changes else "/mnt/data", **changes), clock)
        assert (found.reason, "kubesae release" in found.message) == ("NotInBucket", True)


def test_a_description_that_is_none_names_the_field(reading, about, clock):
    found = look(reading, about("s3://bucket/data", layers="many"), clock)
    assert found.reason == "InvalidExperiment"
    assert "spec.experiment" in found.message
    assert "layers" in found.message
    assert "helm upgrade" in found.message


def test_damage_is_told(reading, about, s3_server, s3_bucket, clock):
    open_store(f"{s3_bucket}/data").put("activations/identity.json", b"{not json")
    found = look(reading, about(f"{s3_bucket}/data"), clock)
    assert (found.reason, "identity.json" in found.message) == ("DataDamaged", True)


def test_a_missing_secret_and_an_api_that_does_not_answer(server, reading, about, s3_server, clock):
    wanted = about(f"{s3_server.new_bucket()}/data", secret="forgotten")
    assert look(reading, wanted, clock).reason == "SecretMissing"
    server.next("secrets", Fault(status=500))
    assert look(reading, wanted, clock).reason == "StoreUnreachable"


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (
            Interrupted("s3://b/p: credentials that worked before are refused since 20 s (Expired). Renew them."),
            "CredentialsRefused",
            "s3://b/p: credentials that worked before are refused since 20 s (Expired). Correct Secret s3 in",
        ),
        (
            StoreError("s3://b/p: the store failed (Odd, HTTP 418: x). Look at the store's own log, then start again."),
            "StoreUnreachable",
            "s3://b/p: the store failed (Odd, HTTP 418: x). Check the server",
        ),
    ],
)
def test_what_a_program_on_a_user_s_machine_would_be_advised_is_left_out(about, error, reason, message):
    found = module._store_problem(error, about("s3://b/p"))
    assert found.reason == reason
    assert found.message.startswith(message)


def test_without_a_secret_it_is_the_operator_s_own_credentials(about, monkeypatch):
    found = module._store_problem(Interrupted("refused. Renew them."), about("s3://b/p", secret=""))
    assert found.message == "refused. Correct the operator's own credentials, or store.endpoint."


def test_a_problem_is_logged_once_and_again_when_it_is_another_or_has_lasted(
    server, reading, about, s3_server, clock, caplog, monkeypatch
):
    wanted = about("s3://no-bucket-to-log/data")
    caplog.set_level(logging.INFO, module.__name__)

    def logged():
        lines = [record.getMessage().split(": ")[1] for record in caplog.records if record.levelno == logging.WARNING]
        caplog.clear()
        return lines

    def after(seconds):
        clock.now += seconds
        reading.read(wanted, busy=True, hurry=False)

    for _ in range(4):
        after(20)
    assert logged() == ["BucketMissing"]
    put_secret(server, s3_server.access, "wrong")
    after(20)
    after(20)
    assert logged() == ["CredentialsRefused"]
    put_secret(server, s3_server.access, s3_server.secret)
    after(20)
    assert logged() == []  # it comes and goes
    after(TELL_SECONDS)
    after(20)
    assert logged() == ["BucketMissing"]
    s3_server.client.create_bucket(Bucket="no-bucket-to-log")
    after(20)
    assert [record.getMessage() for record in caplog.records] == ["research/exp: the store can be read again"]
    caplog.clear()
    after(20)
    s3_server.client.delete_bucket(Bucket="no-bucket-to-log")
    after(TELL_SECONDS / 10)
    assert logged() == ["BucketMissing"]


class Looks:
    """A bucket of which every look takes so many listings."""

    lists = 0
    looks = 0
    forgotten = 0

    def __init__(self, *_):
        type(self).looks = type(self).forgotten = 0

    def look(self):
        type(self).looks += 1
        return StoreView(NOW, lists=self.lists)

    def forget(self):
        type(self).forgotten += 1


@pytest.fixture
def looks(monkeypatch):
    monkeypatch.setattr(module, "Bucket", Looks)
    return Looks


@pytest.mark.parametrize(
    ("lists", "busy", "seconds"),
    [
        (5, True, LOOK_SECONDS),
        (75, True, LOOK_SECONDS),
        (5, False, QUIET_SECONDS),
        (1000, True, 1000 * 3600 / LISTS_PER_HOUR),
    ],
)
def test_a_store_is_asked_no_more_often_than_is_of_use(reading, about, clock, looks, lists, busy, seconds):
    looks.lists = lists
    wanted = about("s3://bucket/data")
    assert reading.read(wanted, busy=busy, hurry=False) == seconds
    began, asked = clock.now, 0
    while clock.now < began + 3600:  # an hour in which something wakes the operator every second
        before = looks.looks
        reading.read(wanted, busy=busy, hurry=False)
        asked += (looks.looks - before) * lists
        clock.now += 1
    assert asked <= 20_000
    assert looks.looks >= 3600 / seconds - 1


def test_what_has_begun_does_not_wait_as_long_as_what_is_quiet(reading, about, clock, looks):
    looks.lists = 5
    wanted = about("s3://bucket/data")
    assert reading.read(wanted, busy=False, hurry=False) == QUIET_SECONDS
    clock.now += LOOK_SECONDS
    reading.read(wanted, busy=True, hurry=False)
    assert looks.looks == 2


def test_what_has_just_ended_is_looked_for_at_once_but_not_all_the_time(reading, about, clock, looks):
    looks.lists = 5
    wanted = about("s3://bucket/data")
    reading.read(wanted, busy=True, hurry=False)
    assert reading.read(wanted, busy=True, hurry=True) == 2.0
    clock.now += 2
    reading.read(wanted, busy=True, hurry=True)
    assert looks.looks == 2


def test_now_and_then_nothing_is_taken_as_known(reading, about, clock, looks):
    looks.lists = 5
    wanted = about("s3://bucket/data")
    for _ in range(int(4 * WHOLE_SECONDS / 60)):
        reading.read(wanted, busy=False, hurry=False)
        clock.now += 60
    assert 3 <= looks.forgotten <= 5


def test_another_description_begins_anew_and_the_same_one_goes_on(reading, about, clock, looks):
    looks.lists = 5
    reading.read(about("s3://bucket/data"), busy=True, hurry=False)
    first = reading._bucket
    clock.now += 20
    reading.read(about("s3://bucket/data"), busy=True, hurry=False)
    assert reading._bucket is first
    reading.read(about("s3://bucket/other"), busy=True, hurry=False)
    assert reading._bucket is not first


def test_after_a_problem_what_was_known_is_kept_unless_the_credentials_are_others(
    server, reading, about, s3_server, clock
):
    wanted = about("s3://comes-and-goes/data")
    s3_server.client.create_bucket(Bucket="comes-and-goes")
    assert look(reading, wanted, clock) is None
    first, seen = reading._bucket, reading.view
    s3_server.client.delete_bucket(Bucket="comes-and-goes")
    assert look(reading, wanted, clock).reason == "BucketMissing"
    assert reading.view is seen
    s3_server.client.create_bucket(Bucket="comes-and-goes")
    assert look(reading, wanted, clock) is None
    assert reading._bucket is first
    put_secret(server, "nobody", "wrong")
    assert look(reading, wanted, clock) is None  # as long as it works the Secret is not read
    s3_server.client.delete_bucket(Bucket="comes-and-goes")
    look(reading, wanted, clock)
    assert look(reading, wanted, clock).reason == "CredentialsRefused"
    assert reading._bucket is not first
