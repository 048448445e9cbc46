"""litdata reads the same blocks in its own format, cold: chunks are downloaded, then read from disk."""

import os
import shutil
import time
from pathlib import Path

import litdata
import litdata.streaming.downloader
import numpy as np
import torch
from serve import serve

# Its fast client refuses plain http, and no setting of its own allows it; the slow one would take it.
litdata.streaming.downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"  # noqa: SLF001


def load(file: str) -> torch.Tensor:
    """Return a block; litdata has no bfloat16, so its bits are int16."""
    return torch.from_numpy(np.load(file))


def write(folder: str, out: str, shard_bytes: int) -> dict[str, object]:
    """Write the blocks in `folder` (one npy file each)."""
    files = sorted(map(str, Path(folder).iterdir()))
    litdata.optimize(fn=load, inputs=files, output_dir=out, chunk_bytes=shard_bytes, num_workers=1)
    return {"files": sorted(path.name for path in Path(out).iterdir())}


def read(url: str, cache: str) -> dict[str, object]:
    """Read all of it into an empty cache."""
    shutil.rmtree(cache, ignore_errors=True)
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    start, size = time.perf_counter(), 0
    for sample in litdata.StreamingDataset(url, cache_dir=cache, storage_options=options, max_cache_size="100GB"):
        size += sample.nbytes
    seconds = time.perf_counter() - start
    shutil.rmtree(cache)
    return {"bytes": size, "seconds": seconds}


if __name__ == "__main__":
    serve(write, read)
