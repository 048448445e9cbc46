"""Features for circuit-tracer's viewer (PyPI: circuit-tracer 0.5.0), which reads them one by one by range.

    features/index.json.gz              {"12": {"filename": "layer-012.<sha12>.bin", "offsets": [0, 5123, ...]}}
    features/layer-012.<sha12>.bin      of each feature 4 bytes, how many follow, little-endian, then zlib: its JSON

The page of an interpretation keeps its features in this very layout, with the fields of
`circuit_tracer.frontend.feature_models.Model` and some more, so they are copied as they are. The index finds a feature
by its place: all of them are there.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError, DamagedError, MissingError
from kubesae.experiment import sha256_hex
from kubesae.ledger import keys

if TYPE_CHECKING:
    from kubesae.export.subject import Subject
    from kubesae.export.target import Target
    from kubesae.store import Store


def write(subject: Subject, target: Target) -> None:
    """Copy all features. Raises ConfigError when this interpretation has no page."""
    name, output = subject.named.name, subject.output
    _require_page(subject)
    for key in (keys.page_index(name), _features(output, name)):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "file"
            output.get_file(key, path)
            target.put_file(f"features/{key.rpartition('/')[2]}", path)


def _features(output: Store, name: str) -> str:
    """Return the key of the file that the page's index names: one of an earlier page may lie beside it."""
    index = keys.page_index(name)
    try:
        (layer,) = json.loads(gzip.decompress(output.read(index))).values()
        return f"{keys.page_features(name)}{layer['filename']}"
    except (OSError, EOFError, ValueError, LookupError, AttributeError) as error:
        raise DamagedError(
            f"{output.url_of(index)} is no index of features: {error!r}. Run `kubesae interpret` again."
        ) from error


def loading(url: str) -> str:
    """Return how it is opened."""
    return f'features = "{url}/features"  # upload it to Hugging Face: the viewer reads <repository>//<folder>/features'


def _require_page(subject: Subject) -> None:
    """See that there is a page, whole, and that it says it is of this interpretation."""
    name, output = subject.named.name, subject.output
    made_from = sha256_hex(subject.stored.info.to_json())
    try:
        overview = output.read(keys.page_file(name, "overview.json"))
    except MissingError:
        overview = b""
    if made_from.encode() not in overview or not output.exists(keys.page(name)):
        raise ConfigError(
            f"The features of SAE {name} that circuit-tracer shows are those of its page, and {output.url} has no page "
            "of this interpretation. Run `kubesae interpret` again: it writes the page and reads no activations."
        )
