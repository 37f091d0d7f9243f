"""The bundled worlds. One module a world, each with a `WORLD`: a new set is one new file here."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from rftkit.common.errors import UserError

SIDE = 64  # pixels: every bundled image is SIDE x SIDE
SPLITS = ("pretrain", "shots", "val", "test")


@dataclass(frozen=True)
class Drawing:
    """One picture of a class: what it shows, short true statements about it, and what it was drawn from.

    `source` names the scene, the handwriting or the drawing; intervals are clustered by it, and no source of the
    test split occurs in another one.
    """

    image: Image.Image | Path
    label: str
    facts: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class World:
    """A classification set: its question, its classes with their coarse names, and a way to draw them.

    `draw(label, split, count, rng)` returns `count` drawings of a class (fewer where real data run out).
    """

    name: str
    question: str
    coarse: dict[str, str]
    draw: Callable[[str, str, int, random.Random], list[Drawing]]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(self.coarse))

    @property
    def base(self) -> tuple[str, ...]:
        """The first half of the sorted labels, as in CoOp (ceil(n/2) classes)."""
        return self.classes[: (len(self.classes) + 1) // 2]

    @property
    def new(self) -> tuple[str, ...]:
        return self.classes[len(self.base) :]

    def drawings(self, label: str, split: str, count: int, seed: int = 0) -> list[Drawing]:
        """`count` drawings of a class in a split; the same arguments give the same pictures."""
        return self.draw(label, split, count, random.Random(f"{self.name}/{label}/{split}/{seed}"))


@cache
def worlds() -> dict[str, World]:
    """All bundled worlds by name, found by looking at the modules of this package."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").WORLD for name in names}


def get_world(name: str) -> World:
    """The bundled world called `name`; UserError if there is none."""
    if name not in worlds():
        raise UserError(f"unknown bundled dataset '{name}': choose one of {', '.join(worlds())}")
    return worlds()[name]
