"""What captions and thoughts assert, held against the scene: each statement is true or false, none is judged by eye."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rftkit.prompts import parse_answer, thought_of
from rftkit.sophia.captions import MOST_DIGITS, Item, lines_of, numbers_of, true_caption, words_of
from rftkit.sophia.reasoners import Problem
from rftkit.sophia.rule import CANNOT_TELL, concept_of, says_enough

NUMBER = rf"(?<!\d)(\d{{1,{MOST_DIGITS}}})"
STEP = re.compile(rf"{NUMBER} (plus|minus) {NUMBER} is {NUMBER}(?!\d)")
UNSURE = (CANNOT_TELL, "hard to tell")


@dataclass(frozen=True)
class CaptionFacts:
    """Of a caption: whether it is the true one word for word; words it says, those of them that do not stand there in
    this order (false) or nowhere on the picture (invented), and words right as a share of the longer of the two."""

    whole: bool
    said: int
    false: int
    invented: int
    words_right: float
    suffices: bool  # the right answer follows from it alone


def caption_facts(item: Item, prompt: str, caption: str) -> CaptionFacts:
    """A caption beside the true one."""
    true, lines = lines_of(true_caption(item.scene, prompt)), lines_of(caption)
    words, there = words_of(lines), words_of(true)
    kept = _common(words, there)
    problem = Problem("", item.example.question, item.example.choices, caption, prompt)
    return CaptionFacts(
        whole=lines == true,
        said=len(words),
        false=len(words) - kept,
        invented=sum((Counter(words) - Counter(there)).values()),
        words_right=kept / max(1, len(words), len(there)),
        suffices=says_enough(problem) == item.example.answer,
    )


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before, row[0] = 0, 0
        for place, other in enumerate(b, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


@dataclass(frozen=True)
class ThoughtFacts:
    """Of a thought: statements about the picture (numbers that its steps take, names that it says), those not there;
    steps of arithmetic, those with a wrong result; whether it takes exactly the right numbers (None: it takes none)."""

    asserted: int
    invented: int
    steps: int
    wrong_steps: int
    right_numbers: bool | None

    @property
    def false(self) -> int:
        return self.invented + self.wrong_steps


def thought_facts(item: Item, completion: str) -> ThoughtFacts:
    """A completion's thought beside the scene.

    A first number that is the result before, and the 180 or 360 that angles are taken from, are no statements about the
    picture. Nor are the steps of a puzzle, whose numbers are worked out; of them the names count.
    """
    thought = thought_of(completion) or ""
    steps = _steps(thought)
    wrong = sum(c != (a + b if sign == "plus" else a - b) for a, sign, b, c in steps)
    there = Counter(word for word, _, _ in item.scene.marks)
    if item.example.task == "puzzle":
        names = {word for word in re.findall(r"[a-z]+", thought) if concept_of(word)}
        return ThoughtFacts(len(names), len(names - set(there)), len(steps), wrong, None)
    taken = _taken(steps, item.example.question)
    right = _taken(_steps(", ".join(item.example.steps)), item.example.question)
    invented = sum((Counter(taken) - Counter(numbers_of([*there.elements()]))).values())
    return ThoughtFacts(len(taken), invented, len(steps), wrong, sorted(taken) == sorted(right) if taken else None)


def _steps(thought: str) -> list[tuple[int, str, int, int]]:
    return [(int(a), sign, int(b), int(c)) for a, sign, b, c in STEP.findall(thought)]


def _taken(steps: list[tuple[int, str, int, int]], question: str) -> list[int]:
    """The numbers that steps take from the picture."""
    taken, before = [], None
    for left, _, right, result in steps:
        given = before is None and left in (180, 360) and "angle" in question
        taken += [right] if left == before or given else [left, right]
        before = result
    return taken


def abstains(completion: str, mode: str = "thinking") -> bool:
    """Whether a completion gives no answer, or says that it cannot tell."""
    said = completion.casefold()
    return parse_answer(completion, mode) in (None, "") or any(words in said for words in UNSURE)


def thoughts_table(items: Sequence[Item], answers: Sequence[dict]) -> pd.DataFrame:
    """A row for each of a run's answers (`evaluate.answer_rows`) with its `ThoughtFacts` and false statements."""
    rows = []
    for item, answer in zip(items, answers, strict=True):
        facts = thought_facts(item, answer["completion"])
        rows.append(answer | vars(facts) | {"false": facts.false})
    return pd.DataFrame(rows)


def by_length(answers: pd.DataFrame, right: str, bins: int = 4) -> pd.DataFrame:
    """Errors against length: answers in up to `bins` equal parts by `tokens`; accuracy and false statements of each.

    Args:
        right: the column that says whether an answer is right.
    """
    part = pd.qcut(answers["tokens"], bins, labels=False, duplicates="drop").fillna(0)
    found = answers.groupby(part).agg(
        shortest=("tokens", "min"), longest=("tokens", "max"), n=("tokens", "size"),
        accuracy=(right, "mean"), false=("false", "mean"),
    )  # fmt: skip
    return found.reset_index(drop=True)
