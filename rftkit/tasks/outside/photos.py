"""Classification on photographs in folders: CoOp's eleven sets as CoOp lays them out, and plain image folders."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rftkit.common.errors import UserError
from rftkit.tasks.classification import ClassSet, question
from rftkit.tasks.example import Example
from rftkit.tasks.outside.class_folders import UNSPLIT, Listed, PassedOver, class_folders, deeper
from rftkit.tasks.outside.coop import COOP, QUESTION, coop_file, coop_set
from rftkit.tasks.outside.rows import CONTROL_TOKEN, is_utf8, same_answers
from rftkit.tasks.outside.splits import Items, a_fifth, by_chance, by_content
from rftkit.tasks.worlds import Drawing, World

SPLITS = {"shots": "train", "val": "val", "test": "test"}
NEEDED = 4  # classes, so that there are two in each half


@dataclass(frozen=True)
class PhotoSet(World):
    """A world of photographs; its classes are in the order of the set's labels, as CoOp halves them.

    `pictures` reads the contents of the files where these decide on the split, when it is called first.
    """

    labels: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    pictures: Callable[[], Items] = dict
    passed: PassedOver = field(default_factory=PassedOver)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels

    def of(self, label: str, split: str) -> list[Drawing]:
        """The photographs of a class in a split, in the order of their names."""
        paths = sorted(self.pictures().get(SPLITS[split], {}).get(label, []))
        # Names such as image_0001.jpg come again in every class.
        return [Drawing(path, label, (), f"{label}/{path.name}") for path in paths]


class PhotoFolder(ClassSet):
    """Photographs in a folder."""

    def __init__(self, folder: Path, known: str | None) -> None:
        self.name = known or folder.resolve().name
        self.spec = f"{known}@{folder.resolve()}" if known else str(folder.resolve())
        self.world = read_photos(folder, known)
        self.splits = {split: stored for split, stored in SPLITS.items() if stored in self.world.splits}
        self.usual_protocol = "base_to_new" if len(self.world.classes) >= NEEDED else "few_shot"
        self.passed_over = str(self.world.passed)
        self.lacks_pictures = self.world.passed.has_pictures
        self.published = coop_file(folder, known) is not None

    @classmethod
    def named(cls, name: str) -> PhotoFolder | None:
        """The photographs that a name means: a folder by its path; NAME@DIR for a set of CoOp's, in DIR or in its
        folder there. UserError if that lacks the set's split file."""
        if Path(name).is_dir():
            return cls(Path(name), None)
        known, _, place = name.partition("@")
        if known not in COOP:
            return None
        inside = Path(place) / COOP[known].folder
        folder = inside if inside.is_dir() else Path(place)
        if not place or not folder.is_dir():
            raise UserError(f"'{name}' names no folder: give {known}@DIR, with the folder that CoOp's sets are in")
        if not (folder / COOP[known].split).is_file():
            raise UserError(f"'{name}': there is no {COOP[known].split} in the folder '{folder}'")
        return cls(folder, known)

    def classes_of(self, half: str) -> tuple[tuple[str, ...], float]:
        if half != "all" and len(self.world.classes) < NEEDED:
            told = f"has {len(self.world.classes)} classes; base-to-new needs {NEEDED} or more"
            raise UserError(f"'{self.spec}' {told}: give --protocol few_shot (rftkit evaluate: --split all)")
        return super().classes_of(half)

    def _asked(self, split: str, half: str, count: int | None, seed: int) -> list[Example]:
        """All photographs of a half or, as likely as any others, `count`: in an order by chance, so that any first part
        of them is a plain sample too. What is asked of one does not depend on `count`."""
        world, (classes, share) = self.world, self.classes_of(half)
        every = [pair for label in classes for pair in enumerate(world.of(label, split))]
        if not every:
            raise UserError(f"'{self.spec}' has no photographs for '{split}'")
        name = f"{world.name}/{split}/{half}/{seed}"
        found = []
        for number, drawing in random.Random(name).sample(every, len(every))[:count]:
            id = f"{world.name}-{split}-{drawing.label}-{number}"
            found.append(question(drawing, world, classes, share, random.Random(f"{name}/{id}"), split, id))
        return found


@cache
def read_photos(folder: Path, known: str | None = None) -> PhotoSet:
    """The photographs in a folder (`known`: of this set of CoOp's) as a world; no picture is opened.

    Known are: a CoOp folder with its `split_zhou_*.json`, `variants.txt` or `classnames.txt`; a folder with `train`,
    `val` or `test`, each with a folder a class; and a folder with a folder a class, which is split by chance (half, a
    fifth, the rest). A class without `val` images gives up every fifth of its `train` images.
    """
    name = f"{known}@{folder}" if known else str(folder)
    file = coop_file(folder, known)
    found = coop_set(file) if file else class_folders(folder, QUESTION)
    if not found.labels:
        _refuse(folder, found.passed)
    _check_names(name, found.labels)
    pictures = cache(lambda: _complete(name, found))

    def draw(label: str, split: str, count: int, rng: random.Random) -> list[Drawing]:
        every = world.of(label, split)
        return rng.sample(every, min(count, len(every)))

    has = dict.fromkeys(SPLITS.values()) if UNSPLIT in found.items else found.items
    splits = (*has, "val") if "train" in has else tuple(has)
    title = known or folder.resolve().name
    world = PhotoSet(
        title,
        found.question,
        coarse=dict.fromkeys(found.labels, ""),
        draw=draw,
        labels=found.labels,
        splits=splits,
        pictures=pictures,
        passed=found.passed,
    )
    return world


def _check_names(name: str, labels: tuple[str, ...]) -> None:
    """Refuse class names that cannot be asked for, and those that no rule can tell apart."""
    for label in labels:
        if CONTROL_TOKEN.search(label) or not label.strip() or not is_utf8(label):
            told = "is empty, no UTF-8 or has a control token of the chat format"
            raise UserError(f"'{name}': class name {label!r:.99} {told}")
    if same := same_answers(labels):
        raise UserError(f"'{name}': no rule can tell the classes {same} apart: rename one, or put them together")
    if len(labels) < 2:
        raise UserError(f"'{name}' has one class, '{labels[0]}': two or more are needed to choose from")


def _complete(name: str, listed: Listed) -> Items:
    """The photographs of a set in splits: made by chance if it has none, and `val` from `train` where it is missing."""
    items = listed.items
    if UNSPLIT in items:
        items = by_content(items[UNSPLIT], by_chance)
    elif "train" in items:
        given = items.get("val", {})
        parts = by_content({label: paths for label, paths in items["train"].items() if not given.get(label)}, a_fifth)
        items = items | {"train": items["train"] | parts["train"], "val": given | parts["val"]}
    for split in ("train", "test"):
        for label in listed.labels if split in items else ():
            if not items[split].get(label):
                told = "one to train and one to test are needed, with different pictures"
                raise UserError(f"'{name}': class '{label}' has no image to {split} with ({told})")
    return items


def _refuse(folder: Path, passed: PassedOver) -> None:
    """UserError on a folder without classes."""
    if of_coop := [f"{name}@{folder}" for name, coop in COOP.items() if (folder / coop.folder).is_dir()]:
        raise UserError(f"'{folder}' has folders of CoOp's sets in it: give one of them as {', '.join(of_coop)}")
    if inside := deeper(folder):
        raise UserError(f"'{folder}' has no folders of images; give one in it that has, such as '{inside[0]}'")
    told = f" ({passed})" if str(passed) else ""
    raise UserError(
        f"'{folder}' is a folder without a split_zhou_*.json and without folders of images{told}: give a CoOp folder, "
        "a folder with one folder a class, or the JSONL file in it"
    )
