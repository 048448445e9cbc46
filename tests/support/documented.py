"""The messages of docs/troubleshooting.md: code blocks ```` ```message NAME ````, and the first cells of a table."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"

_BLOCK = re.compile(r"^```message (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CELL = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
_VARIES = re.compile(r"<[a-z]+>")


def blocks() -> dict[str, str]:
    """Return the text of every block by its name."""
    found = _BLOCK.findall(PAGE.read_text())
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def cells() -> list[str]:
    """Return the messages of the table of other messages."""
    return _CELL.findall(PAGE.read_text().partition("## Other messages")[2])


def pattern(text: str) -> str:
    """Return the regular expression of a documented text: `<word>` stands for what varies within a line."""
    return ".+?".join(re.escape(piece) for piece in _VARIES.split(text))


def has_lines(text: str, printed: str) -> bool:
    """Whether the whole lines `text` stand in `printed`, one after the other."""
    return re.search(rf"^{pattern(text.rstrip())}$", printed, re.MULTILINE) is not None


def has(text: str, printed: str) -> bool:
    """Whether `text` stands in a line of `printed`."""
    return re.search(pattern(text), printed) is not None
