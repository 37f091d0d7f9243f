"""Puzzles: PuzzleVQA's patterns of one and two concepts, and kinds no run is trained on (AlgoPuzzleVQA's place)."""

from __future__ import annotations

import random

from rftkit.tasks.drawn.scenes import (
    CANVAS,
    FIGURES,
    INK,
    LEVELS,
    DrawnTask,
    Scene,
    Sketch,
    around,
    numbers_around,
    options,
    slot,
)
from rftkit.tasks.worlds.shapes import COLOURS

SIZES = {"small": 7, "medium": 11, "large": 15}  # pixels from the middle of a figure
PLACES = [slot(column, row) for row in range(3) for column in range(3)]  # reading order


def _hidden(level: int, rng: random.Random) -> int:
    """Which of nine places is asked for: one of the last row on level 1, any but the first row on higher ones."""
    return rng.randint(6 if level == 1 else 3, 8)


def _cycle(values: list[str], concept: str, level: int, rng: random.Random, all_values: list[str]) -> Scene:
    """Values that repeat in reading order, one of them hidden: two on level 1, three, then four."""
    hidden, length = _hidden(level, rng), level + 1
    row = [values[k % length] for k in range(9)]
    sketch = Sketch(rng)
    plain, tint = rng.choice(FIGURES), rng.choice(sorted(COLOURS))
    seen = {"colour": plain, "shape": tint}.get(concept, f"{plain} {tint}")  # beside the values
    for k, (place, value) in enumerate(zip(PLACES, row, strict=True)):
        if k == hidden:
            sketch.write(place, "?")
        elif concept == "colour":
            sketch.figure(place, plain, value, 14)
        elif concept == "shape":
            sketch.figure(place, value, tint, 14)
        else:
            sketch.figure(place, plain, tint, SIZES[value])
            sketch.marks.append((value, *place))
    asked = {"colour": "What colour", "shape": "What shape", "size": "What size"}[concept]
    return sketch.scene(
        f"{asked} belongs where the question mark is?",
        row[hidden],
        options(row[hidden], all_values, rng),
        (f"the pattern is {' '.join(values[:length])}", f"number {hidden + 1} is {row[hidden]}"),
        f"{concept} {values[:length]} {hidden} {seen}",
    )


def colours(level: int, rng: random.Random) -> Scene:
    """A pattern of colours."""
    return _cycle(rng.sample(sorted(COLOURS), 4), "colour", level, rng, sorted(COLOURS))


def shapes(level: int, rng: random.Random) -> Scene:
    """A pattern of figures."""
    return _cycle(rng.sample(FIGURES, 4), "shape", level, rng, list(FIGURES))


def sizes(level: int, rng: random.Random) -> Scene:
    """A pattern of sizes; the longest has a size twice."""
    values = rng.sample(sorted(SIZES), 3)
    return _cycle([*values, values[1]], "size", level, rng, list(SIZES))


def numbers(level: int, rng: random.Random) -> Scene:
    """Pairs of numbers with one sum; on level 2 with one difference; on level 3 rows that count up by one step."""
    sketch = Sketch(rng)
    if level == 3:
        step, first = rng.randint(1, 5), rng.randint(1, 9)
        row, hidden = [first + step * k for k in range(4)], rng.choice([2, 3])
        for k, value in enumerate(row):
            sketch.write(slot(k, 1), "?" if k == hidden else str(value))
        answer = row[hidden]
        steps = (f"the step is {step}", f"{row[hidden - 1]} plus {step} is {answer}")
        content = f"numbers row {row} {hidden}"
    else:
        value, first = rng.randint(2, 9), [rng.randint(1, 9) for _ in range(3)]
        second = [value + n if level == 2 else value + 9 - n for n in first]
        hidden = rng.randrange(3)
        for k, (left, right) in enumerate(zip(first, second, strict=True)):
            sketch.write(slot(1, k), str(left))
            sketch.write(slot(2, k), "?" if k == hidden else str(right))
        answer, seen = second[hidden], (hidden + 1) % 3
        word, known = ("minus", value) if level == 2 else ("plus", value + 9)
        shown = f"{second[seen]} {word} {first[seen]} is {known}"
        last = f"{first[hidden]} plus {known}" if level == 2 else f"{known} minus {first[hidden]}"
        steps, content = (shown, f"{last} is {answer}"), f"numbers {level} {first} {second} {hidden}"
    question = "What number belongs where the question mark is?"
    return sketch.scene(question, str(answer), numbers_around(answer, rng), steps, content)


def colour_and_shape(level: int, rng: random.Random) -> Scene:
    """Two concepts: each row has one colour and each column one figure; two, three or three and any place hidden."""
    size = 2 if level == 1 else 3
    tints, figures = rng.sample(sorted(COLOURS), size), rng.sample(FIGURES, size)
    row, column = (size - 1, size - 1) if level < 3 else (rng.randrange(size), rng.randrange(size))
    sketch = Sketch(rng)
    for r, tint in enumerate(tints):
        for c, figure in enumerate(figures):
            place = slot(c, r)
            if (r, c) == (row, column):
                sketch.write(place, "?")
            else:
                sketch.figure(place, figure, tint, 14)
    answer = f"{tints[row]} {figures[column]}"
    others = [f"{tint} {figure}" for tint in tints for figure in figures]
    steps = (f"the row is {tints[row]}", f"the column is {figures[column]}")
    return sketch.scene("What belongs where the question mark is?", answer, options(answer, others, rng), steps,
        f"colour and shape {tints} {figures} {row} {column}",
    )  # fmt: skip


def clock(level: int, rng: random.Random) -> Scene:
    """A clock with an hour hand: what hour it will be in one to three, up to six, up to eleven hours."""
    hour, tint = rng.randint(1, 12), rng.choice(sorted(COLOURS))
    later = rng.randint(1, (3, 6, 11)[level - 1])
    answer = str((hour + later - 1) % 12 + 1)
    sketch = Sketch(rng)
    middle = CANVAS / 2
    sketch.canvas.ellipse([8, 8, CANVAS - 8, CANVAS - 8], outline=INK, width=4)
    for mark in range(12):
        inner, outer = (around(radius, mark / 12) for radius in (46, 54))
        sketch.canvas.line([inner, outer], fill=INK, width=3)
    sketch.canvas.line([(middle, middle), around(36, hour / 12)], fill=sketch.shade(tint), width=6)
    sketch.write(around(36, 0), "12")
    return sketch.scene(f"What hour will it be in {later} hour{'s' if later > 1 else ''}?", answer,
        options(answer, [str(n) for n in range(1, 13)], rng), (f"it is {hour}", f"{later} after {hour} is {answer}"),
        f"clock {hour} {later} {tint}",
    )  # fmt: skip


def wheel(level: int, rng: random.Random) -> Scene:
    """A wheel of coloured sectors that turns clockwise by some of them: which colour is then at the top."""
    count = 3 + level
    tints, turns = rng.sample(sorted(COLOURS), count), rng.randint(1, level + 1)
    answer = tints[-turns % count]
    sketch = Sketch(rng)
    for k, tint in enumerate(tints):
        start = -90 + 360 * (k - 0.5) / count
        sketch.canvas.pieslice([12, 12, CANVAS - 12, CANVAS - 12], start, start + 360 / count, fill=sketch.shade(tint))
        sketch.marks.append((tint, *around(36, k / count)))
    sketch.canvas.polygon([(58, 0), (70, 0), (64, 12)], fill=INK)
    question = f"The wheel turns clockwise by {turns} of its {count} parts. Which colour is then at the arrow?"
    steps = (f"{tints[0]} is at the arrow", f"{answer} is {turns} before it")
    return sketch.scene(question, answer, options(answer, tints, rng), steps, f"wheel {tints} {turns}")


def walk(level: int, rng: random.Random) -> Scene:
    """Steps on a grid from a dot: in which corner of the grid they end."""
    corners = {"top left": (0, 0), "top right": (2, 0), "bottom left": (0, 2), "bottom right": (2, 2)}
    answer = rng.choice(sorted(corners))
    column, row = corners[answer]
    moves = []
    while len(moves) < level + 2:  # walked backwards from the corner
        move, (dx, dy) = rng.choice([("left", (1, 0)), ("right", (-1, 0)), ("up", (0, 1)), ("down", (0, -1))])
        if 0 <= column + dx <= 2 and 0 <= row + dy <= 2:
            column, row = column + dx, row + dy
            moves.insert(0, move)
    sketch = Sketch(rng)
    for k in range(4):
        sketch.canvas.line([(4 + 40 * k, 4), (4 + 40 * k, 124)], fill=INK, width=2)
        sketch.canvas.line([(4, 4 + 40 * k), (124, 4 + 40 * k)], fill=INK, width=2)
    x, y = 24 + 40 * column, 24 + 40 * row
    sketch.canvas.ellipse([x - 12, y - 12, x + 12, y + 12], fill=sketch.shade("red"))
    sketch.marks += [("red", x, y), ("circle", x, y)]
    question = f"The dot moves {', '.join(moves)}. In which corner does it end?"
    return sketch.scene(question, answer, options(answer, list(corners), rng),
        (f"it starts in column {column + 1} and row {row + 1}", f"it ends at the {answer}"),
        f"walk {column} {row} {moves}",
    )  # fmt: skip


UNTRAINED = {"clock": clock, "wheel": wheel, "walk": walk}
KINDS = {
    "colours": colours,
    "shapes": shapes,
    "sizes": sizes,
    "numbers": numbers,
    "colour and shape": colour_and_shape,
} | UNTRAINED
PARTS = {
    "patterns": tuple((kind, level) for kind in KINDS if kind not in UNTRAINED for level in LEVELS),
    "untrained kinds": tuple((kind, level) for kind in UNTRAINED for level in LEVELS),
}
TASK = DrawnTask("puzzle", KINDS, PARTS, tuple(UNTRAINED))
