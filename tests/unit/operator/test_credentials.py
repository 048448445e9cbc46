"""How an experiment's store is reached: by its Secret and its certificate authority, and what is wrong with them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from fake_api import CONFIG_MAPS, SECRETS, Fault
from kubesae.store import S3Settings
from kubesae_operator.api import StoreRef
from kubesae_operator.client import ApiError
from kubesae_operator.credentials import ProblemError, settings_of
from observed import NAMESPACE, experiment

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def put_secret(server, **data):
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    server.put(*SECRETS, {"metadata": {"namespace": NAMESPACE, "name": "s3"}, "data": encoded})


def put_bundle(server, **data):
    server.put(*CONFIG_MAPS, {"metadata": {"namespace": NAMESPACE, "name": "ca"}, "data": data})


def about(**store):
    return experiment(store=StoreRef(**store))


def problem(api, wanted):
    with pytest.raises(ProblemError) as caught:
        settings_of(api, wanted)
    return caught.value.problem


def test_the_settings_are_those_of_the_secret_and_nothing_more_is_asked(server, api):
    put_secret(server, **KEYS, AWS_SESSION_TOKEN="token\n")
    found = settings_of(api, about(secret="s3", endpoint="https://s3.example", region="eu"))
    assert found == S3Settings("https://s3.example", "eu", key="key", secret="secret", token="token")
    assert server.requests == ["GET /api/v1/namespaces/research/secrets/s3"]


def test_without_a_secret_the_operator_goes_as_itself(server, api):
    assert settings_of(api, about(endpoint="https://s3.example")) == S3Settings("https://s3.example")
    assert server.requests == []


def test_a_certificate_authority_becomes_a_file(server, api, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    put_bundle(server, **{"ca.crt": "one", "other": "two"})
    first = settings_of(api, about(ca_config_map="ca"))
    assert Path(first.ca_bundle).read_text() == "one"
    assert settings_of(api, about(ca_config_map="ca")) == first
    second = settings_of(api, about(ca_config_map="ca", ca_key="other"))
    assert Path(second.ca_bundle).read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 2  # nothing half-written stays behind


def test_a_secret_that_is_not_there_is_named_with_what_belongs_into_it(api):
    found = problem(api, about(secret="s3"))
    assert found.reason == "SecretMissing"
    for word in ("no Secret s3 in namespace research", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "existingSecret"):
        assert word in found.message


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        ({}, "no AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "key"}, "no AWS_SECRET_ACCESS_KEY"),
        ({**KEYS, "AWS_ACCESS_KEY_ID": " "}, "no AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_secret_that_lacks_a_key_says_which(server, api, data, missing):
    put_secret(server, **data)
    found = problem(api, about(secret="s3"))
    assert (found.reason, f"Secret s3 in namespace research has {missing}. Add it" in found.message) == (
        "SecretMissing",
        True,
    )


def test_a_secret_that_is_not_encoded_is_as_good_as_empty(server, api):
    server.put(
        *SECRETS, {"metadata": {"namespace": NAMESPACE, "name": "s3"}, "data": dict.fromkeys(KEYS, "not base64")}
    )
    assert problem(api, about(secret="s3")).reason == "SecretMissing"


def test_a_secret_without_any_data_is_told(server, api):
    server.put(*SECRETS, {"metadata": {"namespace": NAMESPACE, "name": "s3"}})
    assert problem(api, about(secret="s3")).reason == "SecretMissing"


@pytest.mark.parametrize(
    ("store", "kind"), [({"secret": "s3"}, "Secret s3"), ({"ca_config_map": "ca"}, "ConfigMap ca")]
)
def test_what_may_not_be_read_says_which_value_opens_it(server, api, store, kind):
    server.next("GET", Fault(status=403))
    found = problem(api, about(**store))
    assert found.reason == "SecretForbidden"
    assert f"may not read {kind} in namespace research" in found.message
    assert "operator.serviceAccount" in found.message


def test_a_certificate_authority_that_is_not_there_or_empty(server, api):
    found = problem(api, about(ca_config_map="ca"))
    assert (found.reason, "no ConfigMap ca" in found.message) == ("SecretMissing", True)
    assert "store.caBundle.configMap" in found.message
    put_bundle(server, other="two")
    found = problem(api, about(ca_config_map="ca"))
    assert found.reason == "StoreSettings"
    assert "ConfigMap ca has no key ca.crt" in found.message


def test_any_other_refusal_is_nobody_s_mistake(server, api):
    server.next("GET", Fault(status=500))
    with pytest.raises(ApiError):
        settings_of(api, about(secret="s3"))
