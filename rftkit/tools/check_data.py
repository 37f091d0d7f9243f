"""`rftkit data`: which sets there are, and what is in one of them, right or wrong."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from pathlib import Path

from tqdm.auto import tqdm

from rftkit.common.errors import UserError
from rftkit.tasks.example import TASK_RULES, Example, ExampleSet
from rftkit.tasks.images import open_image
from rftkit.tasks.outside.coop import COOP
from rftkit.tasks.outside.real_sets import AUTHORS, REAL_SETS, RealSet
from rftkit.tasks.outside.rows import repeated, same_answers
from rftkit.tasks.outside.splits import content
from rftkit.tasks.registry import DRAWN, open_set
from rftkit.tasks.worlds import worlds

SHOWN = 3  # items of a split, pairs of class names


def list_sets() -> str:
    """The bundled sets and the layouts of real ones, a line each."""
    lines = ["bundled:"]
    lines += [f"  {name:<16}classification, {len(world.classes)} classes" for name, world in worlds().items()]
    lines += [f"  {name:<16}{len(task.kinds)} kinds on {len(task.levels)} levels" for name, task in DRAWN.items()]
    lines.append("CoOp's sets, as NAME@DIR: DIR has the folders of these files in it, as CoOp lays them out:")
    lines += [f"  {name:<16}{c.folder}/{c.split}, images in {c.folder}/{c.images}" for name, c in COOP.items()]
    lines.append(
        "yours, by path: a folder with one folder of images a class, or with train, val and test of these; one"
    )
    lines.append("with train.jsonl and test.jsonl; a JSONL file (rftkit evaluate)")
    lines.append("real, as hub:NAME or, in a folder, NAME@DIR (trained on / tested on; licence; rule):")
    shots = [name for name in REAL_SETS if "-4shot-" in name]
    lines.append(_entry("NAME-4shot-b2n", REAL_SETS[shots[0]], "afdsafas/NAME-4shot-b2n, and -fewshot"))
    lines.append(f"  {'':<16}NAME: {', '.join(AUTHORS)}")
    lines += [_entry(name, entry, entry.where) for name, entry in REAL_SETS.items() if name not in shots]
    return "\n".join(lines)


def _entry(name: str, entry: RealSet, where: str) -> str:
    splits = f"{entry.train or 'none'} / {entry.test or 'none'}"
    folder = "" if entry.on_hub else "; NAME@DIR only"
    return f"  {name:<16}{entry.task}, {where} ({splits}; {entry.licence}; {TASK_RULES[entry.task]}{folder})"


def check_set(name: str, root: str | None = None, task: str | None = None) -> tuple[str, list[str]]:
    """Counts, answers, a few items and remarks on a set as text, and every problem found, a line each.

    A problem is what can be fixed; the rest is a remark. `root` is the folder that a real set is in: NAME with DIR is
    NAME@DIR.
    """
    data = open_set(name if root is None else f"{name.removeprefix('hub:')}@{root}", task)
    parts, lines, problems = {}, [], []
    one_split = data.splits.get("shots") == data.splits.get("test")
    for split in tqdm(data.splits, desc="splits", leave=False, disable=None):  # a drawn task takes seconds each
        if one_split and split == "test":
            continue
        rows = _rows(data, split)
        parts[split] = examples = [row for row in rows if isinstance(row, Example)]
        problems += [str(row) for row in rows if isinstance(row, UserError)]
        labels = Counter(example.answer for example in examples)
        few, many = min(labels.values(), default=0), max(labels.values(), default=0)
        lines.append(f"{split}: {len(examples)} items, {len(labels)} answers with {few} to {many} items each")
        for example in examples[:SHOWN]:
            choices = "" if example.choices is None else f" (one of {len(example.choices)})"
            question = " ".join(example.question.split())
            lines.append(f"  {example.id}: {question:.200} -> {example.answer:.80}{choices}")
        problems += _unreadable(examples)
        problems += [f"{split} has no rows"] if not rows and split != "val" else []  # a small set may have no val
        problems += [f"{split}: {problem}" for problem in repeated(examples)]
    remarks = _ambiguous(parts)
    fixed = remarks if data.published else problems  # what only those who made the set could fix
    fixed += _shared(parts) + _alike(parts)
    if data.passed_over:
        (problems if data.lacks_pictures else remarks).append(data.passed_over)
    return "\n".join(lines + [f"remark: {remark}" for remark in _once(remarks)]), _once(problems)


def _rows(data: ExampleSet, split: str) -> list[Example | UserError]:
    """What there is of a split; nothing if nothing is held out."""
    try:
        return list(data.rows(split))
    except UserError:
        if split != "val":
            raise
        return []


def _once(lines: list[str]) -> list[str]:
    """Lines that say the same of several items, such as that a column is missing, as one."""
    same: dict[str, list[str]] = {}
    for line in lines:
        item, colon, said = line.partition(": ")
        same.setdefault(said if colon else line, []).append(line)
    return [first if not more else f"{first} (and so of {len(more)} more)" for first, *more in same.values()]


def _unreadable(examples: list[Example]) -> list[str]:
    problems = []
    for example in tqdm(examples, desc="images", leave=False, disable=None):
        for image in example.images:
            try:
                open_image(image, item=example.id)
            except UserError as error:
                problems.append(str(error))
    return problems


def _shared(parts: dict[str, list[Example]]) -> list[str]:
    """Image files with the same content in two splits, each picture once."""
    seen: dict[str, dict[str, str]] = {}  # of each picture the first place in each split
    for split, examples in parts.items():
        for example in examples:
            for image in example.images:
                if isinstance(image, Path | bytes):
                    place = example.id if isinstance(image, bytes) else image.name
                    seen.setdefault(content(image), {}).setdefault(split, place)
    problems = []
    for places in seen.values():
        if len(places) > 1:
            named = " and in ".join(f"{split} ({place})" for split, place in places.items())
            problems.append(f"the same picture is in {named}")
    return problems


def _ambiguous(parts: dict[str, list[Example]]) -> list[str]:
    """Answers that are part of another one: the lenient rule takes the longer for the shorter."""
    choosing = [example for examples in parts.values() for example in examples if example.choices is not None]
    if any(example.task != "classification" for example in choosing):
        return []
    labels = sorted({label.casefold() for example in choosing for label in example.choices})
    pairs = [f"'{one}' in '{other}'" for one, other in permutations(labels, 2) if one in other]
    told = "class names that are part of others, which the lenient rule cannot tell apart"
    lines = [f"{told}: {len(pairs)}, such as {', '.join(pairs[:SHOWN])}"] if pairs else []
    told = "class names with a comma in them, which in a list of choices look like two"
    commas = [f"'{label}'" for label in labels if "," in label]
    return lines + ([f"{told}: {len(commas)}, such as {', '.join(commas[:SHOWN])}"] if commas else [])


def _alike(parts: dict[str, list[Example]]) -> list[str]:
    """Choices of an item that every rule takes for the same."""
    every = (example for examples in parts.values() for example in examples)
    named = ((example.id, same_answers(example.choices or ())) for example in every)
    return [f"{item}: no rule can tell the choices {same} apart" for item, same in named if same]
