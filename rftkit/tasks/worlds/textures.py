"""Textures: sixteen drawn patterns that fill the picture, each with its own scale, turn, colours and irregularity."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from PIL import Image

from rftkit.tasks.worlds import SIDE, Drawing, World
from rftkit.tasks.worlds.shapes import COLOURS

CANVAS = 2 * SIDE  # drawn at twice the size, then scaled down: smooth edges
Plane = np.ndarray  # [CANVAS, CANVAS]
# A pattern maps coordinates x and y (a unit is one period) and a noise source to ink between 0 and 1.
Pattern = Callable[[Plane, Plane, np.random.Generator], Plane]


def _cell(x: Plane) -> Plane:
    """How far each coordinate is from the middle of its period, 0 to 0.5."""
    return np.abs(x - np.floor(x) - 0.5)


def _points(x: Plane, y: Plane, noise: np.random.Generator) -> tuple[Plane, Plane]:
    """Distances to the nearest and the second nearest of points strewn one a unit cell."""
    low, high = int(min(x.min(), y.min())) - 2, int(max(x.max(), y.max())) + 2
    columns, rows = np.meshgrid(np.arange(low, high), np.arange(low, high))
    spots = np.stack([columns.ravel(), rows.ravel()], 1) + noise.uniform(0.1, 0.9, (columns.size, 2))
    spots = spots[(spots[:, 0] > x.min() - 2) & (spots[:, 0] < x.max() + 2)]
    spots = spots[(spots[:, 1] > y.min() - 2) & (spots[:, 1] < y.max() + 2)]
    squares = (x[..., None] - spots[:, 0]) ** 2 + (y[..., None] - spots[:, 1]) ** 2
    near = np.sqrt(np.partition(squares, 1, -1)[..., :2])
    return near[..., 0], near[..., 1]


def _clouds(noise: np.random.Generator, cells: int) -> Plane:
    """Smooth noise between 0 and 1."""
    grid = Image.fromarray(noise.uniform(0, 255, (cells, cells)).astype(np.uint8))
    return np.asarray(grid.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)) / 255


def _polar(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Radius, and turns (0 to 1), seen from the middle of the picture."""
    x, y = x - x.mean(), y - y.mean()
    return np.hypot(x, y), np.arctan2(y, x) / (2 * np.pi) + 0.5


def _brick(x, y, noise):
    row = np.floor(2 * y)
    return (_cell(2 * y) < 0.42) & (_cell(x + 0.5 * (row % 2)) < 0.45)


def _honeycomb(x, y, noise):
    row = np.floor(y / 0.866)
    x = x + 0.5 * (row % 2)
    dx, dy = x - np.floor(x) - 0.5, y / 0.866 - row - 0.5
    return np.maximum(np.abs(dx), 0.5 * np.abs(dx) + 0.75 * np.abs(dy)) < 0.41


def _scale(x, y, noise):
    shown = np.zeros_like(x)
    for row in range(int(y.min()) - 1, int(y.max()) + 2):  # later rows lie over earlier ones
        radius = np.hypot(_cell(x + 0.5 * (row % 2)), y - row)
        shown = np.where(radius < 0.72, radius / 0.72, shown)
    return shown


def _cobweb(x, y, noise):
    radius, turn = _polar(x, y)
    spokes = _cell(10 * turn) > 0.5 - 0.16 / (radius + 0.3)
    return (spokes | (_cell(1.6 * radius) > 0.42)).astype(float)


def _weave(x, y, noise):
    over = (np.floor(x) + np.floor(y)) % 2 == 0
    return np.where(over, 1 - 1.2 * _cell(x), 0.45 - 0.9 * _cell(y))


def _crack(x, y, noise):
    first, second = _points(x, y, noise)
    return (second - first) < 0.09


def _dot(x, y, noise):
    return np.hypot(_cell(x), _cell(y)) < 0.28


def _spiral(x, y, noise):
    radius, turn = _polar(x, y)
    return _cell(1.3 * radius + turn) < 0.25


PATTERNS: dict[str, Pattern] = {
    "brick": _brick,
    "checkerboard": lambda x, y, noise: (np.floor(x) + np.floor(y)) % 2,
    "cobweb": _cobweb,
    "crack": _crack,
    "crosshatch": lambda x, y, noise: (_cell(2 * (x + y)) < 0.12) | (_cell(2 * (x - y)) < 0.12),
    "dot": _dot,
    "grid": lambda x, y, noise: (_cell(x) < 0.09) | (_cell(y) < 0.09),
    "honeycomb": _honeycomb,
    "marble": lambda x, y, noise: _cell(0.5 * x + 2.2 * _clouds(noise, 6)) * 2,
    "ripple": lambda x, y, noise: _cell(_polar(x, y)[0]) * 2,
    "scale": _scale,
    "speckle": lambda x, y, noise: _clouds(noise, 34) > 0.66,
    "spiral": _spiral,
    "stripe": lambda x, y, noise: _cell(x) < 0.25,
    "weave": _weave,
    "zigzag": lambda x, y, noise: _cell(1.4 * y + 1.4 * _cell(x)) < 0.25,
}
ROUND = ("cobweb", "dot", "marble", "ripple", "scale", "speckle", "spiral")
COARSE = {label: "curved texture" if label in ROUND else "straight texture" for label in PATTERNS}
COARSE["honeycomb"] = COARSE["crack"] = "angular texture"


def _scene(label: str, rng: random.Random) -> tuple[Image.Image, tuple[str, str]]:
    """One random picture of a texture, and the names of its two colours."""
    noise = np.random.default_rng(rng.getrandbits(32))
    across, down = np.meshgrid(np.linspace(-0.5, 0.5, CANVAS), np.linspace(-0.5, 0.5, CANVAS))
    tilt, periods = rng.uniform(-0.5, 0.5), rng.uniform(3.0, 5.5)
    x = periods * (across * np.cos(tilt) - down * np.sin(tilt)) + rng.uniform(8, 9)
    y = periods * (across * np.sin(tilt) + down * np.cos(tilt)) + rng.uniform(8, 9)
    bend = rng.uniform(0, 0.25)
    x, y = x + bend * (_clouds(noise, 3) - 0.5), y + bend * (_clouds(noise, 3) - 0.5)
    ink = np.clip(PATTERNS[label](x, y, noise).astype(float), 0, 1)[..., None]
    names = rng.sample([*sorted(COLOURS), "white", "black"], 2)
    values = COLOURS | {"white": (250, 250, 250), "black": (30, 30, 30)}
    front, back = (np.array([value + rng.randint(-20, 20) for value in values[name]]) for name in names)
    pixels = np.clip(front * ink + back * (1 - ink) + noise.normal(0, 4, (CANVAS, CANVAS, 1)), 0, 255)
    return Image.fromarray(pixels.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR), tuple(names)


def draw(label: str, split: str, count: int, rng: random.Random) -> list[Drawing]:
    """`count` fresh pictures of a texture."""
    drawings = []
    for number in range(count):
        image, colours = _scene(label, rng)
        lines = "curved" if label in ROUND else "straight"
        facts = (f"it has {lines} lines", f"it is {colours[0]} on {colours[1]}")
        drawings.append(Drawing(image, label, facts, f"{split}-{label}-{number}"))
    return drawings


WORLD = World("textures", "What type of texture is in the photo?", COARSE, draw)
