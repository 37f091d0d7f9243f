"""JSONL files of examples: one alone to test on, or a folder with `train.jsonl` and `test.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rftkit.common.errors import UserError
from rftkit.tasks.example import Example
from rftkit.tasks.images import opened
from rftkit.tasks.outside.rows import asked_in, check_texts, read_images
from rftkit.tasks.outside.table_sets import Table, is_held_out, sample

FILES = {"train": "train.jsonl", "test": "test.jsonl"}


class JsonlFile(Table):
    """One JSONL file, to test on."""

    splits = {"test": "test"}
    distinct_ids = False

    def __init__(self, file: Path) -> None:
        self.file = file
        self.given, self.spec, self.name = str(file), str(file.resolve()), file.name

    @classmethod
    def named(cls, name: str) -> JsonlFile | None:
        """The file that a name is the path of, if there is one."""
        return cls(Path(name)) if Path(name).is_file() else None

    def read(self, split: str, count: int | None = None, seed: int = 0) -> list[Example | UserError]:
        """The first lines of the file."""
        return read_lines(self.file)[:count]


class JsonlFolder(Table):
    """A folder with `train.jsonl` or `test.jsonl`, or both, beside their images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given, self.spec, self.name = str(folder), str(folder.resolve()), folder.resolve().name
        has = {split for split, file in FILES.items() if (folder / file).exists()}
        stored = {"shots": "train", "val": "train", "test": "test"}
        self.splits = {split: file for split, file in stored.items() if file in has}

    @classmethod
    def named(cls, name: str) -> JsonlFolder | None:
        """The folder that a name is the path of, if it is one with such files."""
        return cls(Path(name)) if any((Path(name) / file).exists() for file in FILES.values()) else None

    def read(self, split: str, count: int | None = None, seed: int = 0) -> Iterator[Example | UserError]:
        lines = enumerate(read_lines(self.folder / FILES[self.stored(split)]))
        chosen = sample((pair for pair in lines if self._belongs(pair[1], split)), count, seed)
        place = {"dataset": self.name, "split": split}
        return (replace(line, **place) if isinstance(line, Example) else line for _, line in chosen)

    def _belongs(self, line: Example | UserError, split: str) -> bool:
        if isinstance(line, UserError):
            return split != "val"
        return split == "test" or is_held_out(line.images[0], self.folder) == (split == "val")


def read_lines(path: Path) -> list[Example | UserError]:
    """The lines of a JSONL file of `{image, question, answer, choices?, id?, group?}` beside its images.

    `image` is a path, or a list of paths, relative to the file and inside its folder. A line is an example, or what is
    wrong with it; UserError if the file cannot be read or has none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a byte order mark first
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from None
    # Not splitlines(): JSON texts may hold U+2028 and the like.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"'{path}' holds no examples")
    found: list[Example | UserError] = []
    for number, line in lines:
        try:
            found.append(_example(line, path, number))
        except UserError as error:
            found.append(error)
    return found


def _example(line: str, path: Path, number: int) -> Example:
    item = f"{path.name} line {number}"
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair would break the tokenizer
    except (ValueError, RecursionError) as error:
        raise UserError(f"{item}: not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{item}: not a JSON object")
    for column in ("image", "question", "answer"):
        if column not in row:
            raise UserError(f"{item}: column '{column}' is missing (needed: image, question, answer; choices if any)")
    question, answer, choices = check_texts(row["question"], row["answer"], row.get("choices"), item)
    question, unit, precision = asked_in(row, question, choices, item)
    images = read_images(row["image"], path.parent, item)
    for image in images:
        with opened(image, item):  # reads the header only
            pass
    name = f"{path.stem}-{number}" if row.get("id") is None else str(row["id"])
    group = name if row.get("group") is None else str(row["group"])
    where = {"dataset": path.stem, "split": "test", "group": group}
    return Example(name, images, question, answer, choices, **where, unit=unit, precision=precision)
