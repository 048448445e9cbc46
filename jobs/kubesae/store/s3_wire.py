"""The short way to and from a bucket: one request between the server and memory that the caller owns.

The general client passes a body through an event loop in pieces and copies each more than once, which halves the rate
on one machine. Here botocore finds endpoint, region and credentials and signs, `http.client` speaks HTTP, and the
caller's own thread receives into the caller's buffer and sends from it: a transfer takes no memory worth naming.

Every wait gives up at a time `end` (of `time.monotonic`), however little arrived meanwhile, and on a silent peer after
a minute. What the short way cannot do is left to the general client: there is no `Wire` behind a proxy, and an answer
that sends us to another place raises ElsewhereError.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.httpsession import get_cert_path
from botocore.parsers import create_parser
from botocore.utils import get_environ_proxies

from kubesae.store.s3_failures import Kind, S3Failure
from kubesae.store.s3_line import Line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.client import HTTPResponse

    from kubesae.store.s3_settings import S3Settings

EXPECT_BYTES = 1 << 20
MAX_IDLE = 16
PARTIAL_CONTENT = 206

_REDIRECTS = range(300, 400)
_OTHER_REGION = frozenset({"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"})


class ElsewhereError(Exception):
    """The bucket lies in another region or behind a redirect, where only the general client follows."""


def open_wire(bucket: str, settings: S3Settings) -> Wire | None:
    """Return the wire of a bucket; None: a proxy stands before it.

    Raises:
        BotoCoreError, ValueError: the settings make no client.

    """
    session = botocore.session.Session(settings.session_variables())
    if settings.key:
        session.set_credentials(settings.key, settings.secret, settings.token or None)
    # The newer signature also tells the bucket's address as the general client uses it, by host or by path.
    config = Config(signature_version="s3v4", **settings.config_arguments())
    client = session.create_client("s3", config=config, **settings.client_arguments())
    url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}))
    base = f"{url.scheme}://{url.netloc}{url.path.removesuffix('/k')}"
    region = client.meta.region_name
    client.close()
    if get_environ_proxies(base).get(url.scheme):
        return None
    authorities = get_cert_path(settings.ca_bundle or session.get_config_variable("ca_bundle") or True)
    context = ssl.create_default_context(cafile=authorities) if url.scheme == "https" else None
    return Wire(session.get_credentials(), base, region, context)


class Wire:
    """GET and PUT in one bucket, and listings of it. Thread-safe; not to be used after a fork.

    All raise ClientError (the server's refusal), ElsewhereError, and OSError or HTTPException where the connection
    failed or nothing came of it by the time `end`.
    """

    def __init__(self, credentials: Any, base: str, region: str, context: ssl.SSLContext | None) -> None:
        """`base` is the bucket's URL; `credentials` are botocore's, which renew themselves where they can."""
        if credentials is None:
            raise NoCredentialsError
        self.opened = time.monotonic()
        self._credentials = credentials
        self._base = base
        self._region = region
        self._context = context
        self._parser = create_parser("rest-xml")
        self._idle: deque[Line] = deque()

    def get(self, key: str, headers: Mapping[str, str], end: float) -> bytes:
        """Return the body of a GetObject request."""
        with self._exchange("GET", _quoted(key), headers, None, end) as answer:
            return answer.read()

    def get_into(self, key: str, headers: Mapping[str, str], view: memoryview, end: float) -> int:
        """Write the body of a GetObject request, at most `view` long, to `view`; return its length."""
        with self._exchange("GET", _quoted(key), headers, None, end) as answer:
            size, filled = int(answer.headers["Content-Length"]), 0
            while filled < size:
                count = answer.readinto(view[filled:size])
                if not count:
                    raise ConnectionError(f"the answer ended after {filled} of {size} bytes")
                filled += count
            return filled

    def put(self, key: str, headers: Mapping[str, str], view: memoryview, digest: str | None, end: float) -> None:
        """Write an object in one PutObject request.

        `digest` is the SHA-256 of its bytes in hex, taken here if None: the server refuses bytes that have another.
        """
        headers = {**headers, "Content-Length": str(len(view))}
        if len(view) >= EXPECT_BYTES:
            headers["Expect"] = "100-continue"  # a refusal then comes before the body is sent, and not instead of it
        with self._exchange("PUT", _quoted(key), headers, view, end, digest) as answer:
            answer.read()

    def list(self, query: Mapping[str, str], end: float) -> bytes:
        """Return the body of a ListObjectsV2 request."""
        encoded = urlencode(query, quote_via=quote, safe="~")
        with self._exchange("GET", f"?{encoded}", {}, None, end, operation="ListObjectsV2") as answer:
            return answer.read()

    @contextmanager
    def _exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: memoryview | None,
        end: float,
        digest: str | None = None,
        operation: str | None = None,
    ) -> Iterator[HTTPResponse]:
        """Send a request and give the answer, whose body is to be read to its end. `target` is quoted."""
        request = AWSRequest(method, f"{self._base}/{target}", headers=headers)
        request.context["digest"] = digest or hashlib.sha256(body or b"").hexdigest()
        _Signer(self._credentials.get_frozen_credentials(), "s3", self._region).add_auth(request)
        line = self._line(end)
        try:
            url = urlsplit(request.url)._replace(scheme="", netloc="").geturl()
            answer = line.exchange(method, url, dict(request.headers.items()), body)
            if answer.status >= _REDIRECTS.start:
                raise self._refusal(operation or f"{method.title()}Object", answer)
            if "Range" in headers and answer.status != PARTIAL_CONTENT:
                raise S3Failure(Kind.OTHER, "the server ignored the byte range of a request")
            yield answer
        except BaseException:
            line.hang_up()
            raise
        if answer.will_close or len(self._idle) >= MAX_IDLE:
            line.hang_up()
        else:
            answer.close()
            self._idle.append(line)

    def _refusal(self, operation: str, answer: HTTPResponse) -> Exception:
        seen = {"status_code": answer.status, "headers": answer.headers, "body": answer.read()}
        parsed: dict[str, Any] = self._parser.parse(seen, None)
        if answer.status in _REDIRECTS or parsed["Error"].get("Code") in _OTHER_REGION:
            return ElsewhereError(f"HTTP {answer.status}, region {answer.headers.get('x-amz-bucket-region')}")
        refusal: Exception = ClientError(parsed, operation)
        return refusal

    def _line(self, end: float) -> Line:
        """Return a connection that is still open, or a new one."""
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                return self._connect(end)
            if line.is_quiet():
                line.end = end
                return line
            line.hang_up()

    def _connect(self, end: float) -> Line:
        try:
            return Line(self._base, self._context, end)
        except (ssl.SSLError, TimeoutError):  # they say by themselves what is wrong
            raise
        except OSError as error:
            url = urlsplit(self._base)
            raise ConnectionError(f"Could not connect to {url.scheme}://{url.netloc} ({error})") from error


def _quoted(key: str) -> str:
    return quote(key, safe="/~")


class _Signer(S3SigV4Auth):  # type: ignore[misc]
    """Signs with a digest of the body that is known already."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["digest"])
