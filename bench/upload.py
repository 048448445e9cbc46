"""Uploading tars: ours against the fastest plain client, to a real S3 server on the same machine.

    make bench NAME=upload

- `upload`: as collection does it, two threads that each take a tar's SHA-256 and put it in one request with that
  digest, which the server compares with what it received.
- `upload-one-thread`: the same by one thread.
- `raw-client`: boto3's `put_object` in a straight loop, body unsigned, no checksum: nobody compares anything. Of boto3,
  http.client, obstore and s3fs it was the fastest so.

Rows: MB/s; `upload-cpu-seconds-per-gb` is this process's, digest included, `server-cpu-seconds-per-gb` the server's for
the same; `upload-peak-rss` is the memory that two uploads of 448 MiB take beside the two tars, which it is against.
"""

from __future__ import annotations

import resource
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from bench.support.measure import GB, MB, cpu_seconds, interleaved, plain_client, print_row, s3_server, say

from kubesae.collect.publish import THREADS
from kubesae.experiment import sha256_hex
from kubesae.store import Store, open_store

if TYPE_CHECKING:
    from s3_server import S3Server

TARS, TAR_BYTES = 4, 64 << 20
LARGE_BYTES = 448 << 20
ROUNDS = 7


class Uploads:
    """A few tars in memory, and each way to upload them; every way returns its MB/s."""

    def __init__(self, server: S3Server, bucket: str) -> None:
        """Make them."""
        self.store: Store = open_store(f"{bucket}/data")
        self._bucket = bucket.removeprefix("s3://")
        self._client: Any = plain_client()
        self._server = psutil.Process(server.process.pid)
        generator = np.random.Generator(np.random.PCG64(0))
        self._tars = [generator.integers(0, 256, TAR_BYTES, np.uint8) for _ in range(TARS)]
        self._bodies = [tar.tobytes() for tar in self._tars]
        self.cpu = self.server_cpu = self.bytes = 0.0

    def ours(self, threads: int) -> float:
        """Upload all by `threads` threads."""
        before, server = cpu_seconds(), cpu_seconds(self._server)
        start = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(partial(put, self.store), map(str, range(TARS)), self._tars))
        seconds = time.perf_counter() - start
        if threads == THREADS:
            self.cpu += cpu_seconds() - before
            self.server_cpu += cpu_seconds(self._server) - server
            self.bytes += TARS * TAR_BYTES
        self._delete()
        return TARS * TAR_BYTES / MB / seconds

    def raw(self) -> float:
        """Upload all by boto3."""
        start = time.perf_counter()
        for i, body in enumerate(self._bodies):
            self._client.put_object(Bucket=self._bucket, Key=f"data/{i}", Body=body)
        seconds = time.perf_counter() - start
        self._delete()
        return TARS * TAR_BYTES / MB / seconds

    def _delete(self) -> None:
        """Delete them, so that every way begins alike, and the disk has nothing to write behind the next one."""
        for i in range(TARS):
            self.store.delete(str(i))


def put(store: Store, key: str, tar: np.ndarray[Any, Any]) -> None:
    """Take a tar's digest and upload it."""
    store.put(key, memoryview(tar), sha256=sha256_hex(memoryview(tar)))


def peak_beside_tars(store: Store) -> float:
    """Upload two large tars at once; return by how many bytes this process grew meanwhile."""
    tars = [np.ones(LARGE_BYTES, np.uint8) for _ in range(THREADS)]
    put(store, "first", tars[0][: 1 << 20])  # what is imported and connected once
    before = psutil.Process().memory_info().rss
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(partial(put, store), ("large-0", "large-1"), tars))
    for key in ("first", "large-0", "large-1"):
        store.delete(key)
    return max(0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


def main() -> None:
    """Measure, and print the rows."""
    with s3_server() as (server, _):
        bucket = server.new_bucket()
        say("two tars of 448 MiB at once ...")
        peak = peak_beside_tars(open_store(f"{bucket}/data"))
        uploads = Uploads(server, bucket)
        cases = {
            "upload": partial(uploads.ours, THREADS),
            "raw-client": uploads.raw,
            "upload-one-thread": partial(uploads.ours, 1),
        }
        found = interleaved(cases, ROUNDS)
    raw = found["raw-client"]
    for case in ("upload", "upload-one-thread"):
        print_row(
            "upload",
            case,
            found[case].median,
            "MB/s",
            against="raw-client",
            other=raw.median,
            ratio=found[case].ratio(raw),
        )
    gigabytes = uploads.bytes / GB
    print_row("upload", "upload-cpu-seconds-per-gb", uploads.cpu / gigabytes, "s/GB", "lower")
    print_row("upload", "server-cpu-seconds-per-gb", uploads.server_cpu / gigabytes, "s/GB", "lower")
    print_row("upload", "upload-peak-rss", peak, "bytes", "lower", against="tars", other=THREADS * LARGE_BYTES)


if __name__ == "__main__":
    main()
