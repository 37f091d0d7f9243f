"""All sets by name: the task they belong to, the parts of their tests, their examples, what is trained on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from rftkit.common.errors import UserError
from rftkit.tasks import classification
from rftkit.tasks.drawn import math, puzzle, spatial
from rftkit.tasks.example import Example
from rftkit.tasks.outside import tables
from rftkit.tasks.outside.photos import COOP, is_coop, photo_folder
from rftkit.tasks.outside.sources import read_jsonl
from rftkit.tasks.outside.tables import is_jsonl_folder, is_real, stored_splits
from rftkit.tasks.worlds import worlds

DRAWN = {task.name: task for task in (math.TASK, puzzle.TASK, spatial.TASK)}
TASKS = ("classification", *DRAWN)
TEST_ITEMS = 1000  # a part, where a set can be drawn
PROTOCOLS = ("base_to_new", "new_to_base", "few_shot", "open_set")
SWAPPED = {"base": "new", "new": "base"}


def datasets() -> tuple[str, ...]:
    """The names of all bundled sets."""
    return (*worlds(), *DRAWN)


def is_table(name: str) -> bool:
    """Whether a data set's name is that of a real set or of a folder of JSONL files (`rftkit.tasks.outside.tables`)."""
    return name not in datasets() and (is_real(name) or is_jsonl_folder(name))


def is_photo_folder(name: str) -> bool:
    """Whether a data set's name is that of a folder (`rftkit.tasks.outside.photos`), and of no bundled set."""
    return name not in datasets() and not is_table(name) and photo_folder(name).is_dir()


def resolved(dataset: str) -> str:
    """A data set's name with the whole path of its folder, if it has one: notebooks run elsewhere."""
    if is_real(dataset):
        known, at, folder = dataset.partition("@")
        return f"{known}@{Path(folder).resolve()}" if at else dataset
    folder = photo_folder(dataset)
    if dataset in datasets() or not folder.is_dir():
        return dataset
    return f"{dataset.partition('@')[0]}@{folder.resolve()}" if is_coop(dataset) else str(folder.resolve())


def short_name(dataset: str) -> str:
    """A data set's name without the place it is read from, which may change."""
    named = is_real(dataset) or is_coop(dataset)
    return dataset.removeprefix("hub:").partition("@")[0] if named else Path(dataset).name


def task_of(dataset: str) -> str:
    """The task a set belongs to; UserError if there is no such set."""
    if dataset in DRAWN:
        return dataset
    if dataset in worlds() or is_photo_folder(dataset):
        return "classification"
    if is_table(dataset):
        return tables.task_of_table(dataset)
    if (name := dataset.partition("@")[0]) in COOP:
        raise UserError(f"'{dataset}' names no folder: give {name}@DIR, with the folder that CoOp's sets are in")
    raise UserError(
        f"unknown dataset '{dataset}': choose one of {', '.join(datasets())}, give a folder, or a real set as "
        "hub:NAME or NAME@DIR (rftkit data list)"
    )


def rule_of(dataset: str) -> str:
    """The scoring rule of a set's task."""
    return rule_of_task(task_of(dataset))


def rule_of_task(task: str) -> str:
    """The scoring rule of a task."""
    return DRAWN[task].rule if task in DRAWN else "strict"


def trained_parts(dataset: str, protocol: str) -> tuple[str, ...]:
    """The parts that validation looks at: both halves in base-to-new, else one part for all that is trained on."""
    has_halves = dataset not in DRAWN and not is_table(dataset)
    return ("base", "new") if has_halves and protocol in ("base_to_new", "new_to_base") else ("all",)


def evaluated_parts(dataset: str, protocol: str) -> tuple[str, ...]:
    """The parts a protocol tests on."""
    if is_table(dataset):
        return ("test",)
    return tuple(DRAWN[dataset].parts) if dataset in DRAWN else trained_parts(dataset, protocol)


def load_part(
    dataset: str, split: str, count: int, seed: int, part: str, protocol: str = "base_to_new"
) -> list[Example]:
    """`count` examples of one part of a set (fewer where a set of real pictures has fewer).

    Args:
        split: `shots` (training), `val` (held-out scenes for choosing steps and learning rate) or `test`.
        protocol: in `new_to_base` the halves are swapped: `base` is what is trained on; in `open_set` no choices are
            listed.
    """
    if dataset in DRAWN:
        return DRAWN[dataset].load(split, count, seed, part)
    if is_table(dataset):
        return _asked(tables.load(dataset, split, count, seed), protocol)
    part = SWAPPED.get(part, part) if protocol == "new_to_base" else part
    return _asked(classification.load_split(dataset, split, count, seed, part), protocol)


def training_set(dataset: str, protocol: str, shots: int, items: int, seed: int) -> list[Example]:
    """What a run is trained on: `shots` pictures of each class, or `items` of another task.

    A table of classes is taken whole: its shots were drawn by those who made it.
    """
    if dataset in DRAWN:
        return DRAWN[dataset].load("shots", items, seed)
    if is_table(dataset):
        count = None if task_of(dataset) == "classification" else items
        return _asked(tables.load(dataset, "shots", count, seed), protocol)
    half = {"base_to_new": "base", "new_to_base": "new"}.get(protocol, "all")
    return _asked(classification.load_split(dataset, "shots", shots, seed, half, per_class=True), protocol)


def _asked(examples: list[Example], protocol: str) -> list[Example]:
    """The examples as a protocol asks them: in `open_set` without a choice list."""
    return [replace(example, choices=None) for example in examples] if protocol == "open_set" else examples


def read_splits(data: str, split: str | None = None, limit: int | None = None) -> dict[str, list[Example]]:
    """Test examples by split: the parts of a set's test, or a JSONL file.

    Args:
        data: a set's name or a path.
        split: a part of a set, such as `base`, `new` or `all` (None: its usual ones); tables and files have `test`.
        limit: at most this many examples a split (None: TEST_ITEMS of what is drawn and of photographs, else all).
    """
    if data in datasets() or is_photo_folder(data):
        parts = (split,) if split else evaluated_parts(data, "base_to_new")
        found = {part: load_part(data, "test", limit or TEST_ITEMS, 0, part) for part in parts}
        if limit is None and data not in datasets():
            _tell_of_left_out(data, found)
        return found
    if not is_table(data) and not Path(data).exists():
        raise UserError(
            f"no data '{data}': name a bundled set ({', '.join(datasets())}), a folder, a JSONL file, or a real set as "
            "hub:NAME or NAME@DIR (rftkit data list)"
        )
    if split not in (None, "test"):
        raise UserError(f"'{data}' has no split '{split}', only 'test'")
    return {"test": tables.load(data, "test", limit, 0) if is_table(data) else read_jsonl(Path(data))[:limit]}


def _tell_of_left_out(data: str, asked: dict[str, list[Example]]) -> None:
    """A line on stderr if a folder of photographs has more test items than are asked when nobody says how many."""
    there = {part: len(load_part(data, "test", 10**6, 0, part)) for part in asked}
    parts = [f"{len(asked[part])} of {most} ({part})" for part, most in there.items() if most > len(asked[part])]
    if parts:
        print(f"{data}: test items asked: {', '.join(parts)}; a larger --limit asks more", file=sys.stderr)


def why_not(dataset: str, eval_dataset: str | None, trains: bool) -> str | None:
    """Why a run cannot use these sets (eval_dataset None: it tests on the one it trains on), in one line, or None."""
    tested = eval_dataset or dataset
    if is_table(tested) and "test" not in stored_splits(tested):
        return f"'{tested}' has no test split: give the set to test on as --eval-dataset (eval_dataset in a profile)"
    if not trains or not is_table(dataset):
        return None
    has = stored_splits(dataset)
    if "shots" not in has:
        return f"'{dataset}' has a test split only: train on another set and give this one as --eval-dataset"
    if short_name(tested) == short_name(dataset) and has["shots"] == has.get("test"):
        return f"'{dataset}' has one split: train on it only to test on another set, given as --eval-dataset"
    return None


def rule_of_data(data: str) -> str:
    """The scoring rule of whatever `read_splits` reads; `strict` for a file."""
    return rule_of(data) if data in DRAWN or is_table(data) else "strict"
