"""The one description of an experiment: its model, loading it from YAML, and the identity of its data."""

from kubesae.experiment.canonical import canonical_json, parse_json_object, sha256_hex
from kubesae.experiment.identity import DataIdentity, public_name
from kubesae.experiment.load import load_experiment, parse_yaml, set_field, validate
from kubesae.experiment.spec import Collect, Corpus, Experiment, Interpret, Pilot, Sae, Section, Verify

__all__ = [
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
    "load_experiment",
    "parse_json_object",
    "parse_yaml",
    "public_name",
    "set_field",
    "sha256_hex",
    "validate",
]
