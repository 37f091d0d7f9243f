"""Folders of photographs as people have them: a folder a class, split into `train`, `val` and `test` or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from PIL import Image

from rftkit.common.errors import UserError
from rftkit.tasks.outside.rows import is_utf8
from rftkit.tasks.outside.splits import Items

# Formats that Pillow knows by name but cannot read by itself.
NO_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")
SUFFIXES = {
    end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in NO_PICTURES
}
# Photographs that Pillow cannot read: whoever has them can save them in another format.
UNREAD = (".heic", ".heif", ".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".pdf", ".eps")
# What programs leave in folders, beside all that begins with a dot.
LITTER = ("__macosx", "__pycache__", "@eadir", "thumbs.db", "desktop.ini", "icon\r", "lost+found")
NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
UNSPLIT = "all"  # in place of a split: all there is


@dataclass
class PassedOver:
    """Files that are not read, by suffix; folders that are no class for want of pictures; classes beside splits."""

    files: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)

    @property
    def has_pictures(self) -> bool:
        """Whether there are, or may be, photographs among it."""
        kinds = {kind.partition(" ")[0] for kind in self.files}
        return bool(self.folders or self.beside) or any(kind in SUFFIXES or kind in UNREAD for kind in kinds)

    def __str__(self) -> str:
        told = {
            "files passed over": [f"{count} {kind}" for kind, count in sorted(self.files.items())],
            "folders without a picture of their own": [f"'{name:.50}'" for name in self.folders],
            "folders passed over beside those of the splits": [f"'{name:.50}'" for name in self.beside],
        }
        return "; ".join(f"{what}: {', '.join(names):.300}" for what, names in told.items() if names)


@dataclass(frozen=True)
class Listed:
    """The pictures that a folder lists: classes in their order, pictures by split and class."""

    labels: tuple[str, ...]
    items: Items
    question: str
    passed: PassedOver = field(default_factory=PassedOver)


def class_folders(folder: Path, question: str) -> Listed:
    """The pictures in a folder of class folders, or of such for `train`, `val` and `test`; no labels if there are none.

    Without a `test` folder what is called `val` is tested on.
    """
    passed = PassedOver()
    places = _split_folders(folder)
    if "test" not in places and "val" in places:
        places["test"] = places.pop("val")
    beside = [sub.name for sub in _seen(folder) if _has_pictures(sub)]
    if "train" in places or ("test" in places and not beside):
        items = {split: classes_in(place, passed) for split, place in places.items()}
        passed.beside += beside
    else:
        items = {UNSPLIT: classes_in(folder, passed)}
    return Listed(tuple(sorted({label for part in items.values() for label in part})), items, question, passed)


def deeper(folder: Path) -> list[Path]:
    """The folders in a folder that have folders of pictures in them."""
    return [sub for sub in _seen(folder) if any(_has_pictures(inner) for inner in _seen(sub)) or _split_folders(sub)]


def _split_folders(folder: Path) -> dict[str, Path]:
    """The folders that are named after splits and have folders of pictures in them: a class may be called `train`."""
    places: dict[str, Path] = {}
    for sub in _seen(folder):
        split = next((split for split, names in NAMES.items() if sub.name.casefold() in names), None)
        if split and sub.is_dir() and any(_has_pictures(inner) for inner in _seen(sub)):
            if split in places:
                raise UserError(f"'{folder}' has two folders for {split}, '{places[split].name}' and '{sub.name}'")
            places[split] = sub
    return places


def classes_in(folder: Path, passed: PassedOver) -> dict[str, list[Path]]:
    """The pictures in each folder of a folder, by its name; what is no picture is counted in `passed`."""
    found: dict[str, list[Path]] = {}
    for sub in _seen(folder):
        if sub.is_dir() and (pictures := _pictures(sub, passed)):
            found.setdefault(normalize("NFC", sub.name), []).extend(pictures)
        elif sub.is_dir() or not sub.exists():  # without a picture, or a link that leads nowhere
            passed.folders.append(sub.name)
        elif _is_picture(sub):
            passed.files[f"{sub.suffix.lower()} beside the classes"] += 1
    return found


def _pictures(folder: Path, passed: PassedOver) -> list[Path]:
    pictures = []
    for path in _seen(folder):
        if path.is_dir():
            passed.files.update(f"{_kind(inner)} in subfolders" for inner in _files_below(path))
        elif _is_picture(path):
            if not path.is_file():
                raise UserError(f"'{path}' is no file: a link that leads nowhere")
            if not is_utf8(path.parent.name + path.name):
                raise UserError(f"{str(path)!r:.200} is not a name in UTF-8: rename it")
            pictures.append(path)
        else:
            passed.files[_kind(path)] += 1
    return pictures


def _files_below(folder: Path) -> Iterator[Path]:
    for path in _seen(folder) if not folder.is_symlink() else ():  # a link may lead back
        if path.is_dir():
            yield from _files_below(path)
        else:
            yield path


def _seen(folder: Path) -> list[Path]:
    """What a person sees in a folder, in order; nothing if it is none."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in inside if not path.name.startswith(".") and path.name.casefold() not in LITTER]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _has_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(_is_picture(path) for path in _seen(folder))


def _kind(path: Path) -> str:
    return path.suffix.lower() or "without a suffix"
