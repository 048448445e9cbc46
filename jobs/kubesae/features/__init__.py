"""What is stored about the features of an SAE: who is active where, and the answers about each. No torch.

cache = read_interpretation(output, "layer-012-topk-4608", named.sha256).cache(output)
rows, activations = cache.of(12845)
"""

from kubesae.features.answers import SCHEMAS, Answers, AnswersInfo, read_answers, write_answers
from kubesae.features.codes import CodeCache, Codes, CodesBuilder, CodesFile
from kubesae.features.reasoning import list_reasoning
from kubesae.features.stored import (
    Interpretation,
    Source,
    Stored,
    read_info,
    read_interpretation,
    read_stored,
    write_stored,
)
from kubesae.features.tables import table_bytes

__all__ = [
    "SCHEMAS",
    "Answers",
    "AnswersInfo",
    "CodeCache",
    "Codes",
    "CodesBuilder",
    "CodesFile",
    "Interpretation",
    "Source",
    "Stored",
    "list_reasoning",
    "read_answers",
    "read_info",
    "read_interpretation",
    "read_stored",
    "table_bytes",
    "write_answers",
    "write_stored",
]
