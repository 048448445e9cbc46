"""A language model behind an OpenAI-compatible endpoint: messages in, text out; tried again where that can help.

    endpoint = Endpoint("http://127.0.0.1:8000/v1", "some-model", key=os.environ.get("OPENAI_API_KEY"))
    text = endpoint.complete([{"role": "user", "content": "Hello"}], 100)

The key goes into a header and nowhere else: not into a message of an error, and not into the store.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from kubesae.errors import AccessError, ConfigError, KubesaeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from email.message import Message

    Messages = Sequence[dict[str, str]]

T = TypeVar("T")

KEY = "OPENAI_API_KEY"
ATTEMPTS = 5
LONGEST_PAUSE = 60.0
_FIRST_PAUSE = 1.0
_SHOWN = 200
_AGAIN = frozenset({408, 409, 425, 429})
_REFUSED = frozenset({401, 403})


class _RetryError(Exception):
    """What went wrong and may not the next time; `after`: seconds that the endpoint asks to wait."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Endpoint:
    """Where a model is asked.

    Attributes:
        url: base URL as OpenAI's clients take it, with `/v1` at its end where the server has that.
        model: its name there.
        key: sent as a bearer token; None or empty: none is sent.
        timeout: seconds that one answer may take.
        pause: waits for so many seconds.

    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    pause: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        """Raise ConfigError where this is no URL, or no key."""
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ConfigError(f"--endpoint {self.url!r} is no URL. Give one as http://127.0.0.1:8000/v1.")
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise ConfigError(f"{KEY} has characters that no key has, a line's end for one. Set it again.")

    def complete(self, messages: Messages, most_tokens: int) -> str:
        """Return what the model answers, at temperature 0.

        Raises:
            AccessError: the endpoint refuses the key.
            ConfigError: it refuses the request, for its model's name, say.
            KubesaeError: it fails, or gives no answer, ATTEMPTS times.

        """
        body = {"model": self.model, "messages": list(messages), "max_tokens": most_tokens, "temperature": 0}
        return self._often(lambda: self._text_of(self._post(json.dumps(body).encode())))

    def _often(self, attempt: Callable[[], T]) -> T:
        pause = _FIRST_PAUSE
        for number in range(1, ATTEMPTS + 1):
            try:
                return attempt()
            except _RetryError as error:
                if number == ATTEMPTS:
                    raise KubesaeError(
                        f"The endpoint {self.url} failed {ATTEMPTS} times, at last: {error}. See that it runs, and "
                        "start again: features that are done are kept."
                    ) from error
                self.pause(min(pause if error.after is None else error.after, LONGEST_PAUSE))
                pause *= 2
        raise AssertionError

    def _post(self, body: bytes) -> bytes:
        request = urllib.request.Request(  # noqa: S310 - http or https, see __post_init__
            f"{self.url.rstrip('/')}/chat/completions", body, {"Content-Type": "application/json"}
        )
        if self.key:
            request.add_unredirected_header(
                "Authorization", f"Bearer {self.key}"
            )  # another host has no business with it
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:  # noqa: S310
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError as error:
            said = self._said(error)
            if error.code in _REFUSED:
                raise AccessError(
                    f"The endpoint {self.url} refuses us (HTTP {error.code}: {said}). Set {KEY} to a key that it takes."
                ) from error
            if error.code < 500 and error.code not in _AGAIN:
                raise ConfigError(
                    f"The endpoint {self.url} does not take a request for model {self.model!r} (HTTP {error.code}: "
                    f"{said}). Check --endpoint and --model."
                ) from error
            raise _RetryError(f"HTTP {error.code}: {said}", _retry_after(error.headers)) from error
        except (OSError, http.client.HTTPException) as error:  # timeouts and connections that break
            reason = getattr(error, "reason", None) or error
            raise _RetryError(f"no answer ({str(reason) or type(reason).__name__})") from error

    def _said(self, error: urllib.error.HTTPError) -> str:
        """Return what came with an error, as far as it came."""
        try:
            return self._shown(error.read())
        except (OSError, http.client.HTTPException):
            return "no text"

    def _shown(self, data: bytes) -> str:
        """Return the beginning of what the endpoint said, on one line, without the key should it repeat it."""
        text = " ".join(data.decode(errors="replace").split())
        return (text.replace(self.key, "***") if self.key else text)[:_SHOWN] or "no text"

    def _text_of(self, data: bytes) -> str:
        try:
            document: Any = json.loads(data)
            text = document["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise _RetryError(f"an answer that is no chat completion ({self._shown(data)!r})") from error
        return text if isinstance(text, str) else ""  # null: the model said nothing


def _retry_after(headers: Message) -> float | None:
    """Return the seconds of the header Retry-After; None where it is not there, or a date."""
    try:
        return max(0.0, float(headers["Retry-After"]))
    except (TypeError, ValueError):
        return None
