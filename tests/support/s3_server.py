"""A real S3 server (versitygw) on loopback, for tests: with credentials of its own, thrown away with its folder.

    with S3Server.start(folder) as server:
        url = server.new_bucket()

The program is built once, by `tools/build-server versitygw`, from a pinned Go module.
"""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config

from stoppable import Stoppable

BUILD = Path(__file__).parents[2] / "tools" / "build-server"
START_SECONDS = 30.0
REGION = "us-east-1"


@dataclass
class S3Server(Stoppable):
    """A running server."""

    endpoint: str
    access: str
    secret: str
    process: subprocess.Popen[bytes]
    program: str
    certificate: Path | None = None

    @classmethod
    def start(cls, folder: Path, certificate: Path | None = None) -> S3Server:
        """Start a server that keeps everything below `folder`; over TLS, with a certificate (a file with its key)."""
        program = subprocess.run([BUILD, "versitygw"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        for name in ("objects", "metadata", "users"):
            (folder / name).mkdir()
        port = free_port()
        access, secret = f"test{secrets.token_hex(8)}", secrets.token_hex(20)
        command = [
            program,
            "--port",
            f"127.0.0.1:{port}",
            "--region",
            REGION,
            "--health",
            "/health",
            "--quiet",
            "--keep-alive",
        ]
        if certificate:
            command += ["--cert", certificate, "--key", certificate]
        command += ["--iam-cache-disable", "--iam-dir", folder / "users"]
        command += ["posix", "--sidecar", folder / "metadata", folder / "objects"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, "ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        scheme = "https" if certificate else "http"
        server = cls(f"{scheme}://127.0.0.1:{port}", access, secret, process, program, certificate)
        server._wait(folder / "log")
        return server

    def stop(self) -> None:
        """End the server and wait for its end."""
        if "client" in self.__dict__:
            self.client.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def environment(self) -> dict[str, str]:
        """Return the variables by which an AWS client finds this server, and no other credentials."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            **({"AWS_CA_BUNDLE": str(self.certificate)} if self.certificate else {}),
        }

    @cached_property
    def client(self) -> Any:
        """A plain botocore client, another reader and writer than the code under test."""
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access,
            aws_secret_access_key=self.secret,
            region_name=REGION,
            verify=str(self.certificate) if self.certificate else None,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def new_bucket(self) -> str:
        """Make an empty bucket and return its URL."""
        name = f"test-{secrets.token_hex(8)}"
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def admin(self, *arguments: str) -> None:
        """Run one command of the server's administration, such as `create-user`."""
        subprocess.run(
            [self.program, "admin", "--endpoint-url", self.endpoint, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "ADMIN_ACCESS_KEY": self.access, "ADMIN_SECRET_KEY": self.secret},
        )

    def _wait(self, log: Path) -> None:
        trusted = ssl.create_default_context(cafile=self.certificate) if self.certificate else None
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.endpoint}/health", timeout=1, context=trusted):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the S3 server did not start: {log.read_text()[-2000:]}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
