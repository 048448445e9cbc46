r"""What the answer is, and whether it is the right one: numbers, fractions, LaTeX and units are compared by value.

    is_right("So she has \boxed{\frac{1}{2}} cups.", "0.5")      # True

The answer of a text is, in this order: what its last \\boxed{} holds, what follows its last `####`, what follows "the
answer is", its last number. Two answers are the same where both are numbers of the same value, or else where their
texts are the same once normalised.
"""

from __future__ import annotations

import re
from fractions import Fraction

_MINUS = {0x2212: "-", 0x2013: "-"}
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HASHES = re.compile(r"####\s*([^\n]+)")
_SAID = re.compile(r"(?:final\s+)?answer\s*(?:is|:|=)\s*:?\s*([^\n]+)", re.IGNORECASE)
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?|-?\.\d+")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_MIXED = re.compile(r"(-?)(\d+)\s+(\d+)/(\d+)")
_PLAIN = re.compile(r"(-?)\(?(\d+(?:\.\d+)?|\.\d+)\)?(?:/\(?(-?\d+(?:\.\d+)?)\)?)?")
_WORDS = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf|operatorname)\s*\{([^{}]*)\}")
_SPACES = re.compile(r"\\[,;:! ]|\\(?:quad|qquad|left|right|displaystyle)(?![a-zA-Z])|~|\$|\*\*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# a number, and after it what it counts: a sign, words, or a letter or two apart from it ("5 m", but not "5x")
_COUNTED = re.compile(
    r"(-?\(?[\d./ ]*\d\)?)\s*(?:\\?%|°|\^\{?\\?circ\}?|\s[a-z]{1,2}(?:\^\{?\d\}?)?|\s?[a-z]{3,}[a-z -]*)\.?",
    re.IGNORECASE,
)


def stated_answer(text: str) -> str | None:
    """Return the answer of a text, as this module's docstring says; None where there is nothing like one."""
    boxed = _boxed(text)
    if boxed is not None:
        return boxed
    hashes = _HASHES.findall(text)
    return hashes[-1].strip() if hashes else _spoken(text)


def _spoken(text: str) -> str | None:
    said = _SAID.findall(text)
    if said:
        told = re.split(r"\.\s", said[-1])[0].rpartition("=")[2]  # of a sum, what it comes to
        number = _NUMBER.search(told) or _NUMBER.search(said[-1])
        return (number[0] if number else said[-1]).strip().rstrip(".")
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _boxed(text: str) -> str | None:
    """Return what the last box holds, braces within it matched; None without one that is closed."""
    for begin in reversed([match.end() for match in _BOXED.finditer(text)]):
        depth = 1
        for at in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                return text[begin:at].strip()
    return None


def is_right(text: str, answer: str) -> bool:
    """Whether the answer found in `text` is `answer`."""
    found = stated_answer(text)
    return found is not None and same(found, answer)


def same(one: str, other: str) -> bool:
    """Whether two answers are the same: by value where both are numbers, else by their normalised text."""
    values = value_of(one), value_of(other)
    if None not in values:
        return values[0] == values[1]
    return normalised(one) == normalised(other)


def value_of(answer: str) -> Fraction | None:
    """Return the number that an answer is, exactly; None where it is none."""
    text = normalised(answer)
    mixed = _MIXED.fullmatch(text)
    if mixed and int(mixed[4]):
        value = int(mixed[2]) + Fraction(int(mixed[3]), int(mixed[4]))
        return -value if mixed[1] else value
    plain = _PLAIN.fullmatch(text.replace(" ", ""))
    if not plain:
        return None
    value, under = Fraction(plain[2]), Fraction(plain[3] or 1)
    if under == 0:
        return None
    return (-value if plain[1] else value) / under


def normalised(answer: str) -> str:
    """Return an answer's text without what does not change its meaning: LaTeX of layout, units, spaces, `x =`."""
    text = answer.strip().strip(".").replace("\\$", "").replace("{,}", ",").replace(",\\!", ",")
    text = _SPACES.sub(" ", _WORDS.sub(r" \1", text)).translate(_MINUS)
    text = re.sub(r"(\d)\s*(\\[dt]?frac)", r"\1 \2", text)
    while (shorter := _FRACTION.sub(_as_ratio, text)) != text:
        text = shorter
    text = re.sub(r"^\s*[a-zA-Z]\w?\s*=\s*", "", text).strip()
    text = text if text.startswith(("(", "[")) else _THOUSANDS.sub("", text)  # a pair, or an interval
    text = re.sub(r"^[£€¥]\s*", "", text)
    if counted := _COUNTED.fullmatch(text.rstrip(".").strip()):
        text = counted[1]
    text = re.sub(r"\s+", " ", text.strip().rstrip(".").strip())
    return re.sub(r"\s*([,/()\[\]{}+*=^<>-])\s*", r"\1", text).lower()


def _as_ratio(found: re.Match[str]) -> str:
    over, under = found[1] or found[2], found[3] or found[4]
    return f"{over}/{under}" if over and under else f"({over})/({under})"
