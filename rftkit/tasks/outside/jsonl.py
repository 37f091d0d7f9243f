"""JSONL files of examples: one alone to test on, or a folder with `train.jsonl` and `test.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rftkit.common.errors import UserError
from rftkit.tasks.example import TASK_RULES, Example, ExampleSet
from rftkit.tasks.outside.rows import asked_in, check_texts, placed, read_images, with_headers
from rftkit.tasks.outside.splits import content, held_out
from rftkit.tasks.outside.table_sets import Table

FILES = {"train": "train.jsonl", "test": "test.jsonl"}
OTHERS = (".json", ".csv", ".tsv")  # files that people have in place of JSON lines
A_LINE = '{"image": "cat.jpg", "question": "What is it?", "answer": "cat"}'
Line = tuple[int, Example | UserError]  # its number in its file, and what it holds or what is wrong with it


class Jsonl(Table):
    """A set of JSONL files. They name its task (`"task": "math"` in each line), or whoever opens it does."""

    def __init__(self, place: Path, files: list[Path]) -> None:
        self.given, self.spec, self.name = str(place), str(place.resolve()), place.resolve().name
        self.named_task = next(filter(None, map(first_task, files)), None)
        self.task = self.named_task or Jsonl.task

    def as_task(self, task: str | None) -> ExampleSet:
        self.task = self.named_task or (task if task in TASK_RULES else Jsonl.task)
        return self


class JsonlFile(Jsonl):
    """One JSONL file, to test on."""

    splits = {"test": "test"}
    distinct_ids = False

    def __init__(self, file: Path) -> None:
        super().__init__(file, [file])
        self.file, self.name = file, file.name

    @classmethod
    def named(cls, name: str) -> JsonlFile | None:
        """The file that a name is the path of, if there is one."""
        return cls(Path(name)) if Path(name).is_file() else None

    def read(self, split: str, count: int | None = None, seed: int = 0) -> Iterator[Example | UserError]:
        lines = self.sample(read_lines(self.file, self.task), split, count, seed)
        return (checked_line(self.file, line) for line in lines)


class JsonlFolder(Jsonl):
    """A folder with `train.jsonl` or `test.jsonl`, or both, beside their images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        has = {split: folder / file for split, file in FILES.items() if (folder / file).exists()}
        super().__init__(folder, list(has.values()))
        stored = {"shots": "train", "val": "train", "test": "test"}
        self.splits = {split: file for split, file in stored.items() if file in has}

    @classmethod
    def named(cls, name: str) -> JsonlFolder | None:
        """The folder that a name is the path of, if it has such files; UserError if it has them in another form."""
        folder = Path(name)
        if any((folder / file).exists() for file in FILES.values()):
            return cls(folder)
        is_split = any((folder / split).is_dir() for split in FILES) or any(folder.glob("split_zhou_*.json"))
        for other in [] if is_split else [folder / f"{split}{ending}" for split in FILES for ending in OTHERS]:
            if other.is_file():
                raise UserError(f"'{other}' must be {other.stem}.jsonl: write an example a line, such as {A_LINE}")
        return None

    def read(self, split: str, count: int | None = None, seed: int = 0) -> Iterator[Example | UserError]:
        file = self.folder / FILES[self.stored(split)]
        lines = read_lines(file, self.task)
        if split != "test":
            kept = held_out(_keys(line) for _, line in lines)
            lines = [line for line, val in zip(lines, kept, strict=True) if val == (split == "val")]
        place = {"dataset": self.name, "split": split}
        for line in self.sample(lines, split, count, seed):
            row = checked_line(file, line)
            yield replace(row, **place) if isinstance(row, Example) else row


def _keys(line: Example | UserError) -> list[str]:
    """What keeps lines in one split: their pictures and their group."""
    return [] if isinstance(line, UserError) else [*map(content, line.images), f"group {line.group}"]


def first_task(path: Path) -> str | None:
    """The task that the first line of a JSONL file names, if it names one that there is."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            row = json.loads(next(line for line in file if line.strip()))
        return row["task"] if row["task"] in TASK_RULES else None
    except (OSError, ValueError, RecursionError, LookupError, TypeError, StopIteration):
        return None  # what is wrong with it is said when it is read


def checked_line(path: Path, line: Line) -> Example | UserError:
    """What a line holds, the headers of its pictures read; only those that are asked for are."""
    return with_headers(line[1], f"{path.name} line {line[0]}")


def read_lines(path: Path, task: str) -> list[Line]:
    """The lines of a JSONL file of `{image, question, answer, choices?, id?, group?, task?, unit?, precision?}`.

    `image` is a path, or a list of paths, relative to the file and inside its folder. A line is an example, or what is
    wrong with it; UserError if the file cannot be read or has none. No picture is opened.
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
    if kind := _other_kind(text, len(lines)):
        raise UserError(f"'{path}' is {kind}: write an example a line, such as {A_LINE}")
    return [(number, _example(line, path, number, task)) for number, line in lines]


def _other_kind(text: str, lines: int) -> str | None:
    """What a text is, if it is not JSON lines: not a line of it could be read."""
    start = text.lstrip()[0]
    if start == "[":
        return "one JSON list"
    if start != "{":
        return "not valid JSON, perhaps a table such as CSV"
    if lines == 1:
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    return "one JSON object over several lines"


def _example(line: str, path: Path, number: int, task: str) -> Example | UserError:
    item = f"{path.name} line {number}"
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair would break the tokenizer
    except (ValueError, RecursionError) as error:
        return UserError(f"{item}: not valid JSON ({error})")
    try:
        return _row(row, path, number, item, task)
    except UserError as error:
        return error


def _row(row: Any, path: Path, number: int, item: str, task: str) -> Example:
    if not isinstance(row, dict):
        raise UserError(f"{item}: not a JSON object")
    for column in ("image", "question", "answer"):
        if column not in row:
            raise UserError(f"{item}: column '{column}' is missing (needed: image, question, answer; choices if any)")
    if row.get("task") not in (None, task):
        known = "" if row["task"] in TASK_RULES else f" (there are {', '.join(TASK_RULES)})"
        raise UserError(f"{item}: task {row['task']!r:.40} where the set's is '{task}'{known}")
    question, answer, choices = check_texts(row["question"], row["answer"], row.get("choices"), item, task)
    question, unit, precision = asked_in(row, question, choices, item)
    question, images = placed(question, read_images(row["image"], path.parent, item))
    name = f"{path.stem}-{number}" if row.get("id") is None else str(row["id"])
    group = name if row.get("group") is None else str(row["group"])
    where = {"task": task, "dataset": path.stem, "split": "test", "group": group}
    return Example(name, images, question, answer, choices, **where, unit=unit, precision=precision)
