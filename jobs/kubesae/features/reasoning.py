"""The list of an SAE's sets of reasoning problems, which the page of its interpretation shows.

    interpret/<sae>/page/reasoning.json    [{name, title, path, problems, correct, survived}, ...]

Made anew from what the store has: the order of writers does not matter. `path` is a key; `correct` is null where
nothing was generated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubesae.errors import MissingError
from kubesae.experiment import canonical_json, parse_json_object
from kubesae.ledger import keys

if TYPE_CHECKING:
    from kubesae.store import Store


FORMAT = 2
"""of `summary.json`"""


def list_reasoning(output: Store, sae: str, sae_sha256: str) -> list[dict[str, Any]]:
    """Write the list of the SAE with these weights and return it, by name."""
    found = []
    for key in sorted(output.list(keys.reasonings(sae))):
        if not key.endswith(f"/{keys.REASONED}"):
            continue
        name = key.split("/")[2]
        try:
            summary = parse_json_object(output.read(key), output.url_of(key))
        except MissingError:  # removed since it was listed
            continue
        if summary.get("format") != FORMAT or summary["source"]["sae_sha256"] != sae_sha256:
            continue  # of weights that this SAE had before: its features are others
        survived = {one["feature"] for ranking in summary["rankings"] for one in ranking["top"] if one["survived"]}
        found.append(
            {
                "name": name,
                "title": f"{name}: {summary['problems']:,} problems",
                "path": keys.reasoning(sae, name, "index.html"),
                "problems": summary["problems"],
                "correct": summary["correct"],
                "survived": len(survived),
            }
        )
    output.put(keys.reasoning_list(sae), canonical_json(found))
    return found
