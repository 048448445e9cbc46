"""An SAE's interpretation and evaluation, written as other people's tools read them.

    kubesae export experiment.yaml --format delphi --to out/for-delphi

One file a format says what its files hold, where that is known from, and the version it was tested with. Everything
comes from the interpretation, its sparse codes, the tokens and the SAE's weights: activations are not read.
"""

from kubesae.export.formats import FORMATS, Format, export
from kubesae.export.subject import Subject, parse_features
from kubesae.export.target import Target

__all__ = ["FORMATS", "Format", "Subject", "Target", "export", "parse_features"]
