"""The formats that there are, and how one is written. A new one is a file beside this one, and an entry here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError
from kubesae.export import circuit_tracer, dashboards, delphi, neuronpedia, sae_bench, tables
from kubesae.export.target import FORMAT, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.export.subject import Subject
    from kubesae.store import Store


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Attributes:
        name: as `--format` takes it.
        tested_with: package and version whose code opened it, unmodified; empty: it is no one package's.
        write: writes a subject to a target. Raises ConfigError for what the format cannot hold.
        loading: the line of Python that opens what lies at a URL.
        whole: why it takes all features, or none; empty: it takes some, too.

    """

    name: str
    tested_with: str
    write: Callable[[Subject, Target], None]
    loading: Callable[[str], str]
    whole: str = ""


_ALL = (
    Format("delphi", "eai-delphi 0.1.3", delphi.write, delphi.loading),
    Format("sae-dashboard", "sae-dashboard 0.8.0", dashboards.write, dashboards.loading),
    Format("neuronpedia", "", neuronpedia.write, neuronpedia.loading),
    Format(
        "circuit-tracer",
        "circuit-tracer 0.5.0",
        circuit_tracer.write,
        circuit_tracer.loading,
        "its index finds features by their place",
    ),
    Format("sae-bench", "sae-bench 0.6.0", sae_bench.write, sae_bench.loading, "its result is about the whole SAE"),
    Format("parquet", "", tables.write, tables.loading),
)
FORMATS: dict[str, Format] = {made.name: made for made in _ALL}


def export(subject: Subject, name: str, store: Store) -> Target:
    """Write `subject` in the format `name` to the folder that `store` is; `kubesae.json` there says what it is.

    Returns:
        what was written, with the size of each file.

    Raises:
        ConfigError: the format cannot hold it, or something that it needs is not there, or other files are.

    """
    made = FORMATS[name]
    if made.whole and subject.asked is not None:
        raise ConfigError(f"--format {name} takes all features: {made.whole}. Leave out --features.")
    about = {"format": FORMAT, "exported": name, "from": subject.provenance(), "missing": subject.missing()}
    target = Target(store, about)
    made.write(subject, target)
    target.close()
    return target
