"""The paper's real sets that are tables of rows: where each is, how its columns are named, how it is asked and judged.

The sets themselves stand in `sets.yaml`; the scoring rule is that of the task.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import yaml

from rftkit.tasks.outside.rows import Row, Texts


@dataclass(frozen=True)
class RealSet:
    """A set by the names of its splits and columns.

    `read` makes question, answer and choices of a row. `train` and `test` are the set's own splits, None where it has
    none; if they are the same, it may be trained on only to test on another set.
    """

    where: str  # id on the hub
    task: str
    read: Callable[[RealSet, Row], Texts]
    licence: str = "see its page"
    train: str | None = None
    test: str | None = None
    image: str = "image"
    question: str = "question"
    answer: str = "answer"
    choices: str | None = None
    letters: bool = False  # answers are letters of choices, not their texts
    shuffled: bool = False  # choices stand in an order that tells the answer: they are shuffled
    first_rows: int | None = None  # of the training split the first so many
    one_image: bool = False  # of the training split the rows with one image
    held_out: bool = True  # every tenth training picture is kept for choosing steps
    streamed: bool = False  # too large to be fetched whole
    on_hub: bool = True  # False: the hub has no images beside the rows, or no rows; a folder must be given
    images: str = ""  # folder of the images beside a JSON file

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every row must have."""
        return tuple(filter(None, (self.image, self.question, self.answer, self.choices)))

    @property
    def has_one_split(self) -> bool:
        """Whether all its rows belong together, so that a file need not say which split it is."""
        return None in (self.train, self.test) or self.train == self.test


def by_columns(entry: RealSet, row: Row) -> Texts:
    """A column each; numbers become texts, and a letter becomes the choice it stands for."""
    answer = as_text(row[entry.answer])
    choices = row[entry.choices] if entry.choices else None
    if choices and not isinstance(choices, list):
        return row[entry.question], answer, choices  # to be refused
    choices = [as_text(choice) for choice in choices or ()]
    if entry.letters and isinstance(answer, str):
        answer = chosen_by_letter(answer, choices)
    return row[entry.question], answer, choices or None


def chosen_by_letter(answer: str, choices: list[Any]) -> Any:
    """The choice that an answer names by its letter, such as B or (B); else the answer as it is."""
    letter = answer.strip().strip("().")
    place = ascii_uppercase.index(letter) if len(letter) == 1 and letter in ascii_uppercase else len(choices)
    return choices[place] if place < len(choices) else answer


def as_text(value: Any) -> Any:
    """A number as a text; anything else as it is."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


CHOICE_LIST = re.compile(r"\s*Please choose one from list \[\s*(.*?)\s*\]\.?\s*", re.DOTALL)
ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def by_choice_list(entry: RealSet, row: Row) -> Texts:
    """The authors' rows: the choice list stands in the question, the answer perhaps in answer tags."""
    question, answer = row[entry.question], row[entry.answer]
    if not isinstance(question, str) or not isinstance(answer, str):
        return question, answer, None
    found, tagged = CHOICE_LIST.search(question), ANSWER_TAG.search(answer)
    answer = (tagged[1] if tagged else answer).strip()
    if not found:
        return question, answer, None
    return question[: found.start()], answer, [choice.strip() for choice in found[1].split(",")]


LETTERED = re.compile(r"^\(([A-Z])\) *(.+)$", re.MULTILINE)


def by_turns(entry: RealSet, row: Row) -> Texts:
    """A turn that asks and one that answers: `value` in LLaVA's format, `content` in that of chats.

    MathV360K has MathVista's query in the first turn: `Hint: ...`, which says how to answer as a mode does here, then
    `Question: ...` and `Choices:` with a line each; the second is `The answer is B`.
    """
    turns = row[entry.question]
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns[:2]):
        return None, None, None
    asked, answer = (as_text(turn.get("value") or turn.get("content")) for turn in turns[:2])
    if not isinstance(asked, str) or not isinstance(answer, str):
        return asked, answer, None  # to be refused
    asked = re.sub(r"^(\s*<image>\s*)+", "", asked.strip())  # pictures that stand before the text anyhow
    asked = re.sub(r"^Hint:[^\n]*\n", "", asked).removeprefix("Question:").strip()
    answer = re.sub(r"^the answer is:?\s*", "", answer.strip(), flags=re.IGNORECASE).removesuffix(".").strip()
    asked, there, listed = asked.partition("\nChoices:")
    choices = [text.strip() for _, text in LETTERED.findall(listed)]
    chosen = chosen_by_letter(answer, choices)
    if chosen in choices:
        return asked.strip(), chosen, choices
    return asked + there + listed, answer, None


READERS = {reader.__name__: reader for reader in (by_columns, by_choice_list, by_turns)}
SETS = yaml.safe_load(Path(__file__).with_name("sets.yaml").read_text())
AUTHORS = SETS["authors"]["names"]


def _entry(given: dict[str, Any]) -> RealSet:
    return RealSet(**given | {"read": READERS[given["read"]]})


REAL_SETS = {name: _entry(given) for name, given in SETS["tables"].items()}
for name in AUTHORS:
    for kind in ("b2n", "fewshot"):
        where = {"where": f"{SETS['authors']['owner']}/{name}-4shot-{kind}"}
        REAL_SETS[f"{name}-4shot-{kind}"] = _entry(SETS["authors"]["entry"] | where)
