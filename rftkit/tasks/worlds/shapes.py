"""Shapes: eighteen drawn figures, each picture a fresh scene (place, size, turn, colour, background, scribbles)."""

from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw

from rftkit.tasks.worlds import SIDE, Drawing, World

Point = tuple[float, float]
CANVAS = 2 * SIDE  # drawn at twice the size, then scaled down: smooth edges
TURN = 2 * math.pi

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (230, 200, 40),
    "purple": (150, 50, 190),
    "orange": (240, 140, 30),
    "cyan": (40, 190, 200),
    "pink": (240, 130, 180),
}


def _arc(radius: float, start: float, sweep: float, centre: Point = (0, 0), squeeze: float = 1.0) -> list[Point]:
    angles = [start + sweep * k / 32 for k in range(33)]
    return [(centre[0] + squeeze * radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]


def _polygon(corners: int, start: float = -TURN / 4, radius: float = 1.0) -> list[Point]:
    return [(radius * math.cos(start + TURN * k / corners), radius * math.sin(start + TURN * k / corners))
            for k in range(corners)]  # fmt: skip


def _star() -> list[Point]:
    inner = _polygon(5, -TURN / 4 + TURN / 10, 0.42)
    return [point for pair in zip(_polygon(5), inner, strict=True) for point in pair]


def _heart() -> list[Point]:
    angles = [TURN * k / 40 for k in range(40)]
    wave = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in angles]
    return [(math.sin(t) ** 3, -w / 16) for t, w in zip(angles, wave, strict=True)]


_W = 0.33  # half the width of a cross's arm
# Outlines within the unit circle.
OUTLINES: dict[str, list[Point]] = {
    "arrow": [(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)],
    "bolt": [(0.1, -1), (-0.6, 0.15), (-0.1, 0.15), (-0.3, 1), (0.6, -0.25), (0.1, -0.25)],
    "circle": _arc(1, 0, TURN),
    "crescent": _arc(1, TURN / 8, 0.75 * TURN) + _arc(0.75, 0.825 * TURN, -0.65 * TURN, (0.35, 0)),
    "cross": [(-_W, -1), (_W, -1), (_W, -_W), (1, -_W), (1, _W), (_W, _W),
              (_W, 1), (-_W, 1), (-_W, _W), (-1, _W), (-1, -_W), (-_W, -_W)],
    "diamond": [(0, -1), (0.55, 0), (0, 1), (-0.55, 0)],
    "dome": [(x, y + 0.5) for x, y in _arc(1, -TURN / 2, TURN / 2)],
    "heart": _heart(),
    "hexagon": _polygon(6, 0),
    "hourglass": [(-0.8, -1), (0.8, -1), (0.12, 0), (0.8, 1), (-0.8, 1), (-0.12, 0)],
    "oval": _arc(1, 0, TURN, squeeze=0.55),
    "pentagon": _polygon(5),
    "ring": _arc(1, 0, TURN),
    "square": _polygon(4, TURN / 8),
    "star": _star(),
    "teardrop": [(0, -1), *[(x, y + 0.35) for x, y in _arc(0.65, -0.06 * TURN, 0.62 * TURN)]],
    "trapezoid": [(-0.45, -0.7), (0.45, -0.7), (1, 0.7), (-1, 0.7)],
    "triangle": _polygon(3),
}  # fmt: skip
ROUND = ("circle", "crescent", "dome", "heart", "oval", "ring", "teardrop")
COARSE = {label: "round thing" if label in ROUND else "angular thing" for label in OUTLINES}
CORNERS = {
    "arrow": "seven", "bolt": "six", "circle": "no", "crescent": "two", "cross": "twelve", "diamond": "four",
    "dome": "two", "heart": "one", "hexagon": "six", "hourglass": "six", "oval": "no", "pentagon": "five",
    "ring": "no", "square": "four", "star": "ten", "teardrop": "one", "trapezoid": "four", "triangle": "three",
}  # fmt: skip


def _scene(label: str, rng: random.Random) -> tuple[Image.Image, str]:
    """One random scene of a shape: the picture and the name of its colour."""
    background = tuple(rng.randint(225, 255) for _ in range(3))
    image = Image.new("RGB", (CANVAS, CANVAS), background)
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.randint(0, 6)):  # scribbles that mean nothing
        x, y = rng.randint(0, CANVAS), rng.randint(0, CANVAS)
        end = (x + rng.randint(-30, 30), y + rng.randint(-30, 30))
        canvas.line([(x, y), end], fill=tuple(rng.randint(120, 220) for _ in range(3)), width=2)
    colour = rng.choice(sorted(COLOURS))
    fill = tuple(max(0, min(255, value + rng.randint(-20, 20))) for value in COLOURS[colour])
    radius, tilt = rng.randint(24, 48), rng.uniform(-0.35, 0.35)
    cx, cy = (rng.randint(radius + 4, CANVAS - radius - 4) for _ in range(2))
    cos, sin = radius * math.cos(tilt), radius * math.sin(tilt)
    canvas.polygon([(cx + x * cos - y * sin, cy + x * sin + y * cos) for x, y in OUTLINES[label]], fill=fill)
    if label == "ring":
        hole = 0.55 * radius
        canvas.ellipse([cx - hole, cy - hole, cx + hole, cy + hole], fill=background)
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), colour


def draw(label: str, split: str, count: int, rng: random.Random) -> list[Drawing]:
    """`count` fresh scenes of a shape."""
    drawings = []
    for number in range(count):
        image, colour = _scene(label, rng)
        sides = "curved" if label in ROUND else "straight"
        corners = "one corner" if CORNERS[label] == "one" else f"{CORNERS[label]} corners"
        facts = (f"it is {colour}", f"it has {sides} sides", f"it has {corners}")
        drawings.append(Drawing(image, label, facts, f"{split}-{label}-{number}"))
    return drawings


WORLD = World("shapes", "What type of object is in the photo?", COARSE, draw)
