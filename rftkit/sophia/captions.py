"""Captions of drawn scenes: what is asked, what the true one says, and how a caption's words are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rftkit.common.errors import UserError
from rftkit.tasks.drawn.scenes import DrawnTask, Scene
from rftkit.tasks.example import Example
from rftkit.tasks.registry import DRAWN
from rftkit.tasks.worlds import SIDE

# The question is hidden, or the caption would answer it (paper, section 3.1). Bundled models know both readings.
PROMPTS = {"rows": "Read the picture row by row.", "columns": "Read the picture column by column."}
USUAL = {"math": "columns", "puzzle": "rows"}  # that start models read best
MOST_DIGITS = 6  # of a number that is read
LINES = 4  # rows and columns of a picture that is read out


@dataclass(frozen=True)
class Item:
    """An example of a drawn task with the scene that it asks about."""

    example: Example
    scene: Scene
    kind: str
    level: int


def items(task: DrawnTask, split: str, part: str, count: int, seed: int = 0) -> list[Item]:
    """The examples of `DrawnTask.examples`, the same in the same order, with their scenes."""
    return list(islice(endless_items(task, split, part, seed), count))


def endless_items(task: DrawnTask, split: str, part: str, seed: int = 0) -> Iterator[Item]:
    """As `items`, without end."""
    pairs = (task.test_parts | task.levels | {"all": task.trained})[part]
    for number, (kind, level, scene) in enumerate(task.scenes(pairs, split, seed)):
        yield Item(task.example(split, number, kind, level, scene), scene, kind, level)


def drawn_task(name: str) -> DrawnTask:
    """The drawn task called `name`; UserError if its captions cannot be read by rule."""
    if name not in USUAL:
        raise UserError(f"captions of '{name}' cannot be read by rule: choose one of {', '.join(USUAL)}")
    return DRAWN[name]


def line_of(pixel: float) -> int:
    """The row of a height, or the column of a width, in pixels of a picture."""
    return min(LINES - 1, int(pixel * LINES / SIDE))


def true_caption(scene: Scene, prompt: str) -> str:
    """All that stands on a picture, line by line: `rows` from the top or `columns` from the left."""
    lines: dict[int, list[tuple[float, str]]] = {}
    for word, x, y in scene.marks:
        across, along = (y, x) if prompt == "rows" else (x, y)
        lines.setdefault(line_of(across), []).append((along, word))
    read = []
    for line in sorted(lines):
        marks = sorted(lines[line], key=lambda mark: mark[0])
        read.append(" ".join(word for _, word in marks))
    return ", ".join(read)


def lines_of(caption: str) -> list[list[str]]:
    """A caption's words, line by line."""
    return [part.split() for part in caption.split(",") if part.strip()]


def number_of(word: str) -> int | None:
    """The number that a word is; None of another word, or of a flood of digits."""
    return int(word) if word.isdecimal() and len(word) <= MOST_DIGITS else None


def numbers_of(words: Sequence[str]) -> list[int]:
    return [number for word in words if (number := number_of(word)) is not None]


def words_of(lines: Sequence[Sequence[str]]) -> list[str]:
    return [word for line in lines for word in line]
