"""The formats that there are. A new one is a file beside this one, and a word here."""

from kubesae.sae.formats import dictionary_learning, sae_lens, sparsify
from kubesae.sae.formats.format import Format

FORMATS: dict[str, Format] = {module.FORMAT.name: module.FORMAT for module in (sae_lens, sparsify, dictionary_learning)}
