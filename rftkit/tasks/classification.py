"""Classification: what is in the picture, chosen from a list of class names (paper, section 4.1)."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from rftkit.common.errors import UserError
from rftkit.tasks.example import Example
from rftkit.tasks.outside.photos import photo_folder, read_photos
from rftkit.tasks.worlds import Drawing, World, get_world, worlds

MAX_CHOICES = 100
LIST_ALL_BELOW = 30  # a half with fewer classes is listed whole
BASE_TO_NEW_SHARE = 0.8  # of the half in use
FEW_SHOT_SHARE = 0.4  # of all classes


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


def load_split(
    dataset: str, split: str, count: int, seed: int, half: str = "base", per_class: bool = False
) -> list[Example]:
    """Examples of one half of a bundled set, or of the photographs in a folder (`rftkit.tasks.outside.photos`).

    Args:
        split: `shots` (training), `val` (held-out scenes for choosing steps and learning rate) or `test`.
        count: how many in all, spread over the classes, or of each class; a set of real pictures may have fewer.
        seed: of the draw and of the choice lists.
        half: `base`, `new` or `all` (few-shot learning: all classes in one list of 40 %).
    """
    photos = dataset not in worlds() and photo_folder(dataset).is_dir()
    world = read_photos(dataset) if photos else get_world(dataset)
    halves = {"base": world.base, "new": world.new, "all": world.classes}
    if half not in halves:
        raise UserError(f"unknown half '{half}': choose one of {', '.join(halves)}")
    classes = halves[half]
    share = 1.0 if len(classes) < LIST_ALL_BELOW else FEW_SHOT_SHARE if half == "all" else BASE_TO_NEW_SHARE
    rng = random.Random(f"{world.name}/{split}/{half}/{seed}")
    each = count if per_class else -(-count // len(classes))
    drawn = [(number, drawing) for label in classes for number, drawing in
             enumerate(world.drawings(label, split, each, seed))]  # fmt: skip
    drawn.sort(key=lambda pair: pair[0])  # class by class in turn, so that any first part is balanced
    return [
        question(drawing, world, classes, share, rng, split, f"{world.name}-{split}-{drawing.label}-{number}")
        for number, drawing in drawn[: None if per_class else count]
    ]


def tell_of_other_classes(shots: Sequence[Example], tested: Sequence[Example]) -> None:
    """A line on stderr if classes are tested on that the shots have not; other tasks have none."""
    trained, asked = ({e.answer for e in part if e.task == "classification"} for part in (shots, tested))
    if other := sorted(asked - trained):
        told = f"{len(other)} of the {len(asked)} classes tested on are not among the {len(trained)} trained on"
        print(f"{told}, such as '{other[0]}'", file=sys.stderr)
