"""Compare: which of the trained SAEs is the best at which sparsity?

    kubesae compare experiment.yaml

Reads two small files an SAE (metadata of the best checkpoint, evaluation) and writes `sae/sweep.json` and
`sae/sweep.html`: a pure function of what the store holds, made anew whenever a training or an evaluation ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kubesae.compare.entries import Comparison, Entry, LeftOut, entry_values, with_frontier
from kubesae.compare.page import comparison_page
from kubesae.errors import ConfigError, DamagedError, MissingError
from kubesae.experiment import parse_json_object
from kubesae.ledger import keys

if TYPE_CHECKING:
    from kubesae.store import Store


IMPORTED = "it was trained elsewhere, so there are no metrics of its training; `kubesae evaluate` measures it"


def compare(output: Store) -> Comparison:
    """Write and return the comparison of all SAEs at `output`.

    Raises:
        ConfigError: there is none.

    """
    comparison = write_comparison(output)
    if not comparison.saes and not comparison.left_out:
        raise ConfigError(f"No SAE has been trained at {output.url} yet. Run `kubesae train` first.")
    return comparison


def write_comparison(output: Store) -> Comparison:
    """Write and return the comparison of all SAEs at `output` with a best checkpoint.

    Those that are damaged, or were not trained here, are left out by name.
    """
    rows, left_out = [], []
    for name in _names(output):
        try:
            metadata = _read(output, keys.sae_folder(name) + _best(output, name))
            if "imported" in metadata:
                left_out.append(LeftOut(name=name, reason=IMPORTED))
                continue
            row = entry_values(name, metadata, _evaluation(output, name))
            Entry(**row, frontier=False)
        except MissingError:  # another training has put a better one in its place just now, and will write this anew
            continue
        except (KeyError, TypeError, AttributeError, ValidationError, DamagedError) as error:
            wrong = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            left_out.append(LeftOut(name=name, reason=f"its files are not what they should be ({wrong})"))
        else:
            rows.append(row)
    comparison = Comparison(saes=tuple(with_frontier(rows)), left_out=tuple(left_out))
    output.put(keys.SWEEP, comparison.to_json())
    output.put(keys.SWEEP_PAGE, comparison_page(comparison).encode())
    return comparison


def _names(output: Store) -> list[str]:
    """Return the names of the SAEs that have a best checkpoint."""
    found = (key.split("/") for key in output.list("sae/"))
    return sorted(name for _, name, *rest in found if keys.best(name) == "/".join(("sae", name, *rest)))


def _best(output: Store, name: str) -> str:
    """Return the key of the metadata of the best checkpoint, below the SAE's folder."""
    return f"{_read(output, keys.best(name))['checkpoint']}/{keys.SAE_METADATA}"


def _evaluation(output: Store, name: str) -> dict[str, Any] | None:
    try:
        return _read(output, keys.evaluation(name))
    except MissingError:
        return None


def _read(output: Store, key: str) -> dict[str, Any]:
    return parse_json_object(output.read(key), key)  # the key alone: a copy of the store has the same comparison
