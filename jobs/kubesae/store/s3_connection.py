"""S3 clients, and calls on them that end: each has a total deadline, within which what is transient is retried.

There are two: the general one, s3fs on fsspec's event loop, for all requests; and beside it, for reads and for writes
in one request, a wire (see `s3_wire`), which the calling thread uses itself.

An established connection can stay silent for hours without any time-out of the HTTP client firing, so the deadline is
the event loop's, over the whole call, and one attempt may use a third of it at most.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import s3fs
from fsspec.asyn import get_loop

from kubesae.errors import Interrupted, StoreError
from kubesae.store.s3_failures import Kind, S3Failure, failure_of
from kubesae.store.s3_settings import S3Settings
from kubesae.store.s3_wire import ElsewhereError, Wire, open_wire
from kubesae.store.tally import TALLY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
MAX_CONNECTIONS = 64
ATTEMPTS_PER_DEADLINE = 3
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 15.0
REFRESH_INTERVAL = 5.0


class S3Connection:
    """A client made on first use, one for each process: fsspec's clients do not survive a fork."""

    def __init__(self, settings: S3Settings | None = None) -> None:
        """Connect to nothing yet. `settings` None: those of this process, as they are on first use."""
        self._settings = settings
        self._clients: dict[int, s3fs.S3FileSystem] = {}
        self._wires: dict[tuple[int, str], Wire | None] = {}
        self._refreshed = 0.0
        self.has_worked = False

    def run(self, url: str, deadline: float, operation: Callable[[S3Call], Awaitable[T]]) -> T:
        """Run `operation` on the client's event loop, from any thread, and return what it returns.

        Raises:
            S3Failure: trying again does not help.
            StoreError: nothing helped until the deadline.
            Interrupted: the same, because credentials that worked before are refused now.

        """
        call = S3Call(self, url, deadline)
        future = asyncio.run_coroutine_threadsafe(call.run(operation), get_loop())
        try:
            return future.result()
        except BaseException:  # a signal in this thread ends the call as well
            future.cancel()
            raise

    def transfer(
        self,
        url: str,
        deadline: float,
        bucket: str,
        short: Callable[[Wire, float], T],
        general: Callable[[S3Call], Awaitable[T]],
    ) -> T:
        """Move bytes in this thread by `short(wire, end)`, or where that cannot, by `general`. Raises as `run`."""
        try:
            return S3Call(self, url, deadline).transfer(bucket, short)
        except ElsewhereError as reason:
            if self._wires.pop((os.getpid(), bucket), None):
                log.warning("%s: %s. Transfers are slower than need be: set AWS_REGION to the bucket's.", url, reason)
            self._wires[os.getpid(), bucket] = None
        return self.run(url, deadline, general)

    def wire(self, bucket: str) -> Wire:
        """Return this process's wire to the bucket. Raises ElsewhereError where there is none."""
        place = os.getpid(), bucket
        try:
            wire = self._wires[place]
        except KeyError:
            wire = self._wires[place] = _new_wire(bucket, self._given())
        if wire is None:
            raise ElsewhereError
        return wire

    async def request(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Send one request; raises whatever the client raises."""
        client = self._client()
        try:
            await client.set_session()
        except ValueError as error:  # an endpoint that is no URL, for one
            raise S3Failure(Kind.SETTINGS, str(error)) from error
        answer: dict[str, Any] = await client._call_s3(method, **arguments)  # noqa: SLF001 - the raw call
        self.has_worked = True
        return answer

    async def refresh_credentials(self) -> bool:
        """Read the credentials again, at most every few seconds; say whether they were read."""
        if time.monotonic() - self._refreshed < REFRESH_INTERVAL:
            return False
        self._refreshed = time.monotonic()
        await self._client().set_session(refresh=True)
        return True

    def reopen_wire(self, bucket: str) -> bool:
        """Do the same for transfers: the next one reads the credentials again."""
        place = os.getpid(), bucket
        wire = self._wires.get(place)
        if wire is None or time.monotonic() - wire.opened < REFRESH_INTERVAL:
            return False
        self._wires.pop(place, None)
        return True

    def _client(self) -> s3fs.S3FileSystem:
        process = os.getpid()
        if process not in self._clients:
            self._clients[process] = _new_client(self._given())
        return self._clients[process]

    def _given(self) -> S3Settings:
        settings = self._settings or S3Settings.of_process()
        if settings.ca_bundle and not Path(settings.ca_bundle).is_file():
            raise S3Failure(Kind.SETTINGS, f"AWS_CA_BUNDLE={settings.ca_bundle} names no file")
        return settings


def _new_wire(bucket: str, settings: S3Settings) -> Wire | None:
    try:
        return open_wire(bucket, settings)
    except ValueError as error:  # an endpoint that is no URL, for one
        raise S3Failure(Kind.SETTINGS, str(error)) from error


def _new_client(settings: S3Settings) -> s3fs.S3FileSystem:
    client = s3fs.S3FileSystem(
        key=settings.key or None,
        secret=settings.secret or None,
        token=settings.token or None,
        skip_instance_cache=True,
        use_listings_cache=False,
        session_vars=settings.session_variables(),
        client_kwargs=settings.client_arguments(),
        config_kwargs={
            **settings.config_arguments(),
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "max_pool_connections": MAX_CONNECTIONS,
            # The newer default checksums break servers of other makers; digests in the records cover the data.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "retries": {"total_max_attempts": 1, "mode": "standard"},
        },
    )
    client.retries = 1  # one place retries: S3Call
    return client


class S3Call:
    """One call on a store: its deadline, and what went wrong in it so far."""

    def __init__(self, connection: S3Connection, url: str, deadline: float) -> None:
        """Start no clock yet."""
        self._connection = connection
        self._url = url
        self._deadline = deadline
        self._last: S3Failure | None = None

    async def run(self, operation: Callable[[S3Call], Awaitable[T]]) -> T:
        """Run `operation` within the deadline. Raises as `S3Connection.run`."""
        try:
            async with asyncio.timeout(self._deadline):
                return await operation(self)
        except TimeoutError:
            raise self._too_late() from self._last

    async def request(self, method: str, **arguments: object) -> dict[str, Any]:
        """Send one request, once; raises whatever the client raises."""
        return await self._connection.request(method, arguments)

    async def send(self, method: str, **arguments: object) -> dict[str, Any]:
        """Send one request, again and again while that may help; raises S3Failure."""
        return await self.retry(lambda: self.request(method, **arguments))

    async def retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make attempts, with longer and longer pauses, until one works or the deadline ends this.

        Raises:
            S3Failure: trying again does not help.

        """
        pause = FIRST_PAUSE
        while True:
            try:
                async with asyncio.timeout(self._deadline / ATTEMPTS_PER_DEADLINE):
                    return await attempt()
            except Exception as error:
                if (failure := failure_of(error)) is None:
                    raise
                if self._is_renewable(failure) and await self._connection.refresh_credentials():
                    pause = FIRST_PAUSE
            await asyncio.sleep(self._wait(pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def transfer(self, bucket: str, attempt: Callable[[Wire, float], T]) -> T:
        """Do in this thread what `run` and `retry` do on the loop; `attempt(wire, end)` ends by itself at `end`.

        Raises:
            ElsewhereError: the general client has to do it.
            S3Failure, StoreError, Interrupted: as `S3Connection.run`.

        """
        end = time.monotonic() + self._deadline
        pause = FIRST_PAUSE
        while (now := time.monotonic()) < end:
            attempt_end = min(end, now + self._deadline / ATTEMPTS_PER_DEADLINE)
            try:
                result = attempt(self._connection.wire(bucket), attempt_end)
            except ElsewhereError:
                raise
            except Exception as error:
                if (failure := failure_of(error)) is None:
                    raise
                if failure.kind is Kind.TRANSIENT and self._last and time.monotonic() >= end:
                    break  # cut off by the deadline: what failed before says more
                if self._is_renewable(failure) and self._connection.reopen_wire(bucket):
                    pause = FIRST_PAUSE
            else:
                self._connection.has_worked = True
                return result
            time.sleep(min(self._wait(pause), max(0.0, end - time.monotonic())))
            pause = min(2 * pause, LONGEST_PAUSE)
        raise self._too_late() from self._last

    def _is_renewable(self, failure: S3Failure) -> bool:
        """Note a failure that may pass, and say whether new credentials would help; raise it if nothing would."""
        renewable = failure.kind is Kind.CREDENTIALS and self._connection.has_worked
        if failure.kind is not Kind.TRANSIENT and not renewable:
            raise failure
        self._last = failure
        return renewable

    def _wait(self, pause: float) -> float:
        """Return about `pause` seconds, and say why they are waited."""
        wait = random.uniform(pause / 2, pause)  # noqa: S311 - spreads retries, hides nothing
        TALLY.retries[self._last.kind.name.lower() if self._last else "timeout"] += 1
        log.warning("%s: %s; trying again in %.1f s", self._url, self._last, wait)
        return wait

    def _too_late(self) -> StoreError | Interrupted:
        TALLY.given_up += 1
        what = self._last.text if self._last else "no answer"
        if self._last and self._last.kind is Kind.CREDENTIALS:
            return Interrupted(
                f"{self._url}: credentials that worked before are refused since {self._deadline:g} s ({what}). Renew "
                "them and start again: the work goes on where it stopped."
            )
        return StoreError(
            f"{self._url}: no success within {self._deadline:g} s; the last failure was: {what}. Check the network, "
            "the endpoint (AWS_ENDPOINT_URL) and the store's own log, then start again."
        )


async def in_parallel(count: int, limit: int, action: Callable[[int], Coroutine[Any, Any, T]]) -> list[T]:
    """Return `action(0)`, ..., `action(count - 1)`, at most `limit` at a time; the first failure ends the others."""
    results: dict[int, T] = {}
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            results[number] = await action(number)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, count)):
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [results[number] for number in range(count)]
