"""A page in one file that loads nothing else: its frame, its colours in light and dark, and what stands in it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ONE_LINE = 6
"""so many tiles fit beside each other; more stand in lines of four"""
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --card: #f6f7f9; --text: #1c2330; --quiet: #667085; --line: #dfe3ea;
  --train: #2f6fdf; --val: #d9622b; --other: #7a8699; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161d; --card: #1a2029; --text: #e7ebf2; --quiet: #93a0b4;
  --line: #2c3542; --train: #6ea4ff; --val: #ff9a62; --other: #8c99ad; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 17px; margin: 34px 0 12px; }
.quiet { color: var(--quiet); margin: 4px 0 22px; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.numbers.many { grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); }
.numbers div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.numbers b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.numbers span { color: var(--quiet); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 4px 12px; font-weight: 600; }
.key { color: var(--quiet); font-weight: 400; font-size: 13px; margin-left: 14px; }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin: 0 6px 3px 0;
  background: currentColor; vertical-align: middle; }
.key.train::before { background: var(--train); } .key.val::before { background: var(--val); }
.key.other::before { background: var(--other); } .key.dot::before { width: 8px; height: 8px; border-radius: 50%; }
svg { width: 100%; height: auto; display: block; }
.grid { stroke: var(--line); } .axis { fill: var(--quiet); font-size: 12px; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
polyline.train { stroke: var(--train); } polyline.val { stroke: var(--val); }
polyline.other { stroke: var(--other); stroke-dasharray: 5 5; }
rect.train { fill: var(--train); } rect.val { fill: var(--val); } rect.other { fill: var(--other); }
text.value { fill: var(--text); font-size: 13px; font-variant-numeric: tabular-nums; }
text.name { fill: var(--text); font-size: 13px; }
text.point { fill: var(--text); font-size: 12px; paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
figure p { margin: 8px 2px 2px; color: var(--text); font-size: 14px; }
circle.train { fill: var(--train); } circle.val { fill: var(--val); } circle.other { fill: var(--other); }
.charts figure:only-child { max-width: 760px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px 6px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--quiet); font-weight: 500; } td:first-child, th:first-child, .words { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; }
.scroll + dl { margin-top: 12px; } a { color: var(--train); }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
"""


def document(title: str, subtitle: str, content: Iterable[str]) -> str:
    """Return a page of `content`, HTML below its title."""
    return "\n".join(
        (
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>',
            f'<body><main><h1>{escape(title)}</h1><p class="quiet">{escape(subtitle)}</p>',
            *content,
            "</main></body></html>\n",
        )
    )


def section(title: str, *content: str) -> str:
    """Return a part of a page: its title, and HTML below it."""
    return "\n".join((f"<h2>{escape(title)}</h2>", *content))


def paragraph(text: str, *, quiet: bool = False) -> str:
    """Return a text as HTML; `quiet`: in a colour that stands back."""
    return f'<p class="quiet">{escape(text)}</p>' if quiet else f"<p>{escape(text)}</p>"


def bullets(sentences: Iterable[str]) -> str:
    """Return a list of sentences."""
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def pairs(values: Iterable[tuple[str, str]]) -> str:
    """Return names, each with its value beside it."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in values)}</dl>"


def tiles(numbers: Iterable[tuple[str, str]]) -> str:
    """Return large numbers, each with what it is: (value, label)."""
    shown = [f"<div><b>{escape(value)}</b><span>{escape(label)}</span></div>" for value, label in numbers]
    return f'<div class="numbers{" many" if len(shown) > _ONE_LINE else ""}">{"".join(shown)}</div>'


def charts(figures: Iterable[str]) -> str:
    """Return figures beside each other."""
    return f'<div class="charts">{"".join(figures)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> str:
    """Return a table of text, which scrolls where it is too wide; with a `title` it is a figure, beside others.

    Numbers stand under each other on the right; the first column is a name, and words begin on the left too.
    """
    cells = [list(row) for row in rows]
    kinds = [' class="words"' if _is_words(column) else "" for column in zip(*cells, strict=True)] or [""] * len(head)
    lines = ["".join(f"<th{kind}>{escape(label)}</th>" for kind, label in zip(kinds, head, strict=True))]
    lines += ["".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in cells]
    shown = f'<div class="scroll"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{shown}</figure>" if title else shown


def _is_words(column: Iterable[str]) -> bool:
    return any(cell[:1].isalpha() for cell in column)
