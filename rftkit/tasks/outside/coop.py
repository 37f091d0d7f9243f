"""The sets of the CoOp benchmark as CoOp lays them out: split files, FGVC-Aircraft, ImageNet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from rftkit.common.errors import UserError
from rftkit.tasks.outside.class_folders import Listed, PassedOver, classes_in
from rftkit.tasks.outside.real_sets import SETS
from rftkit.tasks.outside.rows import file_within, is_utf8
from rftkit.tasks.outside.splits import Items

QUESTION = "What type of object is in the photo?"
SPLITS = ("train", "val", "test")  # few shots are drawn from train


@dataclass(frozen=True)
class CoOpSet:
    """A set of the CoOp benchmark: its folder, where its images are, its split file, the paper's question."""

    folder: str
    images: str
    split: str
    question: str = QUESTION


COOP = {name: CoOpSet(**given) for name, given in SETS["coop"].items()}


def coop_file(folder: Path, known: str | None) -> Path | None:
    """The file that says which pictures a folder in CoOp's layout has (`known`: of this set), or None."""
    files = [folder / COOP[known].split] if known else sorted(folder.glob("split_zhou_*.json"))
    if not files and (folder / "images").is_dir():
        files = [folder / known for known in READERS if (folder / known).is_file()]
    return files[0] if files else None


def coop_set(file: Path) -> Listed:
    """The pictures that such a file names."""
    coop = next((c for c in COOP.values() if c.split == file.name), CoOpSet("", "", ""))
    labels, items = READERS.get(file.name, _read_split)(file, file.parent / coop.images)
    return Listed(labels, items, coop.question)


def _read_split(path: Path, images: Path) -> tuple[tuple[str, ...], Items]:
    """A CoOp split file: `{"train" | "val" | "test": [[path, label number, class name], ...]}`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = [(split, str(file), int(number), normalize("NFC", str(name))) for split in SPLITS
                for file, number, name in content[split]]  # fmt: skip
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"'{path}' is not a CoOp split file ({type(error).__name__}: {error})") from None
    names = {number: name for _, _, number, name in rows}
    if len(set(names.values())) < len(names):
        raise UserError(f"'{path}' gives two labels the same name")
    items: Items = {split: {} for split in SPLITS}
    for split, file, number, _ in rows:
        items[split].setdefault(names[number], []).append(_inside(images, file, path))
    return tuple(names[number] for number in sorted(names)), items


def _lines(path: Path) -> list[str]:
    try:
        text = normalize("NFC", path.read_text(encoding="utf-8-sig"))
        return [line.strip() for line in text.split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read '{path}': {error}") from None


def _read_variants(path: Path, images: Path) -> tuple[tuple[str, ...], Items]:
    """FGVC-Aircraft: a class a line in `variants.txt`, `NUMBER CLASS` a line in `images_variant_train.txt` etc."""
    labels = _lines(path)
    items: Items = {split: {} for split in SPLITS}
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

    Classes of one name are one class here: nobody could tell them apart by their names. Every fifth training picture
    is held out by its name: to read the contents of a million would take hours.
    """
    names = dict(line.split(" ", 1) for line in _lines(path) if " " in line)
    items: Items = {split: {} for split in SPLITS}
    for split, place in (("train", "train"), ("test", "val")):
        for folder, paths in classes_in(images / place, PassedOver()).items():
            if folder not in names:
                raise UserError(f"'{path}' has no name for the folder '{folder}'")
            items[split].setdefault(names[folder], []).extend(paths)
    for label, paths in items["train"].items():
        items["val"][label] = paths[4::5]
        items["train"][label] = [path for number, path in enumerate(paths) if number % 5 != 4]
    return tuple(items["train"]), items


READERS = {"variants.txt": _read_variants, "classnames.txt": _read_classnames}


def _inside(images: Path, file: str, split: Path) -> Path:
    try:
        path = file_within(images, file, f"'{split}'")
    except (OSError, ValueError):  # a name too long, with a null character
        path = None
    if path is None or not is_utf8(file):
        raise UserError(f"'{split}' names the image {file!r:.80}, which is not there")
    return path
