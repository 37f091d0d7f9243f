"""The exact-rule reasoner: it follows a question's rule on a caption's words and on nothing else.

It never sees picture, scene or right answer, so it is wrong where the caption is. It can slip, and always words its
thoughts in one style: "the shortest" of several would pick a style. It knows the questions of `math` and `puzzle`.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rftkit.sophia.captions import lines_of, number_of, numbers_of, words_of
from rftkit.sophia.reasoners import Problem
from rftkit.tasks.drawn.puzzle import SIZES
from rftkit.tasks.drawn.scenes import FIGURES
from rftkit.tasks.worlds.shapes import COLOURS

CONCEPTS = {"colour": tuple(sorted(COLOURS)), "shape": FIGURES, "size": tuple(SIZES)}
CANNOT_TELL = "it is hard to see"
NAME_OR_NUMBER = re.compile(r"[a-z]+|\d+")


@dataclass(frozen=True)
class Found:
    """Steps of a thought, and the answer that they come to; None where the caption does not tell."""

    steps: list[str]
    answer: str | None


@dataclass(frozen=True)
class Rule:
    """The reasoner.

    Args:
        copy_slip: chance (0-1) that a trajectory takes one number or name of the caption for another.
        step_slip: chance that it works out one step wrongly, or chooses wrongly.
    """

    copy_slip: float = 0.05
    step_slip: float = 0.07

    def reason(self, problems: Sequence[Problem], n: int, seed: int) -> list[list[str]]:
        """`n` reasonings on each caption; the same problem and seed give the same ones."""
        return [
            [self._one(problem, random.Random(f"{seed}/{problem.key}/{number}")) for number in range(n)]
            for problem in problems
        ]

    def _one(self, problem: Problem, rng: random.Random) -> str:
        draw, lines = rng.random(), lines_of(problem.caption)
        slips_in_step = self.copy_slip <= draw < self.copy_slip + self.step_slip
        if draw < self.copy_slip:
            lines = _miscopied(lines, rng)
        if problem.choices is None:
            found = _math(problem, lines, rng, slips_in_step)
        else:
            found = _puzzle(problem, lines)
            if slips_in_step or found.answer not in problem.choices:
                found = Found(found.steps, rng.choice(problem.choices))
        return f"<think> {', '.join(found.steps)} </think> <answer> {found.answer} </answer>"


def says_enough(problem: Problem) -> str | None:
    """The answer that follows from a caption alone, without slips and guesses; None if none does."""
    lines = lines_of(problem.caption)
    if problem.choices is None:
        numbers, signs = _operation(problem, lines)
        known = len(numbers) > 1 and None not in numbers and len(signs) == len(numbers) - 1
        return str(_worked_out(numbers, signs)[1]) if known else None
    answer = _puzzle(problem, lines).answer
    return answer if answer in problem.choices else None


def concept_of(word: str) -> str | None:
    """Whether a word is a colour, shape or size."""
    return next((name for name, words in CONCEPTS.items() if word in words), None)


def _miscopied(lines: list[list[str]], rng: random.Random) -> list[list[str]]:
    """The lines with a number one off, or a name in place of another of its kind."""
    places = [(r, c) for r, line in enumerate(lines) for c, word in enumerate(line)
              if number_of(word) is not None or concept_of(word)]  # fmt: skip
    if not places:
        return lines
    row, column = rng.choice(places)
    word = lines[row][column]
    if (number := number_of(word)) is not None:
        other = str(max(0, number + rng.choice((-1, 1))))
    else:
        other = rng.choice([name for name in CONCEPTS[concept_of(word)] if name != word])
    return [[other if (r, c) == (row, column) else w for c, w in enumerate(line)] for r, line in enumerate(lines)]


def _math(problem: Problem, lines: list[list[str]], rng: random.Random, slips: bool) -> Found:
    numbers, signs = _operation(problem, lines)
    spare = numbers_of(words_of(lines)) or [rng.randint(1, 9)]
    numbers = [rng.choice(spare) if number is None else number for number in numbers or [None]]
    signs = (signs + ["+"] * len(numbers))[: len(numbers) - 1]
    wrong = rng.randrange(len(signs)) if slips and signs else None
    steps, total = _worked_out(numbers, signs, wrong, rng.choice((-10, -1, 1, 10)))
    return Found(steps or [f"it is {total}"], str(total))


def _worked_out(numbers: list[int], signs: list[str], wrong: int | None = None, off: int = 0) -> tuple[list[str], int]:
    """Each step in words, and the result; step number `wrong` comes out `off`."""
    steps, total = [], numbers[0]
    for place, (sign, number) in enumerate(zip(signs, numbers[1:], strict=True)):
        before, total = total, total + number if sign == "+" else total - number
        total = max(0, total + (off if place == wrong else 0))
        steps.append(f"{before} {'plus' if sign == '+' else 'minus'} {number} is {total}")
    return steps, total


def _operation(problem: Problem, lines: list[list[str]]) -> tuple[list[int | None], list[str]]:
    """The numbers that a question asks for (None: the caption lacks it) and the signs between them."""
    question, words = problem.question, words_of(lines)
    numbers: list[int | None] = [*numbers_of(words)]
    if "bar chart" in question:
        asked = [word for word in re.findall(r"[a-z]+", question) if word in COLOURS]
        heights = _bars(problem, lines)
        signs = ["+" if word == "plus" else "-" for word in re.findall(r"plus|minus", question)]
        return [heights.get(name) for name in asked], signs
    if "angle" in question:
        return [360 if "quadrilateral" in question else 180, *numbers], ["-"] * len(numbers)
    if "perimeter" in question:
        return numbers, ["+"] * (len(numbers) - 1)
    return numbers, [word for word in words if word in ("+", "-")]


def _bars(problem: Problem, lines: list[list[str]]) -> dict[str, int]:
    """The height that stands above each colour: in its column, or as manieth in the rows."""
    if problem.prompt == "rows":
        words = words_of(lines)
        colours = [word for word in words if word in COLOURS]
        return dict(zip(colours, numbers_of(words), strict=False))
    heights = {}
    for line in lines:
        colours, numbers = [w for w in line if w in COLOURS], numbers_of(line)
        if colours and numbers:
            heights[colours[0]] = numbers[0]
    return heights


def _puzzle(problem: Problem, lines: list[list[str]]) -> Found:
    try:
        if "number" in problem.question:
            return _number_pattern(lines)
        grid = [_cells(line) for line in lines]
        return _two_concepts(grid) if problem.question.startswith("What belongs") else _cycle(problem.question, grid)
    except (LookupError, ValueError, TypeError, StopIteration):  # the caption does not tell
        return Found([CANNOT_TELL], None)


def _number_pattern(rows: list[list[str]]) -> Found:
    hidden_row, hidden = next((row, row.index("?")) for row in rows if "?" in row)
    if len(rows) == 1:  # a row that counts up
        known = [int(word) for word in hidden_row[:hidden]]
        step, before = known[1] - known[0], known[-1]
        return Found([f"the step is {step}", f"{before} plus {step} is {before + step}"], str(before + step))
    pairs = [(int(row[0]), int(row[1])) for row in rows if "?" not in row]
    (a, b), left = pairs[0], int(hidden_row[0])
    if all(y - x == b - a for x, y in pairs):
        gap = b - a
        return Found([f"{b} minus {a} is {gap}", f"{left} plus {gap} is {left + gap}"], str(left + gap))
    if all(x + y == a + b for x, y in pairs):
        return Found([f"{b} plus {a} is {a + b}", f"{a + b} minus {left} is {a + b - left}"], str(a + b - left))
    raise ValueError("neither one sum nor one difference")


def _cells(line: list[str]) -> list[dict[str, str]]:
    """A line's words as cells: one begins at '?', and where the last one has a word of this concept already."""
    cells: list[dict[str, str]] = []
    for word in line:
        concept = "?" if word == "?" else concept_of(word)
        if concept is None:
            continue
        if not cells or concept == "?" or "?" in cells[-1] or concept in cells[-1]:
            cells.append({})
        cells[-1][concept] = word
    return cells


def _two_concepts(grid: list[list[dict[str, str]]]) -> Found:
    row, column = next((r, c) for r, cells in enumerate(grid) for c, cell in enumerate(cells) if "?" in cell)
    colour = Counter(cell["colour"] for cell in grid[row] if "colour" in cell).most_common(1)[0][0]
    figures = Counter(cells[column]["shape"] for cells in grid if len(cells) > column and "shape" in cells[column])
    figure = figures.most_common(1)[0][0]
    return Found([f"the row is {colour}", f"the column is {figure}"], f"{colour} {figure}")


def _cycle(question: str, grid: list[list[dict[str, str]]]) -> Found:
    concept = next(name for name in CONCEPTS if name in question)
    row = [None if "?" in cell else cell[concept] for cells in grid for cell in cells]
    hidden = row.index(None)
    period = next(p for p in (2, 3, 4) if all(a == b for a, b in zip(row, row[p:], strict=False) if a and b))
    value = next(word for word in row[hidden % period :: period] if word)
    pattern = [next((word for word in row[k::period] if word), value) for k in range(period)]
    return Found([f"the pattern is {' '.join(pattern)}", f"number {hidden + 1} is {value}"], value)
