"""The one description of an experiment: its model, loading it from YAML, and the identity of its data."""

from kubesae.experiment.canonical import canonical_json, parse_json_object, sha256_hex
from kubesae.experiment.identity import DataIdentity, difference, is_path, public_name
from kubesae.experiment.load import load_experiment, parse_yaml, set_field, validate
from kubesae.experiment.presets import PRESETS
from kubesae.experiment.spec import RECORD_BYTES, Collect, Corpus, Experiment, Interpret, Pilot, Sae, Section, Verify

__all__ = [
    "PRESETS",
    "RECORD_BYTES",
    "Collect",
    "Corpus",
    "DataIdentity",
    "Experiment",
    "Interpret",
    "Pilot",
    "Sae",
    "Section",
    "Verify",
    "canonical_json",
    "difference",
    "is_path",
    "load_experiment",
    "parse_json_object",
    "parse_yaml",
    "public_name",
    "set_field",
    "sha256_hex",
    "validate",
]
