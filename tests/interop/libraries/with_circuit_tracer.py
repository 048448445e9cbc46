"""circuit-tracer's model of a feature, in an environment of its own: `python with_circuit_tracer.py features out.json`.

Features are found as its viewer finds them (`assets/feature_examples/init-feature-examples.js`, `assets/util.js`): the
index, a range of the file, four bytes of length, zlib. The viewer itself fetches from Hugging Face alone.
"""

import gzip
import json
import sys
import zlib
from pathlib import Path

from circuit_tracer.frontend.feature_models import Model

folder, out = Path(sys.argv[1]), sys.argv[2]
index = json.loads(gzip.decompress((folder / "index.json.gz").read_bytes()))
features = []
for layer in index.values():
    data = (folder / layer["filename"]).read_bytes()
    for start, end in zip(layer["offsets"], layer["offsets"][1:], strict=False):
        part = data[start : end + 1]  # a Range of bytes has its end in it
        length = int.from_bytes(part[:4], "little")
        features.append(Model.model_validate_json(zlib.decompress(part[4 : 4 + length]), strict=True).model_dump())
Path(out).write_text(json.dumps({"layers": list(index), "features": features}))
