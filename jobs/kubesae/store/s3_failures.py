"""What went wrong in an S3 call: whether to try again, and what to tell the user.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html ; servers of other makers use the same.
"""

from __future__ import annotations

import re
import ssl
from enum import Enum, auto
from http.client import HTTPException

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    EndpointResolutionError,
    InvalidRegionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)

from kubesae.errors import AccessError, KubesaeError, StoreError


class Kind(Enum):
    """What a failure means."""

    TRANSIENT = auto()  # try again
    CREDENTIALS = auto()  # who we are is not accepted: a mistake at the start, an expiry later
    REFUSED = auto()  # we may not do this
    SETTINGS = auto()  # the AWS settings make no client
    NO_BUCKET = auto()
    MISSING = auto()  # no such object
    EXISTS = auto()  # there is an object already, or it is another one than expected
    BEYOND = auto()  # the range begins behind the object's end
    UPLOAD_GONE = auto()  # the multi-part upload was ended by somebody
    OTHER = auto()


_KINDS = {
    Kind.CREDENTIALS: "InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken InvalidToken TokenRefreshRequired "
    "RequestTimeTooSkewed InvalidClientTokenId UnrecognizedClientException",
    Kind.REFUSED: "AccessDenied AllAccessDisabled AccountProblem InvalidObjectState NotSignedUp PermanentRedirect "
    "AuthorizationHeaderMalformed IllegalLocationConstraintException InvalidBucketName MethodNotAllowed",
    Kind.NO_BUCKET: "NoSuchBucket",
    Kind.OTHER: "NotImplemented",  # with status 501, which is no fault that passes
    Kind.MISSING: "NoSuchKey",
    Kind.EXISTS: "PreconditionFailed",
    Kind.BEYOND: "InvalidRange",
    Kind.UPLOAD_GONE: "NoSuchUpload",
    Kind.TRANSIENT: "SlowDown RequestTimeout Throttling ThrottlingException RequestThrottled TooManyRequests "
    "RequestLimitExceeded InternalError ServiceUnavailable OperationAborted ConditionalRequestConflict "
    "IncompleteBody BadDigest XAmzContentSHA256Mismatch",
}
_KIND_OF_CODE = {code: kind for kind, codes in _KINDS.items() for code in codes.split()}
_KIND_OF_STATUS = {
    401: Kind.CREDENTIALS,
    403: Kind.REFUSED,
    404: Kind.MISSING,
    408: Kind.TRANSIENT,
    409: Kind.TRANSIENT,
    412: Kind.EXISTS,
    416: Kind.BEYOND,
    429: Kind.TRANSIENT,
}
_FIRST_SERVER_FAULT = 500
_KINDS_OF_ERRORS = {
    Kind.CREDENTIALS: (NoCredentialsError, PartialCredentialsError),
    Kind.SETTINGS: (ProfileNotFound, InvalidRegionError, ConfigNotFound, ConfigParseError, EndpointResolutionError),
}

# of a URL in a message: it tells a reader nothing
_QUERY = re.compile(r"\?[^\s\"]*")

_ADVICE = {
    Kind.CREDENTIALS: "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN (or AWS_PROFILE), the "
    "endpoint they belong to (AWS_ENDPOINT_URL), and this machine's clock.",
    Kind.REFUSED: "Grant these credentials list, get, put and delete below this prefix, and check the bucket's region "
    "(AWS_REGION) and the endpoint (AWS_ENDPOINT_URL).",
    Kind.SETTINGS: "Check AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE, AWS_CA_BUNDLE and the AWS configuration file.",
    Kind.NO_BUCKET: "Create the bucket, or correct its name or the endpoint (AWS_ENDPOINT_URL).",
}
_WHAT = {
    Kind.CREDENTIALS: "the store refuses us",
    Kind.REFUSED: "the store refuses us",
    Kind.SETTINGS: "the AWS settings cannot be used",
    Kind.NO_BUCKET: "there is no such bucket",
}


class S3Failure(Exception):  # noqa: N818 - what it is depends on its kind; it never leaves this package
    """A failed S3 call. `text` is the server's or the client's own explanation."""

    def __init__(self, kind: Kind, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.kind = kind
        self.text = text

    def for_user(self, url: str) -> KubesaeError:
        """Return the error that a program sees."""
        advice = _ADVICE.get(self.kind)
        if advice is None:
            return StoreError(f"{url}: the store failed ({self.text}). Look at the store's own log, then start again.")
        return AccessError(f"{url}: {_WHAT[self.kind]} ({self.text}). {advice}", self.kind.name)


def failure_of(error: Exception) -> S3Failure | None:
    """Return what `error` means, or None if it comes from no store but from a bug."""
    if isinstance(error, S3Failure):
        return error
    # s3fs raises OSErrors of its own that carry the client's error.
    original = error.__cause__ if isinstance(error.__cause__, ClientError) else error
    if isinstance(original, ClientError):
        return _failure_of_answer(original)
    for kind, types in _KINDS_OF_ERRORS.items():
        if isinstance(error, types):
            return S3Failure(kind, str(error))
    if isinstance(error, (SSLError, ssl.SSLError)) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return S3Failure(Kind.SETTINGS, f"{error}; AWS_CA_BUNDLE names the file with the authority's certificate")
    if isinstance(error, (BotoCoreError, aiohttp.ClientError, HTTPException, OSError)):
        silent = isinstance(error, TimeoutError) or not str(error)
        text = f"{type(error).__name__}: {_QUERY.sub('', str(error))}"
        return S3Failure(Kind.TRANSIENT, "no answer in time" if silent else text)
    return None


def _failure_of_answer(error: ClientError) -> S3Failure:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = error.response.get("Error", {}).get("Message", "")
    kind = _KIND_OF_CODE.get(code) or _KIND_OF_STATUS.get(status)
    if kind is None:
        kind = Kind.TRANSIENT if status >= _FIRST_SERVER_FAULT else Kind.OTHER
    return S3Failure(kind, f"{code}, HTTP {status}: {message}")
