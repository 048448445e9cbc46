"""Read activations of a kubesae prefix with nothing but boto3 and numpy.

    python read.py s3://bucket/prefix 12

Lists the ledger, reads the first commit record, fetches one block of the tar that it names by a ranged read, and turns
the stored values into float32. boto3 finds endpoint and credentials in the usual AWS_* variables.
"""

import io
import json
import sys
import tarfile

import boto3
import numpy as np

END_OF_TAR = 1024


def committed(s3, bucket, prefix):
    """Yield the commit records in order. Only what a record names exists."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}activations/ledger/")
    for page in pages:
        for entry in page.get("Contents", []):
            yield json.load(s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"])


def read_block(s3, bucket, prefix, layer, number):
    """Return "acts.npy", "tokens.npy", "flags.npy", "json" ... of one block of the tar that a record's layer names."""
    ends = [*layer["blocks"][1:], layer["bytes"] - END_OF_TAR]
    wanted = f"bytes={layer['blocks'][number]}-{ends[number] - 1}"
    body = s3.get_object(Bucket=bucket, Key=prefix + layer["key"], Range=wanted)["Body"].read()
    sample = {}
    with tarfile.open(fileobj=io.BytesIO(body + bytes(END_OF_TAR))) as tar:
        for member in tar:
            kind = member.name.partition(".")[2]
            data = tar.extractfile(member).read()
            sample[kind] = json.loads(data) if kind == "json" else np.load(io.BytesIO(data), allow_pickle=False)
    return sample


def float32(sample):
    """Return a block's activations as float32.

    npy has no bfloat16, so its bits lie in an int16 array; int8 has an exponent for each 32 dimensions of a row.
    """
    acts = sample["acts.npy"]
    if acts.dtype == np.int16:
        return (acts.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if acts.dtype == np.int8:
        exponents = np.repeat(sample["exponents.npy"], 32, axis=1)[:, : acts.shape[1]]
        return np.ldexp(acts.astype(np.float32), exponents)
    return acts


if __name__ == "__main__":
    bucket, _, prefix = sys.argv[1].removeprefix("s3://").partition("/")
    prefix = f"{prefix.strip('/')}/" if prefix else ""
    client = boto3.client("s3")
    record = next(committed(client, bucket, prefix))
    layer = next(layer for layer in record["layers"] if layer["layer"] == int(sys.argv[2]))
    sample = read_block(client, bucket, prefix, layer, 0)
    acts = float32(sample)
    print(f"shard {record['shard']}, part {record['part']}, block 0: {acts.shape[0]} tokens, {acts.shape[1]} wide")
    print("token ids", sample["tokens.npy"][:5], "flags", sample["flags.npy"][:5], "norm", np.linalg.norm(acts[1]))
