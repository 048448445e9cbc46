"""SAEs in the formats of other libraries: written so that the unmodified library loads them, and read from it.

    from kubesae.sae.formats import export_sae
    export_sae(load_sae("out/sae/layer-012-topk-4608"), "sae-lens", open_store("out/for-sae-lens"))

One file a format says its file names, tensors, formulas and the version it was tested with. Nothing is unpickled.
"""

from kubesae.sae.formats.exporting import Exported, export_sae
from kubesae.sae.formats.format import Foreign, Format
from kubesae.sae.formats.importing import import_sae, read_foreign
from kubesae.sae.formats.registry import FORMATS

__all__ = ["FORMATS", "Exported", "Foreign", "Format", "export_sae", "import_sae", "read_foreign"]
