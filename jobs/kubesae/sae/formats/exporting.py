"""Write an SAE in the format of another library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError, MissingError
from kubesae.sae.formats.registry import FORMATS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubesae.sae.inference import Sae
    from kubesae.store import Store


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: sizes in bytes by name, and how to load it: a line of Python."""

    files: dict[str, int]
    loading: str


def export_sae(sae: Sae, name: str, target: Store) -> Exported:
    """Write `sae` in the format `name` to the folder that `target` is.

    Raises:
        ConfigError: the format cannot hold it, or other files of its names are there.

    """
    made = FORMATS[name]
    reason = made.refusal(sae)
    if reason is not None:
        others = [other.name for other in FORMATS.values() if other.refusal(sae) is None]
        raise ConfigError(f"The format {name} cannot hold this SAE: {reason}. Give --format {' or '.join(others)}.")
    files = made.write(sae)
    _refuse_other_files(files, target)
    for file in made.files:
        target.put(file, files[file])
    return Exported({file: len(files[file]) for file in made.files}, made.loading(target.url))


def _refuse_other_files(files: Mapping[str, bytes], target: Store) -> None:
    """Nobody's files are replaced; our own of an earlier time are the same."""
    for file, data in files.items():
        try:
            found = target.read(file)
        except MissingError:
            continue
        if found != data:
            raise ConfigError(
                f"{target.url_of(file)} is there and holds something else; nothing was written. Give an empty folder."
            )
