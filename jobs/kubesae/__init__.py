"""kubesae: a language model and a corpus -> sparse-autoencoder features that people can read.

    import kubesae
    sae = kubesae.load_sae("s3://bucket/prefix/sae/layer-012-topk-4608")

The names below are imported when they are first used, so that `import kubesae` takes no time and needs no extra.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubesae.sae import load_sae as load_sae
    from kubesae.shards.open_reader import open_reader as open_reader
    from kubesae.shards.webdataset import open_webdataset as open_webdataset
    from kubesae.store import open_store as open_store

__version__ = "0.1.0"

_PUBLIC = {
    "load_sae": "kubesae.sae",
    "open_reader": "kubesae.shards.open_reader",
    "open_store": "kubesae.store",
    "open_webdataset": "kubesae.shards.webdataset",
}


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kubesae' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List public names, imported or not."""
    return sorted([*globals(), *_PUBLIC])
