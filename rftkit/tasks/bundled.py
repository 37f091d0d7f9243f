"""The bundled sets of all tasks by name: the parts of their tests, their examples, what is trained on."""

from __future__ import annotations

from pathlib import Path

from rftkit.errors import UserError
from rftkit.nano.worlds import worlds
from rftkit.tasks import Example, classification, math, puzzle, spatial
from rftkit.tasks.sources import read_jsonl

DRAWN = {task.name: task for task in (math.TASK, puzzle.TASK, spatial.TASK)}
TASKS = ("classification", *DRAWN)
TEST_ITEMS = 1000  # a part, where a set can be drawn


def datasets() -> tuple[str, ...]:
    """The names of all bundled sets."""
    return (*worlds(), *DRAWN)


def task_of(dataset: str) -> str:
    """The task a bundled set belongs to; UserError if there is no such set."""
    if dataset in DRAWN:
        return dataset
    if dataset in worlds():
        return "classification"
    raise UserError(f"unknown bundled dataset '{dataset}': choose one of {', '.join(datasets())}")


def rule_of(dataset: str) -> str:
    """The scoring rule of a bundled set's task."""
    return DRAWN[dataset].rule if dataset in DRAWN else "strict"


def trained_parts(dataset: str, protocol: str) -> tuple[str, ...]:
    """The parts that validation looks at: both halves in base-to-new, else one part for all that is trained on."""
    return ("base", "new") if dataset not in DRAWN and protocol == "base_to_new" else ("all",)


def evaluated_parts(dataset: str, protocol: str) -> tuple[str, ...]:
    """The parts a protocol tests on."""
    return tuple(DRAWN[dataset].parts) if dataset in DRAWN else trained_parts(dataset, protocol)


def load_part(dataset: str, split: str, count: int, seed: int, part: str) -> list[Example]:
    """`count` examples of one part of a bundled set (fewer where a set of real pictures has fewer).

    Args:
        split: `shots` (training), `val` (held-out scenes for choosing steps and learning rate) or `test`.
    """
    if dataset in DRAWN:
        return DRAWN[dataset].load(split, count, seed, part)
    return classification.load_split(dataset, split, count, seed, part)


def training_set(dataset: str, protocol: str, shots: int, items: int, seed: int) -> list[Example]:
    """What a run is trained on: `shots` pictures of each class, or `items` scenes of a drawn task."""
    if dataset in DRAWN:
        return DRAWN[dataset].load("shots", items, seed)
    half = "base" if protocol == "base_to_new" else "all"
    return classification.load_split(dataset, "shots", shots, seed, half, per_class=True)


def read_splits(data: str, split: str | None = None, limit: int | None = None) -> dict[str, list[Example]]:
    """Test examples by split: the parts of a bundled set's test, or a JSONL file (see `sources.read_jsonl`).

    Args:
        data: a bundled set's name or a path.
        split: a part of a bundled set, such as `base`, `new` or `all` (None: its usual ones); a file has only `test`.
        limit: at most this many examples a split.
    """
    if data in datasets():
        parts = (split,) if split else evaluated_parts(data, "base_to_new")
        return {part: load_part(data, "test", limit or TEST_ITEMS, 0, part) for part in parts}
    path = Path(data)
    if not path.exists():
        raise UserError(f"no data '{data}': name a bundled set ({', '.join(datasets())}) or a JSONL file")
    if path.is_dir():
        raise UserError(f"'{data}' is a folder: give the JSONL file in it")
    if split not in (None, "test"):
        raise UserError(f"'{data}' has no split '{split}': a file is one split, 'test'")
    return {"test": read_jsonl(path)[:limit]}
