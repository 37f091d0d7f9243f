"""JSONL files of examples: one alone to test on, or a folder with `train.jsonl` and `test.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rftkit.common.errors import UserError
from rftkit.tasks.example import TASK_RULES, Example, ExampleSet
from rftkit.tasks.outside.rows import example_of, with_headers
from rftkit.tasks.outside.splits import content, held_out
from rftkit.tasks.outside.table_sets import Table

FILES = {"train": "train.jsonl", "test": "test.jsonl"}
OTHERS = (".json", ".csv", ".tsv")  # files that people have in place of JSON lines
A_LINE = '{"image": "cat.jpg", "question": "What is it?", "answer": "cat"}'


class Jsonl(Table):
    """A JSONL file to test on, or a folder with `train.jsonl`, `test.jsonl` or both, beside their images.

    The files name their task (`"task": "math"` in each line), or whoever opens them does.
    """

    def __init__(self, place: Path) -> None:
        self.given, self.spec = str(place), str(place.resolve())
        files = {stored: place / file for stored, file in FILES.items() if (place / file).exists()}
        if files:
            self.name = self.dataset = place.resolve().name
        else:
            self.name, self.dataset, files = place.name, place.stem, {"test": place}
        self.files = files
        self.distinct_ids = place.is_dir()
        stored = {"shots": "train", "val": "train", "test": "test"}
        self.splits = {split: file for split, file in stored.items() if file in self.files}
        self.named_task = next(filter(None, map(first_task, self.files.values())), None)
        self.task = self.named_task or Jsonl.task

    @classmethod
    def named(cls, name: str) -> Jsonl | None:
        """The file, or the folder with such files, that a name is the path of; UserError if a folder has other ones."""
        place = Path(name)
        if place.is_file() or any((place / file).exists() for file in FILES.values()):
            return cls(place)
        is_split = any((place / split).is_dir() for split in FILES) or any(place.glob("split_zhou_*.json"))
        for other in [] if is_split else [place / f"{split}{ending}" for split in FILES for ending in OTHERS]:
            if other.is_file():
                raise UserError(f"'{other}' must be {other.stem}.jsonl: write an example a line, such as {A_LINE}")
        return None

    def as_task(self, task: str | None) -> ExampleSet:
        self.task = self.named_task or (task if task in TASK_RULES else Jsonl.task)
        return self

    def read(self, split: str, count: int | None = None, seed: int = 0) -> Iterator[Example | UserError]:
        file = self.files[self.stored(split)]
        lines = read_lines(file, self.task, {"dataset": self.dataset, "split": split})
        if split != "test":
            kept = held_out(_keys(row) for _, row in lines)
            lines = [line for line, val in zip(lines, kept, strict=True) if val == (split == "val")]
        for number, row in self.sample(lines, split, count, seed):
            yield with_headers(row, f"{file.name} line {number}")  # of the pictures that are asked for, no others


def _keys(row: Example | UserError) -> list[str]:
    """What keeps rows in one split: their pictures and their group."""
    return [] if isinstance(row, UserError) else [*map(content, row.images), f"group {row.group}"]


def first_task(path: Path) -> str | None:
    """The task that the first line of a JSONL file names, if it names one that there is."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            row = json.loads(next(line for line in file if line.strip()))
        return row["task"] if row["task"] in TASK_RULES else None
    except (OSError, ValueError, RecursionError, LookupError, TypeError, StopIteration):
        return None  # what is wrong with it is said when it is read


def read_lines(path: Path, task: str, where: dict[str, str]) -> list[tuple[int, Example | UserError]]:
    """The lines of a JSONL file of `{image, question, answer, choices?, id?, group?, task?, unit?, precision?}`.

    `image` is a path, or a list of paths, relative to the file and inside its folder. A line is an example, or what is
    wrong with it, with its number; UserError if the file cannot be read or has none. No picture is opened.

    Args:
        where: the names of the set and the split, for each example.
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
    return [(number, _example(line, path, number, task, where)) for number, line in lines]


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


def _example(line: str, path: Path, number: int, task: str, where: dict[str, str]) -> Example | UserError:
    item = f"{path.name} line {number}"
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair would break the tokenizer
    except (ValueError, RecursionError) as error:
        return UserError(f"{item}: not valid JSON ({error})")
    try:
        _check_row(row, item, task)
        texts = row["question"], row["answer"], row.get("choices")
        name = f"{path.stem}-{number}" if row.get("id") is None else str(row["id"])
        group = name if row.get("group") is None else str(row["group"])
        return example_of(row, texts, row["image"], path.parent, item, task, id=name, group=group, **where)
    except UserError as error:
        return error


def _check_row(row: Any, item: str, task: str) -> None:
    """UserError naming `item` if a line is no object, lacks a column, or is of another task."""
    if not isinstance(row, dict):
        raise UserError(f"{item}: not a JSON object")
    for column in ("image", "question", "answer"):
        if column not in row:
            raise UserError(f"{item}: column '{column}' is missing (needed: image, question, answer; choices if any)")
    if row.get("task") not in (None, task):
        known = "" if row["task"] in TASK_RULES else f" (there are {', '.join(TASK_RULES)})"
        raise UserError(f"{item}: task {row['task']!r:.40} where the set's is '{task}'{known}")
