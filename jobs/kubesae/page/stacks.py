"""Bars that stand on each other as SVG text: what each of many places is made of."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from kubesae.page import axis as axes
from kubesae.page.axis import LEFT, RIGHT, WIDTH, Axis, frame, grid_line, number, x_tick

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FAINT = 0.35
_TICKS = 8


@dataclass(frozen=True, slots=True)
class Stack:
    """One place on the x axis: its name, a value for each key (not below 0), and whether it stands back."""

    name: str
    values: Sequence[float]
    faint: bool = False


def stacked_bars(
    title: str, keys: Sequence[tuple[str, str]], stacks: Sequence[Stack], *, x_label: str, note: str
) -> str:
    """Return a figure of stacks; `keys` are label and CSS class of each value, the lowest first."""
    axis = Axis.over([0.0, *(sum(stack.values) for stack in stacks)], log=False)
    step = (WIDTH - LEFT - RIGHT) / max(1, len(stacks))
    parts = [grid_line(axis, tick) for tick in axis.ticks]
    every = max(1, -(-len(stacks) // _TICKS))
    parts += [x_tick(LEFT + (i + 0.5) * step, i) for i in range(0, len(stacks), every)]
    parts.append(axes.x_label(x_label))
    for i, stack in enumerate(stacks):
        parts += _drawn(stack, keys, axis, LEFT + (i + 0.1) * step, 0.8 * step)
    caption = "".join(f'<span class="key {kind}">{escape(label)}</span>' for label, kind in keys)
    return frame(title, parts, caption, note)


def _drawn(stack: Stack, keys: Sequence[tuple[str, str]], axis: Axis, left: float, wide: float) -> Iterator[str]:
    """Yield the bars of a stack, each of which tells all its values when pointed at."""
    faint = f' opacity="{_FAINT}"' if stack.faint else ""
    pairs = [(label, kind, value) for (label, kind), value in zip(keys, stack.values, strict=True) if value]
    told = escape(f"{stack.name}: {', '.join(f'{label} {number(value)}' for label, _, value in pairs)}")
    below = 0.0
    for _, kind, value in pairs:
        top, high = axis.y(below + value), axis.y(below) - axis.y(below + value)
        below += value
        place = f'x="{left:.2f}" y="{top:.1f}" width="{wide:.2f}" height="{high:.1f}"'
        yield f'<rect class="{kind}" {place}{faint}><title>{told}</title></rect>'
