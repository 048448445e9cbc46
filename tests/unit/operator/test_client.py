"""Requests to the API: their form, and what a refusal, a silence and half an answer become."""

from __future__ import annotations

import re

import pytest

from fake_api import Fault
from kubesae_operator import client
from kubesae_operator.client import ApiError, Unanswered

JOBS = "/apis/batch/v1/namespaces/a/jobs"
JOB = {"metadata": {"namespace": "a", "name": "j"}, "spec": {"suspend": True, "parallelism": 2}}


def test_an_object_is_made_read_changed_and_replaced(server, api):
    assert api.post(JOBS, JOB)["spec"] == JOB["spec"]
    assert api.merge(f"{JOBS}/j", {"spec": {"suspend": False}})["spec"] == {"suspend": False, "parallelism": 2}
    whole = api.get(f"{JOBS}/j")
    assert api.put(f"{JOBS}/j", {**whole, "spec": {}})["spec"] == {}
    assert [item["metadata"]["name"] for item in api.get(JOBS, limit="5")["items"]] == ["j"]


def test_every_write_names_the_field_manager_and_an_apply_takes_the_fields(server, api):
    api.post(JOBS, JOB)
    api.merge(f"{JOBS}/j", {})
    api.apply(f"{JOBS}/j", {})
    assert [request.partition("?")[2] for request in server.requests] == [
        "fieldManager=kubesae-operator",
        "fieldManager=kubesae-operator",
        "fieldManager=kubesae-operator&force=true",
    ]


def test_the_token_goes_along(server):
    seen = []
    api = server.client()
    api._client.configuration.api_key["authorization"] = "Bearer s3cret"
    handler = server.RequestHandlerClass
    original = handler._serve
    try:
        handler.do_GET = lambda self: (seen.append(self.headers["Authorization"]), original(self))
        api.get(JOBS)
    finally:
        handler.do_GET = original
    assert seen == ["Bearer s3cret"]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 422, 429, 500, 503])
def test_a_refusal_says_what_the_server_says_and_is_not_repeated(server, api, status):
    server.next("GET", Fault(status=status))
    with pytest.raises(ApiError, match=f"HTTP {status}: as the test says") as caught:
        api.get(JOBS)
    assert (caught.value.status, caught.value.message) == (status, "as the test says")
    assert len(server.requests) == 1


def test_a_refusal_of_somebody_in_between_is_quoted(server, api):
    with pytest.raises(ApiError, match="HTTP 501"):
        api._json("DELETE", JOBS, {})


def test_a_closed_connection_is_told_and_the_next_request_works(server, api):
    server.next("GET", Fault(drop=True))
    with pytest.raises(Unanswered, match=re.escape(f"GET {JOBS}: ")):
        api.get(JOBS)
    assert api.get(JOBS)["items"] == []


def test_nobody_there_is_told_at_once(server, api):
    server.stop()
    with pytest.raises(Unanswered, match=r"refused|reset"):
        api.get(JOBS)


def test_silence_ends_after_the_time_that_an_answer_may_take(server, api, monkeypatch):
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.1)
    server.next("GET", Fault(stall=True))
    with pytest.raises(Unanswered, match="timed out"):
        api.get(JOBS, watch="1", resourceVersion="1")


def test_half_an_answer_is_none(server, api):
    server.next("GET", Fault(cut=True))
    with pytest.raises(Unanswered):
        api.get(JOBS, watch="1", resourceVersion="1")


@pytest.mark.parametrize(
    ("environment", "used"),
    [
        ({}, "kubeconfig"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "in cluster"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBECONFIG": "config"}, "kubeconfig"),
    ],
)
def test_in_a_pod_the_service_account_is_used_unless_a_kubeconfig_is_named(environment, used, monkeypatch):
    asked = []
    for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(client, "load_incluster_config", lambda **_: asked.append("in cluster"))
    monkeypatch.setattr(client, "load_kube_config", lambda **_: asked.append("kubeconfig"))
    client.Api.connect()
    assert asked == [used]
