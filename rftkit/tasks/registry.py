"""From a set's name to the set: the one place that looks at what kind of name it is.

A new bundled classification set is a file in `worlds/`. A new drawn task is a file in `drawn/` and a line in `DRAWN`.
A new set of the hub is an entry in `outside/sets.yaml`. A new kind of source is a class with `named` and a line in
`SOURCES`.
"""

from __future__ import annotations

from functools import cache

from rftkit.common.errors import UserError
from rftkit.tasks.classification import BundledClasses
from rftkit.tasks.drawn import math, puzzle, spatial
from rftkit.tasks.example import ExampleSet
from rftkit.tasks.outside.jsonl import Jsonl
from rftkit.tasks.outside.photos import PhotoFolder
from rftkit.tasks.outside.table_sets import RealTable
from rftkit.tasks.worlds import worlds

DRAWN = {task.name: task for task in (math.TASK, puzzle.TASK, spatial.TASK)}
SOURCES = (RealTable, Jsonl, PhotoFolder)  # in this order; each knows its own names


@cache
def bundled_sets() -> dict[str, ExampleSet]:
    """All bundled sets by name."""
    return {name: BundledClasses(world) for name, world in worlds().items()} | DRAWN


def open_set(name: str, task: str | None = None) -> ExampleSet:
    """The set that a name stands for; UserError if there is none of that task. Reads no picture, fetches nothing yet.

    Args:
        name: a bundled set; `hub:NAME` or `NAME@DIR` for a set of the paper; a folder of photographs; a folder with
            `train.jsonl` or `test.jsonl`; a JSONL file.
        task: that it must be of (None: any), or that its pictures are asked for, where its files name none.
    """
    named = (source.named(name) for source in SOURCES)
    found = bundled_sets().get(name) or next(filter(None, named), None)
    if found and task not in (None, found.as_task(task).task):
        raise UserError(f"dataset '{found.name}' belongs to the task '{found.task}', not '{task}'")
    if found:
        return found
    raise UserError(
        f"unknown dataset '{name}': choose one of {', '.join(bundled_sets())}, give a folder, a JSONL file, or a real "
        "set as hub:NAME or NAME@DIR (rftkit data list)"
    )


def why_not(trained: ExampleSet, tested: ExampleSet, trains: bool) -> str | None:
    """Why a run cannot use these sets, in one line, or None. `trains`: whether its method trains at all."""
    if "test" not in tested.splits:
        return (
            f"'{tested.spec}' has no test split: give the set to test on as --eval-dataset (eval_dataset in a profile)"
        )
    if not trains:
        return None
    if "shots" not in trained.splits:
        return f"'{trained.spec}' has a test split only: train on another set and give this one as --eval-dataset"
    if tested.name == trained.name and trained.splits["shots"] == trained.splits.get("test"):
        return f"'{trained.spec}' has one split: train on it only to test on another set, given as --eval-dataset"
    return None


def short_name(spec: str) -> str:
    """A set's name without the place it is read from, which may be gone: `dtd` of `dtd@DIR`, `mine` of `my/mine`."""
    head = spec.removeprefix("hub:").partition("@")[0]
    return spec.replace("\\", "/").rpartition("/")[2] if "/" in head or "\\" in head else head
