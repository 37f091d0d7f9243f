"""Classification on photographs in folders: CoOp's eleven sets as CoOp lays them out, and plain image folders."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rftkit.common.errors import UserError
from rftkit.tasks.classification import ClassSet
from rftkit.tasks.outside.real_sets import SETS
from rftkit.tasks.outside.rows import CONTROL_TOKEN, is_utf8
from rftkit.tasks.worlds import Drawing, World

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
QUESTION = "What type of object is in the photo?"
# CoOp's splits are train, val and test; few shots are drawn from train.
SPLITS = {"shots": "train", "val": "val", "test": "test"}
Items = dict[str, dict[str, list[Path]]]  # split -> label -> images


@dataclass(frozen=True)
class CoOpSet:
    """A set of the CoOp benchmark: its folder, where its images are, its split file, the paper's question."""

    folder: str
    images: str
    split: str
    question: str = QUESTION


COOP = {name: CoOpSet(**given) for name, given in SETS["coop"].items()}


@dataclass(frozen=True)
class PhotoSet(World):
    """A world of photographs; its classes are in the order of the set's labels, as CoOp halves them."""

    labels: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels


class PhotoFolder(ClassSet):
    """Photographs in a folder, which is read when its classes are asked for first."""

    def __init__(self, folder: Path, known: str | None) -> None:
        self.folder, self.known = folder, known
        self.name = known or folder.resolve().name
        self.spec = f"{known}@{folder.resolve()}" if known else str(folder.resolve())

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

    @property
    def world(self) -> PhotoSet:
        return read_photos(self.folder, self.known)


@cache
def read_photos(folder: Path, known: str | None = None) -> PhotoSet:
    """The photographs in a folder (`known`: of this set of CoOp's) as a world; nothing is opened yet.

    Known are: a CoOp folder with its `split_zhou_*.json`, `variants.txt` or `classnames.txt`; a folder with `train`,
    `val` (if there) and `test`, each with a folder a class; and a folder with a folder a class, which is then split by
    file name (half, a fifth, the rest). A class without `val` images gives up every fifth of its `train` images.
    """
    name = f"{known}@{folder}" if known else str(folder)
    splits = [folder / COOP[known].split] if known else sorted(folder.glob("split_zhou_*.json"))
    if not splits and (folder / "images").is_dir():
        splits = [folder / known for known in READERS if (folder / known).is_file()]
    if splits:
        coop = next((c for c in COOP.values() if c.split == splits[0].name), CoOpSet("", "", ""))
        labels, items = READERS.get(splits[0].name, _read_split)(splits[0], folder / coop.images)
        question = coop.question
    else:
        labels, items = _read_class_folders(folder)
        question = QUESTION
    if len(labels) < 4:
        raise UserError(f"'{name}' has {len(labels)} classes; base-to-new needs four or more")
    for label in labels:
        _complete(name, label, items)

    def draw(label: str, split: str, count: int, rng: random.Random) -> list[Drawing]:
        paths = sorted(items[SPLITS[split]].get(label, []))
        # Names such as image_0001.jpg come again in every class.
        return [Drawing(path, label, (), f"{label}/{path.name}") for path in rng.sample(paths, min(count, len(paths)))]

    return PhotoSet(known or folder.resolve().name, question, dict.fromkeys(labels, ""), draw, labels)


def _complete(name: str, label: str, items: Items) -> None:
    """Give a class its `val` images if it has none, and refuse what cannot be used."""
    if CONTROL_TOKEN.search(label) or not label.strip() or not is_utf8(label):
        raise UserError(
            f"'{name}': class name {label!r:.99} is empty, no UTF-8 or has a control token of the chat format"
        )
    if not items["val"].get(label):  # every fifth of the training images then
        paths = sorted(items["train"].get(label, []))
        items["val"][label] = paths[4::5] or paths[1:2]
        items["train"][label] = [path for path in paths if path not in items["val"][label]]
    for split in SPLITS.values():
        if not items[split].get(label):
            raise UserError(f"'{name}': class '{label}' has no image to {split} with (two to train, one to test)")


def _read_split(path: Path, images: Path) -> tuple[tuple[str, ...], Items]:
    """A CoOp split file: `{"train" | "val" | "test": [[path, label number, class name], ...]}`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [(split, str(file), int(number), str(name)) for split in SPLITS.values()
                for file, number, name in content[split]]  # fmt: skip
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"'{path}' is not a CoOp split file ({type(error).__name__}: {error})") from None
    names = {number: name for _, _, number, name in rows}
    if len(set(names.values())) < len(names):
        raise UserError(f"'{path}' gives two labels the same name")
    items: Items = {split: {} for split in SPLITS.values()}
    for split, file, number, _ in rows:
        items[split].setdefault(names[number], []).append(_inside(images, file, path))
    return tuple(names[number] for number in sorted(names)), items


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read '{path}': {error}") from None


def _read_variants(path: Path, images: Path) -> tuple[tuple[str, ...], Items]:
    """FGVC-Aircraft: a class a line in `variants.txt`, `NUMBER CLASS` a line in `images_variant_train.txt` etc."""
    labels = _lines(path)
    items: Items = {split: {} for split in SPLITS.values()}
    for split in items:
        listed = path.with_name(f"images_variant_{split}.txt")
        for line in _lines(listed):
            number, _, label = line.partition(" ")
            if label not in labels:
                raise UserError(f"'{listed}': class {label!r:.80} is not in variants.txt")
            items[split].setdefault(label, []).append(_inside(images, f"{number}.jpg", listed))
    return tuple(labels), items


def _read_classnames(path: Path, images: Path) -> tuple[tuple[str, ...], Items]:
    """ImageNet: `FOLDER CLASS` a line in `classnames.txt`; images/train and images/val, which is tested on.

    Classes of one name are one class here: nobody could tell them apart by their names.
    """
    names = dict(line.split(" ", 1) for line in _lines(path) if " " in line)
    items: Items = {split: {} for split in SPLITS.values()}
    for split, place in (("train", "train"), ("test", "val")):
        for folder, paths in _classes_in(images / place).items():
            if folder not in names:
                raise UserError(f"'{path}' has no name for the folder '{folder}'")
            items[split].setdefault(names[folder], []).extend(paths)
    return tuple(items["train"]), items


READERS = {"variants.txt": _read_variants, "classnames.txt": _read_classnames}


def _inside(images: Path, file: str, split: Path) -> Path:
    path = images / file
    if ".." in Path(file).parts or Path(file).is_absolute():
        raise UserError(f"'{split}': image {file!r:.80} points outside the data folder")
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name too long, with a null character
        there = False
    if not there or not is_utf8(file):
        raise UserError(f"'{split}' names the image {file!r:.80}, which is not there")
    return path


def _read_class_folders(folder: Path) -> tuple[tuple[str, ...], Items]:
    """Folders of classes, split already or not."""
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        items = {split: _classes_in(folder / split) for split in SPLITS.values()}
    else:
        items = {split: {} for split in SPLITS.values()}
        for label, paths in _classes_in(folder).items():
            for path in paths:
                tenth = hashlib.sha256(path.name.encode()).digest()[0] % 10
                items["train" if tenth < 5 else "val" if tenth < 7 else "test"].setdefault(label, []).append(path)
    labels = sorted({label for part in items.values() for label in part})
    if not labels:
        if of_coop := [f"{name}@{folder}" for name, coop in COOP.items() if (folder / coop.folder).is_dir()]:
            raise UserError(f"'{folder}' has folders of CoOp's sets in it: give one of them as {', '.join(of_coop)}")
        raise UserError(
            f"'{folder}' is a folder without a split_zhou_*.json and without folders of images: give a CoOp folder, a "
            "folder with one folder a class, or the JSONL file in it"
        )
    return tuple(labels), items


def _classes_in(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        return {}
    found = {sub.name: [path for path in sorted(sub.iterdir()) if path.suffix.lower() in SUFFIXES]
             for sub in sorted(folder.iterdir()) if sub.is_dir()}  # fmt: skip
    for path in (path for paths in found.values() for path in paths):
        if not path.is_file():
            raise UserError(f"'{path}' is no file: a folder, or a link that leads nowhere")
        if not is_utf8(path.parent.name + path.name):
            raise UserError(f"{str(path)!r:.200} is not a name in UTF-8: rename it")
    return {label: paths for label, paths in found.items() if paths}
