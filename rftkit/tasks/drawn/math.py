"""Math read off a picture, with more steps from level to level (where the paper has MathVista and MATH-Vision)."""

from __future__ import annotations

import math
import random

from rftkit.tasks.drawn.scenes import CANVAS, CELL, INK, LEVELS, DrawnTask, Scene, Sketch, around, nearest_slot, slot
from rftkit.tasks.worlds.shapes import COLOURS

BAR_UNIT = 9  # pixels of a bar's unit
INNER = [(column, row) for column in (1, 2) for row in (1, 2)]  # cells in the middle of a picture
OUTER = [(column, row) for column in range(4) for row in range(4) if (column, row) not in INNER]


def _chain(numbers: list[int], signs: list[str]) -> tuple[int, tuple[str, ...]]:
    """The value of numbers joined by + and -, from the left, and each step in words."""
    total, steps = numbers[0], []
    for sign, number in zip(signs, numbers[1:], strict=True):
        before, total = total, total + number if sign == "+" else total - number
        steps.append(f"{before} {'plus' if sign == '+' else 'minus'} {number} is {total}")
    return total, tuple(steps)


def _signs(numbers: list[int], rng: random.Random) -> list[str]:
    """A sign before each number but the first, such that no step falls below zero."""
    signs, total = [], numbers[0]
    for number in numbers[1:]:
        signs.append("-" if number <= total and rng.random() < 0.5 else "+")
        total += number if signs[-1] == "+" else -number
    return signs


def sums(level: int, rng: random.Random) -> Scene:
    """A sum or difference of two, three or four numbers, written one below the other."""
    numbers = [rng.randint(1, 20 if level == 1 else 9) for _ in range(level + 1)]
    signs = _signs(numbers, rng)
    answer, steps = _chain(numbers, signs)
    text = str(numbers[0]) + "".join(f"{sign}{number}" for sign, number in zip(signs, numbers[1:], strict=True))
    sketch = Sketch(rng)
    left, top = rng.randrange(3), rng.randrange(4 - level)
    for line, number in enumerate(numbers):
        if line:
            sketch.write(slot(left, top + line), signs[line - 1])
        sketch.write(slot(left + 1, top + line), str(number))
    return sketch.scene("What is the result?", str(answer), None, steps, f"sums {text}")


def bars(level: int, rng: random.Random) -> Scene:
    """Bars of a chart: the sum or difference of two of them, of three, of four."""
    names, heights = rng.sample(sorted(COLOURS), 4), [rng.randint(1, 9) for _ in range(4)]
    numbers = heights[: level + 1]
    signs = _signs(numbers, rng)
    answer, steps = _chain(numbers, signs)
    sketch = Sketch(rng)
    floor, order = CANVAS - 8, rng.sample(range(4), 4)
    for place, index in enumerate(order):
        left, top = CELL * place + 5, floor - BAR_UNIT * heights[index]
        sketch.canvas.rectangle([left, top, left + 22, floor], fill=sketch.shade(names[index]))
        sketch.marks.append((names[index], left + 11, floor - 4))
        sketch.write(slot(place, 0), str(heights[index]))
    sketch.canvas.line([(4, floor), (CANVAS - 4, floor)], fill=INK, width=2)
    asked = names[0] + "".join(f" {'plus' if sign == '+' else 'minus'} {name}" for sign, name in
                               zip(signs, names[1:], strict=False))  # fmt: skip
    return sketch.scene(f"In the bar chart, what is {asked}?", str(answer), None, steps,
        f"bars {asked} {numbers} {sorted(zip(names, heights, strict=True))}",
    )  # fmt: skip


def perimeter(level: int, rng: random.Random) -> Scene:
    """How long the sides of a drawn polygon are together: a triangle, a quadrilateral, a pentagon. That is one addition
    more than other kinds have at the same level."""
    sides = [rng.randint(1, 9) for _ in range(level + 2)]
    if 2 * max(sides) >= sum(sides):  # there is no such polygon
        return perimeter(level, rng)
    answer, steps = _chain(sides, ["+"] * (len(sides) - 1))
    count = len(sides)
    turn = (rng.random() - 0.5) / count  # the first side is the first one clockwise from the top
    sketch = Sketch(rng)
    corners = [around(36, turn + k / count) for k in range(count)]
    sketch.canvas.polygon(corners, outline=INK, fill=sketch.shade(rng.choice(sorted(COLOURS))), width=3)
    for k, side in enumerate(sides):
        sketch.write(nearest_slot(around(56, turn + (k + 0.5) / count), OUTER), str(side))
    # The same sides in another order, or turned, are the same scene.
    return sketch.scene("What is the perimeter?", str(answer), None, steps, f"perimeter {sorted(sides)}")


def angles(level: int, rng: random.Random) -> Scene:
    """The missing angle of a straight line (180 degrees), a triangle (180) or a quadrilateral (360)."""
    whole, known = (180, level) if level < 3 else (360, 3)
    given = [5 * rng.randint(4, 32 if level == 1 else 24) for _ in range(known)]
    mirrored = rng.random() < 0.5  # the marked angle on the right
    if not 20 <= whole - sum(given) <= 160:
        return angles(level, rng)
    answer, steps = _chain([whole, *given], ["-"] * known)
    sketch = Sketch(rng)
    if level == 1:
        _straight_line(sketch, given[0], mirrored)
    else:
        _polygon(sketch, given, rng)
    figure = ("on the line", "of the triangle", "of the quadrilateral")[level - 1]
    question = f"What is the angle {figure} that is marked x, in degrees?"
    return sketch.scene(question, str(answer), None, steps, f"angles {sorted(given)} {mirrored and level == 1}")


def _straight_line(sketch: Sketch, given: int, mirrored: bool) -> None:
    middle, floor, side = CANVAS / 2, 0.75 * CANVAS, -1 if mirrored else 1

    def point(radius: float, degrees: float) -> tuple[float, float]:
        angle = math.radians(degrees)
        return middle + side * radius * math.cos(angle), floor - radius * math.sin(angle)

    sketch.canvas.line([(6, floor), (CANVAS - 6, floor)], fill=INK, width=3)
    sketch.canvas.line([(middle, floor), point(70, given)], fill=INK, width=3)
    for text, degrees in ((str(given), given / 2), ("x", (180 + given) / 2)):
        sketch.write(nearest_slot(point(40, degrees), [*INNER, (0, 2), (3, 2)]), text)


def _polygon(sketch: Sketch, given: list[int], rng: random.Random) -> None:
    """A polygon with the given angles written at its corners and x at the last; not true to scale."""
    corners, turn = len(given) + 1, rng.random()
    points = [around(56, turn + k / corners) for k in range(corners)]
    sketch.canvas.polygon(points, outline=INK, width=3)
    for k, text in enumerate([*map(str, given), "x"]):
        sketch.write(nearest_slot(around(24, turn + k / corners), INNER), text)


KINDS = {"sums": sums, "bars": bars, "perimeter": perimeter, "angles": angles}
PARTS = {f"level {level}": tuple((kind, level) for kind in KINDS) for level in LEVELS}
TASK = DrawnTask("math", KINDS, PARTS)
