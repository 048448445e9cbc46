r"""Problems to solve, from a jsonl file in the shapes of GSM8K and MATH, and the prompts that they become.

    {"question": "...", "answer": "... #### 42"}                                              GSM8K
    {"problem": "...", "solution": "... \boxed{42}", "level": "Level 3", "subject": "Algebra"}   MATH

Either may have `paraphrases`, a list of the same problem in other words, and `id`, a name.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.corpus import Renderer
from kubesae.errors import ConfigError
from kubesae.experiment import sha256_hex
from kubesae.reason.scoring import stated_answer

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from kubesae.corpus import Tokenizer

_QUESTION = "Question:"
_NEXT = f"\n{_QUESTION}"
INSTRUCTION = "Solve the problem step by step. End with the final answer in \\boxed{}."


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem.

    Attributes:
        name: its `id`, or the number of its line.
        text: what is asked.
        solution: a worked solution that came with it.
        answer: the right answer, taken from the solution; None where it states none.
        level: how hard it is, as the file says it; may be empty.
        subject: what it is about, as the file says it; may be empty.
        paraphrases: the same problem in other words, as the file gives it.

    """

    name: str
    text: str
    solution: str
    answer: str | None
    level: str = ""
    subject: str = ""
    paraphrases: tuple[str, ...] = ()

    @property
    def half(self) -> int:
        """0: features are ranked on it; 1: what is reported of them is measured on it. By the hash of its text."""
        return int(sha256_hex(self.text.encode())[:8], 16) % 2


def read_problems(path: Path) -> tuple[list[Problem], str]:
    """Return the problems of a file, and the file's SHA-256.

    Raises:
        ConfigError: there is no such file, or a line is no problem.

    """
    try:
        data = path.read_bytes()
        lines = data.decode("utf-8").split("\n")  # splitlines() also cuts at what JSON allows within a string
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Give a jsonl file of problems.") from error
    problems = [
        _problem(line, number, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not problems:
        raise ConfigError(f"{path} holds no problems. Give a jsonl file with a problem a line.")
    return problems, sha256_hex(data)


def _problem(line: str, number: int, where: str) -> Problem:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where} is no JSON: {error}. Write an object a line.") from error
    shapes = (("question", "answer"), ("problem", "solution"))
    found = next((shape for shape in shapes if isinstance(row, dict) and shape[0] in row), None)
    if found is None:
        have = ", ".join(map(str, row)) if isinstance(row, dict) else str(row)[:40]
        raise ConfigError(f"{where} has neither `question` (GSM8K) nor `problem` (MATH); it has: {have}.")
    text, solution = row[found[0]], row.get(found[1], "")
    paraphrases = row.get("paraphrases", [])
    texts: list[Any] = [text, solution, *(paraphrases if isinstance(paraphrases, list) else [None])]
    if not all(isinstance(value, str) for value in texts) or not text.strip():
        raise ConfigError(f"{where}: `{found[0]}`, `{found[1]}` and each of `paraphrases` have to be text.")
    level, subject = str(row.get("level", "")), str(row.get("subject", row.get("type", "")))
    name = str(row.get("id", row.get("unique_id", number)))
    return Problem(name, text, solution, stated_answer(solution), level, subject, tuple(paraphrases))


class Prompts:
    """Makes prompts: by the tokenizer's chat template where it has one, else as plain text after BOS."""

    def __init__(self, tokenizer: Tokenizer, instruction: str) -> None:
        """`instruction` is said after each problem; it may be empty."""
        self._tokenizer = tokenizer
        self._instruction = instruction
        self._renderer = Renderer(tokenizer) if tokenizer.has_chat_template else None
        info = tokenizer.info
        self._begin = np.array([] if info.bos is None else [info.bos], np.uint32)

    @property
    def chat(self) -> bool:
        """Whether the chat template is used."""
        return self._renderer is not None

    def ids(self, text: str, where: str) -> npt.NDArray[np.uint32]:
        """Return the tokens of the prompt of a problem's text, uint32. Raises ConfigError where the template does."""
        asked = f"{text}\n\n{self._instruction}" if self._instruction else text
        if self._renderer is None:
            return np.concatenate([self._begin, self.encode(f"{_QUESTION} {asked}\nAnswer:")])
        prompt = self._renderer.prompt(({"role": "user", "content": asked},), where)
        return self._tokenizer.encode_marked([prompt])[0].ids

    def own(self, ids_T: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Return those of the tokens that a model wrote that are about the problem; the first one in any case.

        Without a chat template the prompt is text like any other, and models go on with a next question of their own.
        """
        text = self._tokenizer.text(ids_T)
        if self.chat or _NEXT not in text:
            return ids_T
        length = len(text.partition(_NEXT)[0])
        kept = bisect_right(range(1, len(ids_T)), length, key=lambda count: len(self._tokenizer.text(ids_T[:count])))
        return ids_T[: max(kept, 1)]

    def plain(self, text: str) -> npt.NDArray[np.uint32]:
        """Return the tokens of a text by itself, as a context of the data begins: after BOS where there is one."""
        return np.concatenate([self._begin, self.encode(text)])

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Return the tokens of text that goes on, uint32."""
        return self._tokenizer.encode([text])[0].ids
