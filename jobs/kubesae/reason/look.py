"""What is active in one text, token by token: one forward pass through the first layers.

kubesae reason experiment.yaml --text "Solve: 2x + 5 = 13"
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.corpus import visible
from kubesae.reason.problems import Prompts
from kubesae.shards.layout import FIRST_POSITION, NORM_OUTLIER, SPECIAL_TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.reason.run import Bench

FLAGS = {FIRST_POSITION: "first position", SPECIAL_TOKEN: "special token", NORM_OUTLIER: "norm outlier"}
NO_LABELS = "No labels: `kubesae interpret {experiment}` makes them."
_WIDEST = 24


def look(bench: Bench, text: str, top: int) -> list[dict[str, Any]]:
    """Return the tokens of a text, each with the `top` features most active on it.

    Each is {position, token, text, flags, active, features: [{feature, activation, label}]}: the most active feature
    first; `active` counts all of them; `label` is null where there are no labels.
    """
    ids_T = Prompts(bench.tokenizer, "").plain(text)
    (found,) = bench.reader().read([ids_T])
    labels = bench.labels()
    pieces = bench.tokenizer.pieces(ids_T)
    tokens = []
    for position, token in enumerate(ids_T.tolist()):
        here = np.flatnonzero(found.token_N == position)
        best = here[np.lexsort((found.feature_N[here], -found.value_N[here]))][:top]
        features = [
            {
                "feature": int(feature),
                "activation": float(value),
                "label": None if labels is None else labels.get(int(feature), ""),
            }
            for feature, value in zip(found.feature_N[best], found.value_N[best], strict=True)
        ]
        flags = [name for bit, name in FLAGS.items() if found.flags_T[position] & bit]
        tokens.append(
            {
                "position": position,
                "token": token,
                "text": pieces[position],
                "flags": flags,
                "active": len(here),
                "features": features,
            }
        )
    return tokens


def look_lines(tokens: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a table of what `look` returns."""
    shown = [f"'{_cut(visible(token['text']))}'" for token in tokens]
    wide = max([5, *map(_width, shown)])
    place = len(str(len(tokens)))
    yield f"{'':{place}}  {'token':{wide}}  {'feature':>8}  {'activation':>10}  label"
    for token, text in zip(tokens, shown, strict=True):
        begin = f"{token['position']:{place}}  {text}{' ' * (wide - _width(text))}"
        if token["flags"]:
            yield f"{begin}  left out of statistics: {', '.join(token['flags'])}"
            begin = " " * (place + 2 + wide)
        elif not token["features"]:
            yield f"{begin}  no feature is active"
        for one in token["features"]:
            yield f"{begin}  {one['feature']:>8}  {one['activation']:>10.3f}  {visible(one['label'] or '')}".rstrip()
            begin = " " * (place + 2 + wide)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _width(text: str) -> int:
    """Return the columns of a terminal that a text takes: Chinese and its kin take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)
