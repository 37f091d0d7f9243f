"""Classification: what is in the picture, chosen from a list of class names (paper, section 4.1)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rftkit.common.errors import UserError
from rftkit.tasks.example import Example, ExampleSet, as_asked
from rftkit.tasks.worlds import Drawing, World

MAX_CHOICES = 100
LIST_ALL_BELOW = 30  # a half with fewer classes is listed whole
BASE_TO_NEW_SHARE = 0.8  # of the half in use
FEW_SHOT_SHARE = 0.4  # of all classes
TRAINED_HALF = {"base_to_new": "base", "new_to_base": "new"}  # all classes in the other protocols
SWAPPED = {"base": "new", "new": "base"}


def sample_choices(label: str, classes: Sequence[str], share: float, rng: random.Random) -> tuple[str, ...]:
    """A shuffled list of `share` of the classes with the label among them, at most 100 (paper, appendix)."""
    size = max(2, min(round(share * len(classes)), MAX_CHOICES))
    choices = [*rng.sample([name for name in classes if name != label], min(size, len(classes)) - 1), label]
    rng.shuffle(choices)
    return tuple(choices)


def question(
    drawing: Drawing, world: World, classes: Sequence[str], share: float, rng: random.Random, split: str, id: str = ""
) -> Example:
    """The example that asks for a drawing's class out of a choice list."""
    return Example(
        id=id,
        images=(drawing.image,),
        question=world.question,
        answer=drawing.label,
        choices=sample_choices(drawing.label, classes, share, rng),
        dataset=world.name,
        split=split,
        group=drawing.source,
        steps=drawing.facts,
    )


class ClassSet(ExampleSet):
    """Pictures of classes in two halves, `base` and `new`. A subclass says where its `world` comes from."""

    world: World

    def parts(self, protocol: str) -> tuple[str, ...]:
        return ("base", "new") if protocol in TRAINED_HALF else ("all",)

    trained_parts = parts

    def examples(
        self, split: str, part: str, count: int | None, seed: int = 0, protocol: str = "base_to_new"
    ) -> list[Example]:
        """As in `ExampleSet`; in `new_to_base` `base` is what is trained on."""
        half = SWAPPED.get(part, part) if protocol == "new_to_base" else part
        return as_asked(self._asked(split, half, count, seed), protocol)

    def training(self, protocol: str, shots: int, items: int, seed: int) -> list[Example]:
        """`shots` pictures of each class (fewer where real pictures run out)."""
        half = TRAINED_HALF.get(protocol, "all")
        return as_asked(self._drawn("shots", half, shots, seed, per_class=True), protocol)

    def classes_of(self, half: str) -> tuple[tuple[str, ...], float]:
        """The classes of a half or of `all`, and which share of them a choice list has."""
        halves = {"base": self.world.base, "new": self.world.new, "all": self.world.classes}
        if half not in halves:
            raise UserError(f"unknown half '{half}': choose one of {', '.join(halves)}")
        classes = halves[half]
        # Few-shot learning has all classes in one list of 40 %.
        part_of_list = FEW_SHOT_SHARE if half == "all" else BASE_TO_NEW_SHARE
        return classes, 1.0 if len(classes) < LIST_ALL_BELOW else part_of_list

    def _asked(self, split: str, half: str, count: int, seed: int) -> list[Example]:
        """`count` examples of a half, spread over its classes: a world can be drawn from as long as one likes."""
        return self._drawn(split, half, count, seed)

    def _drawn(self, split: str, half: str, count: int, seed: int, per_class: bool = False) -> list[Example]:
        """`count` examples of a half in all, or of each class. The seed is of the draw and of the choice lists."""
        world, (classes, share) = self.world, self.classes_of(half)
        rng = random.Random(f"{world.name}/{split}/{half}/{seed}")
        each = count if per_class else -(-count // len(classes))
        drawn = []
        for label in classes:
            drawn += enumerate(world.drawings(label, split, each, seed))
        drawn.sort(key=lambda pair: pair[0])  # class by class in turn, so that any first part is balanced
        if not per_class:
            drawn = drawn[:count]
        return [
            question(drawing, world, classes, share, rng, split, f"{world.name}-{split}-{drawing.label}-{number}")
            for number, drawing in drawn
        ]


class BundledClasses(ClassSet):
    """One of the bundled worlds."""

    bundled, usual_items = True, 1000

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = self.spec = world.name
