"""Digits: real handwriting (Alpaydin and Kaynak, UCI), 8 x 8 grey values drawn as ink on paper."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
from PIL import Image

from rftkit.common.paths import DATA
from rftkit.tasks.worlds import SIDE, Drawing, World

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LOOPS = {"zero": "one loop", "six": "one loop", "eight": "two loops", "nine": "one loop"}
# The file runs writer by writer, so blocks keep most writers apart; the last thousand pictures are for testing.
BLOCKS = {"pretrain": (0, 640), "shots": (640, 700), "val": (700, 797), "test": (797, 1797)}


@cache
def _data() -> tuple[np.ndarray, np.ndarray]:
    with np.load(DATA / "digits" / "digits.npz") as file:
        return file["images"], file["labels"]


def _ink(pixels: np.ndarray, rng: random.Random) -> Image.Image:
    """An 8 x 8 array of 0-16 as dark ink on light paper, turned and scaled a little."""
    mask = Image.fromarray((pixels * 15.9375).astype(np.uint8))
    side = rng.randint(40, 58)
    mask = mask.resize((side, side), Image.Resampling.BICUBIC)
    mask = mask.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
    paper = Image.new("RGB", (SIDE, SIDE), tuple(rng.randint(215, 255) for _ in range(3)))
    ink = Image.new("RGB", mask.size, tuple(rng.randint(0, 110) for _ in range(3)))
    paper.paste(ink, (rng.randint(0, SIDE - side), rng.randint(0, SIDE - side)), mask)
    return paper


def draw(label: str, split: str, count: int, rng: random.Random) -> list[Drawing]:
    """Up to `count` pictures of a digit from its split's block; pre-training repeats handwriting in new ink."""
    images, labels = _data()
    start, end = BLOCKS[split]
    rows = [row for row in range(start, end) if NAMES[labels[row]] == label]
    rng.shuffle(rows)
    if split == "pretrain":
        rows = [rows[number % len(rows)] for number in range(count)]
    loops = f"it has {LOOPS.get(label, 'no loop')}"
    return [Drawing(_ink(images[row], rng), label, (loops,), f"handwriting-{row}") for row in rows[:count]]


COARSE = {name: "even number" if value % 2 == 0 else "odd number" for value, name in enumerate(NAMES)}
WORLD = World("digits", "What number is in the photo?", COARSE, draw)
