"""Flags: real flags as three design teams drew them; trained on two teams' styles, tested on the third's.

Across styles the pixels themselves already tell most flags apart, so this set shows whether the names of new classes
are kept, more than whether seeing generalises.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import cache

import numpy as np
from PIL import Image

from rftkit.common.paths import DATA
from rftkit.tasks.worlds import Drawing, World
from rftkit.tasks.worlds.emoji import place
from rftkit.tasks.worlds.shapes import COLOURS

SEEN_STYLES = ("flag-4x3", "flag-1x1", "flagpack")
STYLES = {"pretrain": SEEN_STYLES, "shots": SEEN_STYLES, "val": SEEN_STYLES, "test": ("circle-flags",)}
CLASSES = {entry["label"]: entry for entry in json.loads((DATA / "flags" / "classes.json").read_text())}
# Colours by name; of each some that flags have, so that navy is not called black.
PALETTE = [
    *COLOURS.items(), ("white", (250, 250, 250)), ("black", (15, 15, 15)), ("blue", (0, 0, 110)),
    ("blue", (0, 50, 140)), ("green", (0, 100, 50)), ("green", (0, 110, 80)), ("red", (140, 20, 50)),
    ("red", (200, 16, 46)), ("cyan", (110, 180, 230)), ("yellow", (255, 215, 0)),
]  # fmt: skip
LARGE = 0.12  # share of a flag that a colour covers to be named


@cache
def _drawing(style: str, code: str) -> Image.Image:
    with Image.open(DATA / "flags" / style / f"{code}.png") as file:
        return file.convert("RGBA")


@cache
def _colours(code: str) -> str:
    """The names of a flag's large colours, the largest first."""
    pixels = np.asarray(_drawing("flag-1x1", code).convert("RGB"), float).reshape(-1, 1, 3)
    nearest = ((pixels - np.array([value for _, value in PALETTE])) ** 2).sum(-1).argmin(-1)
    shares = Counter(PALETTE[place][0] for place in nearest)
    return " and ".join(name for name, count in shares.most_common() if count >= LARGE * len(nearest))


def draw(label: str, split: str, count: int, rng: random.Random) -> list[Drawing]:
    """`count` pictures of a country's flag, going round its split's styles; never mirrored."""
    entry, styles = CLASSES[label], list(STYLES[split])
    facts = (f"it is a {entry['coarse']}", f"it is {_colours(entry['code'])}")
    rng.shuffle(styles)
    drawings = []
    for number in range(count):
        style = styles[number % len(styles)]
        image = place(_drawing(style, entry["code"]), rng, strong=split == "pretrain", mirror=False)
        drawings.append(Drawing(image, label, facts, f"{style}/{entry['code']}"))
    return drawings


COARSE = {label: entry["coarse"] for label, entry in CLASSES.items()}
WORLD = World("flags", "Which country's flag is in the photo?", COARSE, draw)
