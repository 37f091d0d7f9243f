"""The paper's real sets that are tables of rows: where each is, how its columns are named, how it is asked and judged.

An entry is written against the loaders named above it; nobody here has read the sets themselves. The scoring rule is
that of the task (`rftkit.tasks.registry.rule_of_task`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

Row = dict[str, Any]
Texts = tuple[Any, Any, list[Any] | None]  # question, answer and choices as a row has them, not checked yet
SEE_PAGE = "see its page"


@dataclass(frozen=True)
class RealSet:
    """A set by the names of its splits and columns.

    `read` makes question, answer and choices of a row. `train` and `test` are the set's own splits, None where it has
    none; if they are the same, it may be trained on only to test on another set.
    """

    where: str  # id on the hub
    licence: str
    task: str
    train: str | None
    test: str | None
    read: Callable[[RealSet, Row], Texts]
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
    answer = _text(row[entry.answer])
    choices = row[entry.choices] if entry.choices else None
    if choices and not isinstance(choices, list):
        return row[entry.question], answer, choices  # to be refused
    choices = [_text(choice) for choice in choices or ()]
    if entry.letters and isinstance(answer, str):
        answer = chosen_by_letter(answer, choices)
    unit = f" (Unit: {row['unit']})" if row.get("unit") else ""  # MathVista asks so
    question = row[entry.question]
    return f"{question}{unit}" if isinstance(question, str) else question, answer, choices or None


def chosen_by_letter(answer: str, choices: list[Any]) -> Any:
    """The choice that an answer names by its letter, such as B or (B); else the answer as it is."""
    letter = answer.strip().strip("().")
    place = ascii_uppercase.index(letter) if len(letter) == 1 and letter in ascii_uppercase else len(choices)
    return choices[place] if place < len(choices) else answer


def _text(value: Any) -> Any:
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
    asked, answer = (_text(turn.get("value") or turn.get("content")) for turn in turns[:2])
    if not isinstance(asked, str) or not isinstance(answer, str):
        return asked, answer, None  # to be refused
    asked = re.sub(r"\s*<image>\s*", "", asked.strip())
    asked = re.sub(r"^Hint:[^\n]*\n", "", asked).removeprefix("Question:").strip()
    answer = re.sub(r"^the answer is:?\s*", "", answer.strip(), flags=re.IGNORECASE).removesuffix(".").strip()
    asked, there, listed = asked.partition("\nChoices:")
    choices = [text.strip() for _, text in LETTERED.findall(listed)]
    chosen = chosen_by_letter(answer, choices)
    if chosen in choices:
        return asked.strip(), chosen, choices
    return asked + there + listed, answer, None


# github.com/minglllli/CLS-RL: b2n.sh and fewshot.sh (names), grpo.py (columns, tags), few-shot-data.ipynb (the list).
AUTHORS = ("imagenet", "caltech", "dtd", "eurosat", "food", "flowers", "pets", "cars", "sun", "ucf", "fgvc")
REAL_SETS = {
    f"{name}-4shot-{kind}": RealSet(
        f"afdsafas/{name}-4shot-{kind}", SEE_PAGE, "classification", "train", None, by_choice_list,
        question="problem", answer="solution", held_out=False,
    )
    for name in AUTHORS
    for kind in ("b2n", "fewshot")
}  # fmt: skip
REAL_SETS |= {
    # Card of array/SAT: features, splits, licence, and that answers are to be shuffled. Paper: 15,000 rows, one image.
    "sat": RealSet(
        "array/SAT", "MIT", "spatial", "train", "test", by_columns, image="image_bytes", answer="correct_answer",
        choices="answers", shuffled=True, first_rows=15_000, one_image=True, streamed=True,
    ),
    # CLS-RL, grpo_sat.py: SAT_train_15000.json with images and messages, as VisualThinker-R1-Zero prepares it.
    "sat-15000": RealSet(
        "made by github.com/turningpoint-ai/VisualThinker-R1-Zero", SEE_PAGE, "spatial", "train", None, by_turns,
        image="images", question="messages", answer="messages", on_hub=False,
    ),
    # CLS-RL, test_cvbench.py; lmms-eval, tasks/cv_bench: choices, answer "(B)".
    "cv-bench": RealSet(
        "nyu-visionx/CV-Bench", "Apache-2.0", "spatial", None, "test", by_columns, choices="choices", letters=True,
    ),
    # Card of Zhiqiang007/MathV360K; Math-LLaVA's README: folders. The paper's 40,000 pairs are not marked in it.
    "mathv360k": RealSet(
        "Zhiqiang007/MathV360K", SEE_PAGE, "math", "train", None, by_turns, question="conversations",
        answer="conversations", on_hub=False, images="data_images",
    ),
    # lmms-eval, tasks/mathvista; card of AI4Math/MathVista: answer is the text of a choice, or a number with a unit.
    "mathvista": RealSet(
        "AI4Math/MathVista", "CC-BY-SA-4.0", "math", None, "testmini", by_columns, image="decoded_image",
        choices="choices",
    ),
    # lmms-eval, tasks/mathvision; card of MathLLMs/MathVision: answer is a letter where there are options.
    "mathvision": RealSet(
        "MathLLMs/MathVision", "MIT", "math", None, "testmini", by_columns, image="decoded_image", choices="options",
        letters=True,
    ),
    # github.com/declare-lab/LLM-PuzzleTest: data_loading.py and data/*.json, images beside them; the hub has one split.
    "puzzlevqa": RealSet(
        "declare-lab/PuzzleVQA", SEE_PAGE, "puzzle", "train", "train", by_columns, choices="options",
    ),
    # The same; on the hub the split is called "data" (users' loaders in the style of lmms-eval).
    "algopuzzlevqa": RealSet(
        "declare-lab/AlgoPuzzleVQA", "Apache-2.0", "puzzle", None, "data", by_columns, choices="options",
    ),
}  # fmt: skip
