"""Spatial questions of CV-Bench's four kinds (paper, section 4.2): count, relation, depth, distance."""

from __future__ import annotations

import math
import random

from rftkit.tasks.drawn.scenes import CANVAS, FIGURES, LEVELS, DrawnTask, Place, Scene, Sketch, cell, options
from rftkit.tasks.worlds.shapes import COLOURS

SKY = 0.35 * CANVAS  # the horizon of a depth scene, pixels from the top

Thing = tuple[str, str]  # colour and figure


def _name(thing: Thing) -> str:
    return " ".join(thing)


def _counted(number: int, thing: Thing) -> str:
    return _name(thing) if number == 1 else _name(thing) + ("es" if thing[1].endswith("s") else "s")


def _things(count: int, rng: random.Random) -> list[Thing]:
    """Things that differ in colour and in figure."""
    return list(zip(rng.sample(sorted(COLOURS), count), rng.sample(FIGURES, count), strict=True))


def _spread(count: int, least: float, rng: random.Random) -> list[Place]:
    """Places on the canvas, each at least so many pixels from the others."""
    places: list[Place] = []
    while len(places) < count:
        place = tuple(rng.uniform(16, CANVAS - 16) for _ in range(2))
        if all(math.dist(place, other) >= least for other in places):
            places.append(place)
        elif rng.random() < 0.02:
            places.clear()  # no room left: start again
    return places


def count(level: int, rng: random.Random) -> Scene:
    """How many of a figure there are, among others: one to four, three to six, five to eight."""
    numbers = range(2 * level - 1, 2 * level + 3)
    (asked, other), wanted, others = _things(2, rng), rng.choice(numbers), rng.randint(0, 2)
    sketch = Sketch(rng)
    places = _spread(wanted + others, 26, rng)
    for number, place in enumerate(places):
        colour, figure = asked if number < wanted else other
        sketch.figure(place, figure, colour, rng.uniform(9, 12))
    return sketch.scene(
        f"How many {_counted(2, asked)} are in the picture?",
        str(wanted),
        options(str(wanted), [str(number) for number in numbers], rng),
        (f"I see {wanted} {_counted(wanted, asked)}", f"I see {others} {_counted(others, other)}"),
        f"count {wanted} {asked} {others} {other} {_spots(places)}",
    )


def _spots(places: list[Place]) -> list[tuple[int, int]]:
    return sorted(cell(place) for place in places)


def relation(level: int, rng: random.Random) -> Scene:
    """On which side of one thing another is; on higher levels with more things around."""
    things, places = _things(level + 1, rng), _spread(level + 1, 34, rng)
    dx, dy = places[0][0] - places[1][0], places[0][1] - places[1][1]
    if abs(abs(dx) - abs(dy)) < 16:  # neither beside nor above
        return relation(level, rng)
    sides = {True: ("left", "right"), False: ("above", "below")}[abs(dx) > abs(dy)]
    answer = sides[(dx if abs(dx) > abs(dy) else dy) > 0]
    sketch = Sketch(rng)
    for (colour, figure), place in zip(things, places, strict=True):
        sketch.figure(place, figure, colour, 13)
    return sketch.scene(
        f"Where is the {_name(things[0])}, seen from the {_name(things[1])}?",
        answer,
        options(answer, ["left", "right", "above", "below"], rng),
        tuple(_where(thing, place) for thing, place in zip(things[:2], places, strict=False)),
        f"relation {things} {[cell(place) for place in places]}",
    )


def _where(thing: Thing, place: Place) -> str:
    column, row = cell(place)
    return f"the {_name(thing)} is at {column} {row}"


def depth(level: int, rng: random.Random) -> Scene:
    """Which of two things on a plain is nearer: what is nearer stands lower and looks larger.

    On level 1 the things are of one true size; on level 2 of different sizes, so that only where they stand tells; on
    level 3 there is a third thing.
    """
    count = 2 if level < 3 else 3
    things, sizes = _things(count, rng), [1.0] * count if level == 1 else [rng.uniform(0.6, 1.4) for _ in range(count)]
    feet = [rng.uniform(SKY + 14, CANVAS - 4) for _ in things]
    columns = rng.sample([0.2, 0.5, 0.8], count)
    if abs(feet[0] - feet[1]) < 14:
        return depth(level, rng)
    sketch = Sketch(rng)
    sketch.ground(SKY)
    for place in sorted(range(count), key=lambda i: feet[i]):  # the nearer one covers the other
        radius = 5 + 14 * sizes[place] * (feet[place] - SKY) / (CANVAS - SKY)
        colour, figure = things[place]
        sketch.figure((columns[place] * CANVAS, feet[place] - radius), figure, colour, radius)
    near, far = (things[0], things[1]) if feet[0] > feet[1] else (things[1], things[0])
    return sketch.scene(
        f"Which is nearer, the {_name(things[0])} or the {_name(things[1])}?",
        _name(near),
        options(_name(near), [_name(far)], rng),
        (f"the {_name(near)} stands lower", f"the {_name(far)} stands higher"),
        f"depth {things} {columns} {[round(foot / 8) for foot in feet]}",
    )


def distance(level: int, rng: random.Random) -> Scene:
    """Which of two, three or four things is closest to another one."""
    things, places = _things(level + 2, rng), _spread(level + 2, 30, rng)
    apart = [math.dist(places[0], place) for place in places[1:]]
    nearest = min(range(len(apart)), key=apart.__getitem__)
    if min(value - apart[nearest] for i, value in enumerate(apart) if i != nearest) < 14:
        return distance(level, rng)
    sketch = Sketch(rng)
    for (colour, figure), place in zip(things, places, strict=True):
        sketch.figure(place, figure, colour, 12)
    answer = _name(things[1 + nearest])
    return sketch.scene(
        f"Which is closest to the {_name(things[0])}?",
        answer,
        options(answer, [_name(thing) for thing in things[1:]], rng),
        tuple(f"{_name(t)} {value / 12:.0f} away" for t, value in zip(things[1:], apart, strict=True)),
        f"distance {things} {[cell(place) for place in places]}",
    )


KINDS = {"count": count, "relation": relation, "depth": depth, "distance": distance}
TASK = DrawnTask("spatial", KINDS, {kind: tuple((kind, level) for level in LEVELS) for kind in KINDS})
