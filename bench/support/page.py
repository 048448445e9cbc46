"""The page of features: what one takes in the bucket, and how long a browser waits for the first one.

    page_rows(data, output, "layer-012-topk-4608")      # of an interpretation that is there
    python -m bench.support.page                         # of a synthetic one with text of this repository

Rows:

- `page-bytes-per-feature`: bytes of `features/` by features, the index included. At most 6,000.
- `page-first-feature-ms`: from the start of the navigation to a feature that is shown, in headless Chromium, from a
  real S3 server on loopback, the browser's cache empty; the median over different features. Less than 300.
- `page-write-ms-per-feature`: what writing the page takes.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.support.measure import print_row, say

from browser import Browser
from kubesae.browse.page import write_page
from kubesae.features import read_info, read_interpretation
from kubesae.ledger import keys
from kubesae.store import open_store
from paged import SAE, publish, write_paged
from s3_server import S3Server

if TYPE_CHECKING:
    from kubesae.store import Store

ROUNDS = 11
FEATURES = 1000
MOST_BYTES, MOST_MS = 6000, 300


def page_rows(data: Store, output: Store, sae: str) -> None:
    """Print the rows of the page of an interpretation; both stores are folders, and nothing in them is changed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(Path(output.url) / "interpret" / sae, folder / "store" / "interpret" / sae)
        store = open_store(str(folder / "store"))
        for key in output.list(keys.sae_folder(sae)):
            if key.endswith((".json", ".jsonl")):
                store.put(key, output.read(key))
        features, seconds = _write(data, store, sae)
        taken = sum(info.size for info in store.list(keys.page_features(sae)).values())
        print_row("interpret", "page-bytes-per-feature", taken / features, "B", "lower", "limit", MOST_BYTES)
        print_row("interpret", "page-write-ms-per-feature", 1e3 * seconds / features, "ms", "lower")
        shown = _first_feature(folder, sae, features)
        print_row("interpret", "page-first-feature-ms", shown, "ms", "lower", "limit", MOST_MS)


def _write(data: Store, store: Store, sae: str) -> tuple[int, float]:
    """Write the page anew, and return the number of features and the seconds."""
    info = read_info(store, sae)
    assert info is not None
    stored = read_interpretation(store, sae, info.source.sae_sha256)
    assert stored is not None
    store.delete(keys.page(sae))
    start = time.perf_counter()
    write_page(data, store, stored)
    return info.features, time.perf_counter() - start


def _first_feature(folder: Path, sae: str, features: int) -> float:
    """Return the median of how many milliseconds a browser that has nothing takes to show a feature."""
    (folder / "s3").mkdir()
    (folder / "browser").mkdir()
    found = []
    with S3Server.start(folder / "s3") as server, Browser.start(folder / "browser") as browser:
        url = publish(server, folder / "store", sae)
        browser.open(f"{url}#/feature/0").wait(_SHOWN)  # the browser's own beginning is not the page's
        for i in range(ROUNDS):
            tab = browser.open("about:blank", wait=False)
            tab.call("Network.clearBrowserCache")
            tab.go(f"{url}#/feature/{(i + 1) * 7919 % features}")
            tab.wait(_SHOWN)
            found.append(tab.js(_STARTED))
        say(f"first feature: {', '.join(f'{one:.0f}' for one in sorted(found))} ms")
    return statistics.median(found)


_STARTED = "performance.getEntriesByName('feature-shown')[0]?.startTime"
_SHOWN = f"{_STARTED} !== undefined"


def main() -> None:
    """Measure a synthetic interpretation."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        write_paged(store, FEATURES)
        page_rows(store, store, SAE)


if __name__ == "__main__":
    main()
