"""Answers of an S3 service on a bad day: errors in bursts, conflicts, lost and cut answers, expired credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fault_experiment import PARTS, VALUES
from http_faults import Answer
from kubesae.ledger import record_list

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fault_experiment import Scene
    from http_faults import HttpFaults
    from s3_server import S3Server

pytestmark = [pytest.mark.fault, pytest.mark.s3]

USER, INTERRUPTED = 2, 75
DEADLINE = 4.0
SETTINGS = {"collect": VALUES["collect"] | {"deadline": DEADLINE}}
ALWAYS = 1_000_000

COLLECTING = {
    "500 in a burst": Answer(500, "InternalError", times=4),
    "503 in a burst": Answer(503, "SlowDown", times=4),
    "429": Answer(429, "TooManyRequests", times=2),
    "400 RequestTimeout": Answer(400, "RequestTimeout", "PUT", r"\.tar", times=2),
    "409 on a record": Answer(409, "ConditionalRequestConflict", "PUT", "/ledger/", times=2),
    "412 on our own record": Answer(500, "InternalError", "PUT", "/ledger/", times=3, after=True),
    "answer lost after a tar": Answer(503, "ServiceUnavailable", "PUT", r"\.tar", times=3, after=True),
    "403 for a while": Answer(403, "ExpiredToken", times=3),
}
QUICK = {"503 in a burst", "409 on a record", "412 on our own record", "403 for a while"}
STARTING = {
    "cut tokens": Answer(method="GET", key="/tokens/shard-", times=2, truncated=True),
    "cut manifest": Answer(method="GET", key="/tokens/manifest", times=2, truncated=True),
    "cut listing": Answer(method="GET", key="list-type=2", times=2, truncated=True),
    "503 on the first requests": Answer(503, "SlowDown", times=3),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in COLLECTING]
)
def test_answers_amid_a_collection(scene: Callable[..., Scene], s3_prefix: str, service: HttpFaults, kind: str) -> None:
    collect = scene("collect", s3_prefix, **SETTINGS)
    worker = collect.start(pause=0.02)
    worker.until("after record", 2)
    assert worker.passages.count("after record") < PARTS
    answer = COLLECTING[kind]
    service.next(answer)
    assert worker.wait() == 0, worker.output
    assert answer.given == answer.times
    assert "trying again in" in worker.output
    collect.faults.count(f"service: {kind}")
    assert collect.compare() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", STARTING)
def test_answers_at_the_start(scene: Callable[..., Scene], s3_prefix: str, service: HttpFaults, kind: str) -> None:
    collect = scene("collect", s3_prefix, **SETTINGS)
    collect.kill_at("after record", 2)
    answer = STARTING[kind]
    service.next(answer)
    worker = collect.finish()
    assert answer.given == answer.times
    assert "trying again in" in worker.output
    collect.faults.count(f"service: {kind}")
    assert collect.compare() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [Answer(503, "SlowDown", times=5), Answer(500, method="PUT", key="segment-", after=True, times=3)],
    ids=["503", "lost"],
)
def test_answers_amid_prepare(scene: Callable[..., Scene], s3_prefix: str, service: HttpFaults, answer: Answer) -> None:
    prepare = scene("prepare", s3_prefix)
    worker = prepare.start(pause=0.02)
    worker.until_working()
    service.next(answer)
    assert worker.wait() == 0, worker.output
    assert answer.given == answer.times
    prepare.faults.count("service: prepare")
    assert prepare.compare() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        Answer(503, "SlowDown", times=5),
        Answer(method="GET", key=r"\.tar", truncated=True, times=5),
        Answer(500, method="PUT", key="checkpoints", after=True, times=4),
    ],
    ids=["503", "cut tars", "lost"],
)
def test_answers_amid_training(
    scene: Callable[..., Scene], s3_prefix: str, service: HttpFaults, answer: Answer
) -> None:
    train = scene("train", f"{s3_prefix}/out", data=f"{s3_prefix}/in")
    worker = train.start(pause=0.02)
    worker.until("step", 5)
    service.next(answer)
    assert worker.wait() == 0, worker.output
    assert answer.given == answer.times
    train.faults.count("service: train")
    assert train.compare() == []


def test_credentials_refused_at_the_start_are_the_users_mistake(
    scene: Callable[..., Scene], s3_prefix: str, service: HttpFaults
) -> None:
    collect = scene("collect", s3_prefix, **SETTINGS)
    service.next(Answer(403, "ExpiredToken", times=ALWAYS))
    worker = collect.start()
    assert worker.wait() == USER
    assert "the store refuses us (ExpiredToken" in worker.output
    assert "Check AWS_ACCESS_KEY_ID" in worker.output
    assert not worker.passages


def test_credentials_that_stay_expired_end_with_75_and_the_work_goes_on(
    scene: Callable[..., Scene], s3_prefix: str, service: HttpFaults
) -> None:
    collect = scene("collect", s3_prefix, **SETTINGS)
    worker = collect.start(pause=0.02)
    worker.until("after record", 2)
    expired = Answer(403, "ExpiredToken", times=ALWAYS)
    service.next(expired)
    assert worker.wait() == INTERRUPTED, worker.output
    assert f"credentials that worked before are refused since {DEADLINE:g} s (ExpiredToken" in worker.output
    expired.times = 0
    assert 2 <= len(record_list(collect.store)) < PARTS
    collect.faults.count("credentials: expired until the deadline")
    collect.finish()
    assert collect.compare() == []


@pytest.mark.slow
def test_credentials_are_renewed_amid_the_work(
    scene: Callable[..., Scene], s3_server: S3Server, s3_prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server itself refuses the old ones: its users are removed and made."""
    collect = scene("collect", s3_prefix, collect=VALUES["collect"] | {"deadline": 30})
    file = tmp_path / "credentials"

    def use(user: str) -> None:
        s3_server.admin("create-user", "--access", user, "--secret", f"{user}-secret", "--role", "admin")
        file.write_text(f"[default]\naws_access_key_id = {user}\naws_secret_access_key = {user}-secret\n")

    use("fault-1")
    with monkeypatch.context() as here:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            here.delenv(name)
        here.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        worker = collect.start(pause=0.02)
    worker.until("after record", 2)
    s3_server.admin("delete-user", "--access", "fault-1")
    assert worker.passages.count("after record") < PARTS
    done = worker.passages.count("after record")
    worker.until("in forward", worker.passages.count("in forward") + 1)
    use("fault-2")
    assert worker.wait() == 0, worker.output
    assert "InvalidAccessKeyId" in worker.output
    assert worker.passages.count("after record") > done
    collect.faults.count("credentials: renewed amid the work")
    assert collect.compare() == []
