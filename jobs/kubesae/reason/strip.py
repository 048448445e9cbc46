"""A trace as a coloured strip: tokens from left to right, its most active features below each other.

A cell's colour has four strengths, quarters of the feature's largest activation in the trace; cells of one feature and
strength are one path, so that a page of many traces stays small. Text is untrusted: escaped, and on one line.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from kubesae.corpus import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

ROWS = 10
"""features of a strip"""
RANKED_ROWS = 4
"""of which so many at most are ranked ones, which come first"""
_CELL, _NAME = 7, 70
STYLE = """
.strips label { margin-right: 14px; } .strips details { margin: 8px 0; } .strips summary { cursor: pointer; }
.strips svg { width: auto; max-width: none; height: auto; } .strips .row { overflow-x: auto; }
.strips path { fill: var(--train); } .s1 { opacity: .25; } .s2 { opacity: .5; } .s3 { opacity: .75; }
.strips a text { fill: var(--train); } .strips .column { fill: transparent; fill-opacity: .5; }
.strips .column:hover { fill: var(--line); }
.trace { font-size: 13px; overflow-wrap: anywhere; color: var(--quiet); }
.right::marker, .right b { color: var(--train); } .wrong::marker, .wrong b { color: var(--val); }
#only-right:checked ~ .wrong, #only-right:checked ~ .unknown { display: none; }
#only-wrong:checked ~ .right, #only-wrong:checked ~ .unknown { display: none; }
"""


def chosen_features(
    feature_N: npt.NDArray[np.int64], value_N: npt.NDArray[np.float32], ranked: Sequence[int]
) -> list[int]:
    """Return the features of a strip: ranked ones, then others, those with the most activation first."""
    names, place_N = np.unique(feature_N, return_inverse=True)
    mass = np.bincount(place_N, value_N.astype(np.float64), len(names))
    order = [int(name) for name in names[np.argsort(-mass, kind="stable")]]
    first = [feature for feature in order if feature in set(ranked)][:RANKED_ROWS]
    return [*first, *(feature for feature in order if feature not in set(first))][:ROWS]


def strip(
    pieces: Sequence[str],
    token_N: npt.NDArray[np.int64],
    feature_N: npt.NDArray[np.int64],
    value_N: npt.NDArray[np.float32],
    features: Sequence[int],
    links: Mapping[int, str],
) -> str:
    """Return a strip as SVG: `pieces` are the tokens' texts; entries are of tokens counted from the trace's first."""
    high, wide = _CELL * 2, _NAME + _CELL * len(pieces)
    size = f'width="{wide}" height="{high * len(features) + 2}"'
    parts = [f'<svg class="strip" {size} role="img" aria-label="features by token">']
    for row, feature in enumerate(features):
        mine = feature_N == feature
        level_N = np.ceil(4 * value_N[mine] / value_N[mine].max()).clip(1, 4).astype(int)
        top = row * high
        name = f'<text class="axis" x="{_NAME - 8}" y="{top + high - 3}" text-anchor="end">{feature}</text>'
        parts.append(f'<a href="{escape(links[feature])}">{name}</a>')
        for level in (1, 2, 3, 4):
            places = token_N[mine][level_N == level]
            if len(places):
                cells = "".join(
                    f"M{_NAME + _CELL * place} {top}h{_CELL - 1}v{high - 2}h-{_CELL - 1}z" for place in places
                )
                parts.append(f'<path class="s{level}" d="{cells}"/>')
    parts += [
        f'<rect class="column" x="{_NAME + _CELL * place}" y="0" width="{_CELL}" '
        f'height="{high * len(features)}"><title>{place}: {escape(visible(piece))}</title></rect>'
        for place, piece in enumerate(pieces)
    ]
    return "".join([*parts, "</svg>"])
