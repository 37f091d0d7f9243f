"""Emoji: everyday objects as six design teams drew them; trained on four styles, tested on two others."""

from __future__ import annotations

import colorsys
import json
import random
from functools import cache

from PIL import Image, ImageEnhance

from rftkit.common.paths import DATA
from rftkit.tasks.worlds import SIDE, Drawing, World

SEEN_STYLES = ("noto", "fluent-emoji-flat", "twemoji", "emojione")
# Style families: Noto's older drawings are another team's designs than today's, and occur in no training split.
STYLES = {"pretrain": SEEN_STYLES, "shots": SEEN_STYLES, "val": SEEN_STYLES, "test": ("fxemoji", "noto-v1")}
CLASSES = {entry["label"]: entry for entry in json.loads((DATA / "emoji" / "classes.json").read_text())}


@cache
def _drawing(style: str, slug: str) -> Image.Image:
    with Image.open(DATA / "emoji" / style / f"{slug}.png") as file:
        return file.convert("RGBA")


def place(drawing: Image.Image, rng: random.Random, strong: bool, mirror: bool = True) -> Image.Image:
    """The drawing on a pale background; `strong` also bends size, colours and, if it may be mirrored, direction
    (pre-training only)."""
    side = rng.randint(36, 64) if strong else rng.randint(50, 62)
    turned = drawing.resize((side, side), Image.Resampling.BILINEAR)
    turned = turned.rotate(rng.uniform(-20, 20) if strong else rng.uniform(-8, 8), Image.Resampling.BILINEAR)
    if strong and mirror and rng.random() < 0.5:
        turned = turned.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    hue, saturation = rng.random(), rng.uniform(0, 0.35 if strong else 0.1)
    colour = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.85, 1.0)))
    picture = Image.new("RGB", (SIDE, SIDE), colour)
    picture.paste(turned, (rng.randint(0, SIDE - side), rng.randint(0, SIDE - side)), turned)
    if strong:
        picture = ImageEnhance.Color(picture).enhance(rng.uniform(0.2, 1.6))
        picture = ImageEnhance.Contrast(picture).enhance(rng.uniform(0.6, 1.4))
    return picture


def draw(label: str, split: str, count: int, rng: random.Random) -> list[Drawing]:
    """`count` pictures of an object, going round its split's styles."""
    entry, styles = CLASSES[label], list(STYLES[split])
    facts = (f"it is a kind of {entry['coarse']}", *entry["facts"])
    rng.shuffle(styles)
    drawings = []
    for number in range(count):
        style = styles[number % len(styles)]
        image = place(_drawing(style, entry["slug"]), rng, strong=split == "pretrain")
        drawings.append(Drawing(image, label, facts, f"{style}/{entry['slug']}"))
    return drawings


WORLD = World("emoji", "What type of object is in the photo?", {k: v["coarse"] for k, v in CLASSES.items()}, draw)
