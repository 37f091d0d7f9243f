"""What the drawn tasks share: scenes of several kinds and levels, and splits that never share a scene."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rftkit.common.errors import UserError
from rftkit.tasks.example import Example, ExampleSet
from rftkit.tasks.worlds import SIDE
from rftkit.tasks.worlds.shapes import COLOURS, OUTLINES

CANVAS = 2 * SIDE  # drawn at twice the size, then scaled down: smooth edges
CELL = CANVAS // 4  # what is written stands in one of 4 x 4 cells: a small model has to read it in 16 x 16 pixels
LEVELS = (1, 2, 3)
FIGURES = ("circle", "square", "star", "triangle", "heart", "cross")
DRAWS = 10_000  # tries to draw a scene of a split
# A scene belongs to one split for ever, by the digest of its content: tenths of all scenes.
SPLIT_OF_TENTH = ("test", "test", "val", *["train"] * 7)
INK = (40, 40, 40)
SHADE = 40  # of 255: how much red the paper loses from left to right, and blue from top to bottom
Place = tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """A picture with a question and its answer.

    `steps` is the reasoning that leads to the answer, a sentence each. `content` says what was asked about what, so
    that two scenes with the same content differ by chance only (place, shade); splits are told apart by it.
    """

    image: Image.Image
    question: str
    answer: str
    choices: tuple[str, ...] | None
    steps: tuple[str, ...]
    content: str
    marks: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, eq=False)
class DrawnTask(ExampleSet):
    """A task whose pictures are drawn: its kinds of scenes, and its parts as tables show them.

    Args:
        kinds: each draws a scene of a level (more steps of reasoning from level to level) from a random source.
        test_parts: kinds and levels of each part of the test set.
        untrained: kinds that no run is trained on; a bundled model has seen them in pre-training.
    """

    name: str
    kinds: dict[str, Callable[[int, random.Random], Scene]]
    test_parts: dict[str, tuple[tuple[str, int], ...]]
    untrained: tuple[str, ...] = ()
    bundled, usual_items = True, 1000

    @property
    def spec(self) -> str:
        return self.name

    @property
    def task(self) -> str:
        return self.name

    def parts(self, protocol: str) -> tuple[str, ...]:
        return tuple(self.test_parts)

    @property
    def pairs(self) -> tuple[tuple[str, int], ...]:
        """All kinds and levels."""
        return tuple((kind, level) for kind in self.kinds for level in LEVELS)

    @property
    def trained(self) -> tuple[tuple[str, int], ...]:
        """The kinds and levels of the training set."""
        return tuple((kind, level) for kind, level in self.pairs if kind not in self.untrained)

    @property
    def levels(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """What is trained on, level by level."""
        return {f"level {level}": tuple(pair for pair in self.trained if pair[1] == level) for level in LEVELS}

    def scenes(self, pairs: tuple[tuple[str, int], ...], split: str, seed: int) -> Iterator[tuple[str, int, Scene]]:
        """Scenes of a split without end, the kinds and levels in turn; the same arguments give the same scenes."""
        rng = random.Random(f"{self.name}/{pairs}/{split}/{seed}")
        wanted = "train" if split in ("pretrain", "shots") else split
        while True:
            for kind, level in pairs:
                for _ in range(DRAWS):
                    scene = self.kinds[kind](level, rng)
                    if split_of(f"{self.name} {scene.content}") == wanted:
                        break
                else:
                    raise RuntimeError(f"{self.name}, {kind}, level {level}: too few scenes for a split '{wanted}'")
                yield kind, level, scene

    def examples(
        self, split: str, part: str, count: int, seed: int = 0, protocol: str = "base_to_new"
    ) -> list[Example]:
        """As in `ExampleSet`; the part `all` is what is trained on, and so are the levels."""
        known = self.test_parts | self.levels | {"all": self.trained}
        if part not in known:
            raise UserError(f"unknown part '{part}' of {self.name}: choose one of {', '.join(known)}")
        drawn = self.scenes(known[part], split, seed)
        return [self.example(split, number, *next(drawn)) for number in range(count)]

    def example(self, split: str, number: int, kind: str, level: int, scene: Scene) -> Example:
        """The example of a scene."""
        name = f"{self.name}-{split}-{kind}-{level}-{number}"
        return Example(
            name,
            (scene.image,),
            scene.question,
            scene.answer,
            scene.choices,
            task=self.name,
            dataset=self.name,
            split=split,
            group=scene.content,
            steps=scene.steps,
        )


def split_of(content: str) -> str:
    """The split a scene with this content belongs to: `test`, `val` or `train`."""
    return SPLIT_OF_TENTH[hashlib.sha256(content.encode()).digest()[0] % 10]


class Sketch:
    """A picture being drawn, CANVAS x CANVAS pixels, and what stands where on it.

    `marks` are words with their places: a figure's colour and name, a number. A bundled model's vision tower learns to
    read with them.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.marks = rng, []
        self.image = _paper(rng)
        self.canvas = ImageDraw.Draw(self.image)

    def figure(self, place: Place, figure: str, colour: str, radius: float) -> None:
        """A filled figure of `shapes` around a place."""
        outline = [(place[0] + radius * x, place[1] + radius * y) for x, y in OUTLINES[figure]]
        self.canvas.polygon(outline, fill=self.shade(colour))
        self.marks += [(colour, *place), (figure, *place)]

    def ground(self, top: float) -> None:
        """Ground from a height down: the paper, darker."""
        box, share = (0, round(top), CANVAS, CANVAS), self.rng.uniform(0.7, 0.9)
        self.image.paste(self.image.crop(box).point(lambda value: int(share * value)), box)

    def write(self, place: Place, text: str) -> None:
        """A number or sign on a place, a little off, small enough for a cell."""
        font = _font(26 if len(text) < 3 else 18)
        at = tuple(value + self.rng.uniform(-2, 2) for value in place)
        self.canvas.text(at, text, fill=INK, font=font, anchor="mm")
        self.marks.append((text, *place))

    def shade(self, colour: str) -> tuple[int, ...]:
        """A colour by its name, a little off."""
        return tuple(max(0, min(255, value + self.rng.randint(-18, 18))) for value in COLOURS[colour])

    def scene(
        self, question: str, answer: str, choices: tuple[str, ...] | None, steps: tuple[str, ...], content: str
    ) -> Scene:
        """The picture at the size of the bundled ones, with its question."""
        image = self.image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        marks = tuple((word, x * SIDE / CANVAS, y * SIDE / CANVAS) for word, x, y in self.marks)
        return Scene(image, question, answer, choices, steps, content, marks)


def _paper(rng: random.Random) -> Image.Image:
    """An empty sheet on which every place has a shade of its own.

    Qwen2-VL's vision tower knows how far two patches are apart, not where they are: on plain paper it could not tell.
    """
    sheet = np.full((CANVAS, CANVAS, 3), rng.randint(240, 255))
    ramp = np.linspace(0, SHADE, CANVAS).astype(int)
    sheet[:, :, 0] -= ramp
    sheet[:, :, 2] -= ramp[:, None]
    return Image.fromarray(sheet.astype(np.uint8))


@cache  # Pillow would unpack it anew for each number
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def kind_of(name: str) -> str:
    """The kind of scene of a drawn example's id."""
    return name.split("-")[2]


def level_of(name: str) -> int:
    """The level of a drawn example's id."""
    return int(name.split("-")[3])


def options(answer: str, others: list[str], rng: random.Random) -> tuple[str, ...]:
    """A shuffled choice list of at most four: the answer and some of the others."""
    wrong = [other for other in dict.fromkeys(others) if other != answer]
    chosen = [answer, *rng.sample(wrong, min(3, len(wrong)))]
    rng.shuffle(chosen)
    return tuple(chosen)


def numbers_around(answer: int, rng: random.Random) -> tuple[str, ...]:
    """Four neighbouring numbers, shuffled; the answer may be any of them, so that its rank tells nothing."""
    low = rng.randint(max(0, answer - 3), answer)
    choices = [str(number) for number in range(low, low + 4)]
    rng.shuffle(choices)
    return tuple(choices)


def around(radius: float, turns: float) -> Place:
    """A point on a circle about the middle of the canvas, so many turns clockwise from the top."""
    angle = 2 * math.pi * turns
    return CANVAS / 2 + radius * math.sin(angle), CANVAS / 2 - radius * math.cos(angle)


def slot(column: float, row: float) -> Place:
    """The middle of a cell, by its column and row from the top left."""
    return CELL * (column + 0.5), CELL * (row + 0.5)


def nearest_slot(place: Place, slots: Iterable[tuple[int, int]]) -> Place:
    """The middle of that one of the cells which lies nearest."""
    return min((slot(*cell) for cell in slots), key=lambda middle: math.dist(middle, place))


def cell(place: Place) -> tuple[int, int]:
    """Column and row of a place, in eighths of the canvas, from the top left."""
    return int(8 * place[0] / CANVAS), int(8 * place[1] / CANVAS)
