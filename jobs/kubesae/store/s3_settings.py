"""Endpoint, region, certificate authority and keys of one S3 store, given by a program and not by its environment.

    open_store("s3://bucket/prefix", settings=S3Settings(endpoint="https://s3.example", key="...", secret="..."))

The operator reads many experiments' buckets in one process, each with its own keys: none may see another's, nor the
operator's. botocore takes settings from a dozen variables and two files; with keys given, all of them are cut off.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class S3Settings:
    """What an AWS client needs to know; an empty field is not given.

    With `key` and `secret` nothing but these settings counts. Without, who we are is this process's business (role,
    web identity, environment), and so is every field that is empty.
    """

    endpoint: str = ""
    region: str = ""
    ca_bundle: str = ""
    key: str = ""
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def of_process(cls) -> S3Settings:
        """Return the settings that leave all to this process's environment, as it is now.

        botocore reads AWS_DEFAULT_REGION only, all other AWS clients AWS_REGION.
        """
        return cls(region=os.environ.get("AWS_REGION", ""), ca_bundle=os.environ.get("AWS_CA_BUNDLE", ""))

    def client_arguments(self) -> dict[str, Any]:
        """Return the arguments of `create_client` for these settings, without the keys."""
        given = {"region_name": self.region, "endpoint_url": self.endpoint, "verify": self.ca_bundle}
        return {name: value for name, value in given.items() if value}

    def config_arguments(self) -> dict[str, Any]:
        """Return the arguments of botocore's `Config`."""
        return {"ignore_configured_endpoint_urls": True} if self.key else {}

    def session_variables(self) -> dict[str, Any] | None:
        """Return the `session_vars` of a botocore session: with keys, of no variable and no file."""
        if not self.key:
            return None
        from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES  # noqa: PLC0415 - takes 100 ms

        cut = {
            name: (option, None, default, convert)
            for name, (option, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
        }
        return cut | dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
