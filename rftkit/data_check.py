"""`rftkit data`: which sets there are, and what is in one of them, right or wrong."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from tqdm.auto import tqdm

from rftkit.errors import UserError
from rftkit.nano.worlds import worlds
from rftkit.tasks import Example
from rftkit.tasks.bundled import DRAWN, TEST_ITEMS, is_photo_folder, load_part, task_of
from rftkit.tasks.photos import COOP
from rftkit.tasks.sources import open_image, read_jsonl

SPLITS = ("shots", "val", "test")
SHOWN = 3  # items of a split


def list_sets() -> str:
    """The bundled sets and the layouts of real ones, a line each."""
    lines = ["bundled:"]
    lines += [f"  {name:<16}classification, {len(world.classes)} classes" for name, world in worlds().items()]
    lines += [f"  {name:<16}{len(task.kinds)} kinds on {len(task.levels)} levels" for name, task in DRAWN.items()]
    lines.append("yours, by the path of a folder in CoOp's layout (images/..., split_zhou_*.json):")
    lines += [f"  {name:<16}{c.folder}/{c.split}, images in {c.folder}/{c.images}" for name, c in COOP.items()]
    lines.append("yours, by path: a folder with one folder of images a class; a JSONL file (rftkit evaluate)")
    return "\n".join(lines)


def check_set(name: str) -> tuple[str, list[str]]:
    """Counts, classes and a few items of a set as text, and every problem found, a line each."""
    if Path(name).is_file():
        parts = {"test": read_jsonl(Path(name))}
    else:
        task_of(name)  # says what there is if the name is wrong
        most = 10**6 if is_photo_folder(name) else TEST_ITEMS
        parts = {split: load_part(name, split, most, 0, "all") for split in SPLITS}
    lines, problems = [], []
    for split, examples in parts.items():
        labels = Counter(example.answer for example in examples)
        few, many = min(labels.values()), max(labels.values())
        lines.append(f"{split}: {len(examples)} items, {len(labels)} answers with {few} to {many} items each")
        for example in examples[:SHOWN]:
            choices = "" if example.choices is None else f" (one of {len(example.choices)})"
            lines.append(f"  {example.id}: {example.question} -> {example.answer}{choices}")
        problems += _unreadable(examples)
    return "\n".join(lines), problems + _shared(parts) + _ambiguous(parts)


def _unreadable(examples: list[Example]) -> list[str]:
    problems = []
    for example in tqdm(examples, desc="images", leave=False):
        for image in example.images:
            try:
                open_image(image, item=example.id)
            except UserError as error:
                problems.append(str(error))
    return problems


def _shared(parts: dict[str, list[Example]]) -> list[str]:
    """Image files with the same content in two splits."""
    seen: dict[str, tuple[str, str]] = {}
    problems = []
    for split, examples in parts.items():
        for example in examples:
            for image in (image for image in example.images if isinstance(image, Path)):
                digest = hashlib.sha256(image.read_bytes()).hexdigest()
                first, place = seen.setdefault(digest, (split, image.name))
                if first != split:
                    problems.append(f"the same picture is in {first} ({place}) and in {split} ({image.name})")
    return problems


def _ambiguous(parts: dict[str, list[Example]]) -> list[str]:
    """Answers that are part of another one: the lenient rule takes the longer for the shorter."""
    choosing = [example for examples in parts.values() for example in examples if example.choices is not None]
    if any(example.task != "classification" for example in choosing):
        return []
    labels = sorted({label.casefold() for example in choosing for label in example.choices})
    return [f"class '{one}' is part of class '{other}': the lenient rule cannot tell them apart"
            for one in labels for other in labels if one != other and one in other]  # fmt: skip
