"""Reasoners: a question and a caption in, thoughts with answers out, never the picture (paper, section 3.1)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from rftkit.common.chat_server import ChatServer, within_seconds
from rftkit.common.errors import UserError
from rftkit.prompts import MAX_CHARACTERS, MODES, parse_answer

# Of a server or any local model. The paper's prompt, with the kit's tags in place of its box.
INSTRUCTION = (
    "You are given a question about an image, and a description of the image in place of the image itself. "
    "Reason as if you saw the image: say 'the image', never 'the description'. " + MODES["thinking"].suffix
)
WORKED = (
    "Question: What is the result?\nDescription, read column by column: +, 7 3",
    "<think> 7 plus 3 is 10 </think> <answer> 10 </answer>",
)
FAULTS = ("failed", "flooded", "unreadable")
MOST_FAILURES = 3  # batches in a row, then the reasoner is given up


@dataclass(frozen=True)
class Problem:
    """What a reasoner is told: a question and its choices, a caption, and how the caption reads (`rows`, `columns`).

    `key` names item and caption: with a seed it decides what a reasoner draws.
    """

    key: str
    question: str
    choices: tuple[str, ...] | None
    caption: str
    prompt: str = "columns"

    @property
    def text(self) -> str:
        """As a language model is asked it."""
        choices, line = f"\nChoices: {', '.join(self.choices)}" if self.choices else "", self.prompt.removesuffix("s")
        return f"Question: {self.question}{choices}\nDescription, read {line} by {line}: {self.caption}"


class Reasoner(Protocol):
    """Anything that reasons on captions."""

    def reason(self, problems: Sequence[Problem], n: int, seed: int) -> list[list[str | None]]:
        """`n` completions with thought and answer for each problem, None where there is none."""


class Reasoning(NamedTuple):
    """What a reasoner gave, and what is wrong with it, if anything: `failed`, not there (an error, or no time left);
    `flooded`, longer than MAX_CHARACTERS and dropped; `unreadable`, without an answer."""

    text: str | None
    fault: str = ""


@dataclass
class Guarded:
    """A reasoner whose failures cost bounded time and are told.

    Args:
        seconds: that a batch of problems may take.
    """

    reasoner: Reasoner
    seconds: float = 3600.0
    in_a_row: int = 0
    why: str = ""  # the last failure

    def reason(self, problems: Sequence[Problem], n: int, seed: int) -> list[list[Reasoning]]:
        """As `Reasoner.reason`, each completion checked; UserError if batch after batch fails."""
        try:
            said = within_seconds(self.seconds, lambda: self.reasoner.reason(problems, n, seed))
            fits = len(said) == len(problems) and all(len(own) == n for own in said)
        except UserError:
            raise
        except Exception as error:  # of somebody's reasoner: it may raise anything
            said, fits, self.why = [], False, f"{type(error).__name__}: {error}"[:200]
        else:
            self.why = self.why if fits else f"not {n} reasonings for each of {len(problems)} captions"
        self.in_a_row = 0 if fits else self.in_a_row + 1
        if self.in_a_row >= MOST_FAILURES:
            raise UserError(f"the reasoner failed {self.in_a_row} times in a row: {self.why}")
        if not fits:
            said = [[None] * n for _ in problems]
        return [[_checked(text) for text in own] for own in said]


def _checked(text: str | None) -> Reasoning:
    if not isinstance(text, str):
        return Reasoning(None, "failed")
    if len(text) > MAX_CHARACTERS:
        return Reasoning(None, "flooded")
    return Reasoning(text, "unreadable" if parse_answer(text, "thinking") is None else "")


@dataclass
class Server:
    """A language model behind an address.

    Each reasoning is a request of its own, told apart by its `seed`, so that a recorded reply is asked for (and paid)
    once. What is asked twice, as a caption that is drawn again, is asked once a seed and has the same reasonings.
    """

    client: ChatServer
    max_tokens: int = 512
    temperature: float = 1.0
    seconds: float = math.inf  # for a batch; what came until then is kept

    def reason(self, problems: Sequence[Problem], n: int, seed: int) -> list[list[str | None]]:
        different = {problem.text: messages(problem) for problem in problems}
        options = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        asked, ends = [*different.values()], time.monotonic() + self.seconds
        rounds = [
            self.client.ask_all(asked, ends - time.monotonic(), seed=seed * n + number, **options)
            for number in range(n)
        ]
        said = dict(zip(different, zip(*rounds, strict=True), strict=True))
        return [list(said[problem.text]) for problem in problems]


def messages(problem: Problem) -> list[dict[str, str]]:
    """A problem as a conversation with one worked example, text alone."""
    question, answer = WORKED
    return [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": problem.text},
    ]
