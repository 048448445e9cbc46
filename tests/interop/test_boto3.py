"""The example that reads activations with boto3 and numpy alone gives what our own reader gives, from a real server."""

from __future__ import annotations

import ast
import importlib.util
import runpy
import sys
from pathlib import Path

import boto3
import numpy as np
import pytest

import kubesae
from small_experiment import write_small

EXAMPLE = Path(__file__).parents[2] / "examples" / "read-with-boto3" / "read.py"


@pytest.fixture(params=[("", "bfloat16"), ("/some/prefix", "bfloat16"), ("/8", "int8-block32")])
def url(request, s3_bucket, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    place = s3_bucket + request.param[0]
    write_small(kubesae.open_store(place), storage=request.param[1])
    return place


@pytest.mark.s3
def test_every_block_is_read_alike(url):
    spec = importlib.util.spec_from_file_location("read", EXAMPLE)
    read = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(read)
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    prefix = prefix and f"{prefix}/"
    client = boto3.client("s3")
    samples = {}
    for record in read.committed(client, bucket, prefix):
        (layer,) = (layer for layer in record["layers"] if layer["layer"] == 4)
        for number in range(len(layer["blocks"])):
            sample = read.read_block(client, bucket, prefix, layer, number)
            samples[sample["json"]["row"]] = sample
    client.close()
    blocks = list(kubesae.open_reader(url, 4, shuffle=False).blocks())
    assert sorted(samples) == [block.row for block in blocks]
    for block in blocks:
        sample = samples[block.row]
        assert np.array_equal(read.float32(sample), block.float32())
        assert np.array_equal(sample["tokens.npy"], block.tokens)
        assert np.array_equal(sample["flags.npy"], block.flags)


@pytest.mark.s3
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_as_a_program(url, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), url, "4"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out.startswith("shard 0, part 0, block 0: 80 tokens, 8 wide\ntoken ids [")


def test_it_needs_nothing_but_boto3_and_numpy():
    tree = ast.parse(EXAMPLE.read_text())
    imports = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imports - sys.stdlib_module_names == {"boto3", "numpy"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
