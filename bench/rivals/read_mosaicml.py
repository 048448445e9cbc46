"""mosaicml-streaming reads the same blocks in its own format, cold: shards are downloaded, then read from disk."""

import shutil
import time
import warnings
from pathlib import Path

import numpy as np
from serve import serve

warnings.filterwarnings("ignore")
from streaming import MDSWriter, StreamingDataset  # noqa: E402 - its imports warn
from streaming.base.util import clean_stale_shared_memory  # noqa: E402


def write(folder: str, out: str, shard_bytes: int) -> dict[str, object]:
    """Write the blocks in `folder` (one npy file each)."""
    files = sorted(Path(folder).iterdir())
    rows, width = np.load(files[0], mmap_mode="r").shape
    with MDSWriter(out=out, columns={"acts": f"ndarray:int16:{rows},{width}"}, size_limit=shard_bytes) as writer:
        for file in files:
            writer.write({"acts": np.load(file)})
    return {"files": sorted(path.name for path in Path(out).iterdir())}


def read(url: str, cache: str) -> dict[str, object]:
    """Read all of it into an empty cache."""
    shutil.rmtree(cache, ignore_errors=True)
    clean_stale_shared_memory()
    start, size = time.perf_counter(), 0
    for sample in StreamingDataset(remote=url, local=cache, shuffle=False, batch_size=1):
        size += sample["acts"].nbytes
    seconds = time.perf_counter() - start
    shutil.rmtree(cache)
    return {"bytes": size, "seconds": seconds}


if __name__ == "__main__":
    serve(write, read)
