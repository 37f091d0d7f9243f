"""Sets that are tables of rows: the real ones (`real_sets.py`), from the hub or a folder, and JSONL folders.

`hub:NAME` is read from the hub, and only then is anything fetched. `NAME@DIR` is the same set in a folder: parquet or
arrow files, what `datasets.save_to_disk` wrote, or JSON files beside their images. A folder with `train.jsonl` and
`test.jsonl` is named by its path; its rows are those of `rftkit evaluate`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rftkit.common.errors import UserError
from rftkit.tasks.example import Example
from rftkit.tasks.outside.real_sets import REAL_SETS, RealSet, Row
from rftkit.tasks.outside.sources import check_texts, read_images, read_lines, repeated

HELD_OUT = 10  # every tenth training picture is kept for choosing steps and learning rate
JSONL = {"train": "train.jsonl", "test": "test.jsonl"}
BATCH = 64  # rows read at once
# JSON files of the `datasets` library that hold no rows.
DESCRIPTIONS = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
Numbered = tuple[int, Row, Path | None]  # a row, its place in its split, and the folder that its images are in


def is_real(name: str) -> bool:
    """Whether a data set's name is that of a real set, from the hub or in a folder."""
    return name.startswith("hub:") or name.partition("@")[0] in REAL_SETS


def is_jsonl_folder(name: str) -> bool:
    """Whether a name is that of a folder with `train.jsonl` or `test.jsonl` in it."""
    return any((Path(name) / file).exists() for file in JSONL.values())


def find(name: str) -> tuple[str, RealSet, Path | None]:
    """A real set's name, its entry, and the folder it is in (None: the hub); UserError if it cannot be read there."""
    on_hub = name.startswith("hub:")
    known, _, folder = name.removeprefix("hub:").partition("@")
    if known not in REAL_SETS:
        raise UserError(f"there is no real set '{known}': rftkit data list names them")
    entry = REAL_SETS[known]
    if on_hub and folder:
        raise UserError(f"'{name}' names both the hub and a folder: give hub:{known} or {known}@{folder}")
    if on_hub and not entry.on_hub:
        raise UserError(f"'{known}' cannot be read from the hub ({entry.where}): fetch it and give {known}@DIR")
    if not on_hub and not (folder and Path(folder).is_dir()):
        raise UserError(f"'{name}' names no folder: give {known}@DIR" + (f" or hub:{known}" if entry.on_hub else ""))
    return known, entry, None if on_hub else Path(folder)


def task_of_table(name: str) -> str:
    """The task of a table; that of a JSONL folder is classification."""
    return find(name)[1].task if is_real(name) else "classification"


def stored_splits(name: str) -> dict[str, str]:
    """Which of `shots`, `val` and `test` a table has, and what they are stored as."""
    if not is_real(name):
        train, test = (split if (Path(name) / file).exists() else None for split, file in JSONL.items())
        held_out = True
    else:
        entry = find(name)[1]
        train, test, held_out = entry.train, entry.test, entry.held_out
    found = {"shots": train, "val": train if held_out else None, "test": test}
    return {split: stored for split, stored in found.items() if stored}


def load(name: str, split: str, count: int | None, seed: int) -> list[Example]:
    """Up to `count` examples of a split (`shots`, `val` or `test`; None: all), in the table's order.

    A test row that cannot be used is a UserError; training rows that cannot are left out, and one line says so.
    """
    found = list(read(name, split, count, seed))
    bad = [error for error in found if isinstance(error, UserError)]
    good = [example for example in found if isinstance(example, Example)]
    if bad and (split == "test" or not good):
        raise bad[0]
    if bad:
        print(f"{name}: {len(bad)} of {len(found)} training rows left out, the first: {bad[0]}", file=sys.stderr)
    if not good:
        raise UserError(f"'{name}' has no rows for '{split}'")
    if again := repeated(good):
        raise UserError(f"'{name}', {split}: {again[0]}")
    return good


def read(name: str, split: str, count: int | None = None, seed: int = 0) -> Iterator[Example | UserError]:
    """The rows of a split as examples, or what is wrong with a row; UserError if the table itself cannot be read."""
    stored = stored_splits(name).get(split)
    if stored is None:
        raise UserError(f"'{name}' has no rows for '{split}', only for {', '.join(stored_splits(name))}")
    if not is_real(name):
        folder, lines = Path(name), enumerate(read_lines(Path(name) / JSONL[stored]))
        chosen = sample((pair for pair in lines if _line_belongs(pair[1], split, folder)), count, seed)
        place = {"dataset": folder.resolve().name, "split": split}
        return (replace(line, **place) if isinstance(line, Example) else line for _, line in chosen)
    known, entry, folder = find(name)
    rows = (row for row in _rows(name, entry, folder, stored) if split == "test" or _wanted(entry, row[1], split))
    return (_example(known, entry, row, split) for row in sample(rows, count, seed))


def _line_belongs(line: Example | UserError, split: str, folder: Path) -> bool:
    return _belongs(line.images[0], split, folder) if isinstance(line, Example) else split != "val"


def _belongs(image: Any, split: str, folder: Path | None) -> bool:
    """Whether a picture is of this split: it is held out whatever is asked about it."""
    return split == "test" or (_digest(image, folder)[0] % HELD_OUT == 0) == (split == "val")


def _digest(image: Any, folder: Path | None) -> bytes:
    """What a picture is known by: the content that a row holds, or its path in the folder of the images."""
    image = (image.get("bytes") or image.get("path")) if isinstance(image, dict) else image
    name = image.relative_to(folder.resolve()).as_posix() if isinstance(image, Path) else image
    return hashlib.sha256(name if isinstance(name, bytes) else str(name).encode(errors="replace")).digest()


def _wanted(entry: RealSet, row: Row, split: str) -> bool:
    """Whether a training row is one of the paper's, and of this split."""
    images = row.get(entry.image)
    images = images if isinstance(images, list) else [images]
    alone = not entry.one_image or len(images) == 1
    return alone and (not entry.held_out or _belongs(images[0] if images else None, split, None))


def sample(rows: Iterable[tuple], count: int | None, seed: int) -> list[tuple]:
    """Up to `count` rows, each as likely as any other, by their numbers; one pass, so that rows may be streamed."""
    rng, kept = random.Random(seed), []
    for seen, row in enumerate(rows):
        if count is None or len(kept) < count:
            kept.append(row)
        elif (place := rng.randrange(seen + 1)) < count:
            kept[place] = row
    return sorted(kept, key=lambda row: row[0])


def _rows(name: str, entry: RealSet, folder: Path | None, stored: str) -> Iterator[Numbered]:
    """The rows of a stored split; the first ones only, where the paper takes no more for training."""
    files = _json_files(folder, entry, stored) if folder else []
    rows = _json_rows(files, entry) if files else _table_rows(name, entry, folder, stored)
    for number, (row, images) in enumerate(rows):
        if stored == entry.train and number == entry.first_rows:
            return
        yield number, row, images


def _json_files(folder: Path, entry: RealSet, stored: str) -> list[Path]:
    """The JSON files with the rows of a stored split; none in a folder with files that hold the images too."""
    if any(path.suffix in (".parquet", ".arrow") for path in (*folder.glob("*"), *folder.glob("*/*"))):
        return []
    files = sorted([*folder.glob("*.json"), *folder.glob("data/*.json")])
    return [file for file in files if file.name not in DESCRIPTIONS and (entry.has_one_split or stored in file.stem)]


def _json_rows(files: list[Path], entry: RealSet) -> Iterator[tuple[Row, Path]]:
    """The rows of JSON files, a list or an object a line each; their images are beside them."""
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
            whole = text.lstrip().startswith("[")
            rows = json.loads(text) if whole else [json.loads(line) for line in text.split("\n") if line.strip()]
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"cannot read '{file}': {str(error)[:200]}") from None
        images = file.parent / entry.images
        for row in rows:
            yield row if isinstance(row, dict) else {}, images if images.is_dir() else file.parent


def _table_rows(name: str, entry: RealSet, folder: Path | None, stored: str) -> Iterator[tuple[Row, Path | None]]:
    """The rows that the `datasets` library reads, images not decoded."""
    import datasets  # it takes a second to load

    from rftkit.common.hub import asked_once

    for library in ("huggingface_hub", "datasets"):  # they tell of each try, and of what is raised
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        if folder is None:
            with asked_once(entry.where, "dataset", f"give {name[4:]}@DIR with a copy of it in DIR"):
                table = datasets.load_dataset(entry.where, split=stored, streaming=entry.streamed)
        elif (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            table = _stored(folder, entry, stored)
        else:  # streamed: nothing is copied into the library's cache
            files = _parquet_files(folder, stored)
            table = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        for batch in table.with_format("arrow").iter(BATCH):
            yield from ((row, folder) for row in batch.to_pylist())
    except UserError:
        raise
    except Exception as error:  # of the network, the hub, the files: the library raises all kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        other = f"; with a copy of it in DIR give {name[4:]}@DIR" if folder is None else ""
        raise UserError(f"cannot read the split '{stored}' of '{name}': {reason}{other}") from None


def _stored(folder: Path, entry: RealSet, stored: str) -> Any:
    """A split of what was saved with `save_to_disk`: splits by name, or one alone."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # of torn files the library says no more than which word it misses
        raise ValueError(f"what save_to_disk wrote there is torn: copy or save it again ({error})") from error
    splits = saved if isinstance(saved, dict) else {stored if entry.has_one_split else str(saved.split): saved}
    if stored not in splits:
        raise FileNotFoundError(f"what save_to_disk wrote there has the splits {', '.join(splits)}")
    return splits[stored]


def _parquet_files(folder: Path, stored: str) -> list[str]:
    """The parquet files of a split by their names, as the hub has them."""
    patterns = (f"{stored}.parquet", f"{stored}-*.parquet", f"*_{stored}.parquet")
    files = sorted({str(path) for place in ("", "*/") for name in patterns for path in folder.glob(place + name)})
    if not files:
        raise FileNotFoundError(f"there is no {', '.join(patterns)}, nothing that save_to_disk wrote, no JSON file")
    return files


def _example(known: str, entry: RealSet, numbered: Numbered, split: str) -> Example | UserError:
    number, row, folder = numbered
    item = f"{known}-{split}-{number}"
    try:
        for column in entry.columns:
            if column not in row:
                raise UserError(f"{item}: column '{column}' is missing (there are {', '.join(row) or 'none'})")
        question, answer, choices = check_texts(*entry.read(entry, row), item, entry.task)
        images = read_images(row[entry.image], folder, item)
    except UserError as error:
        return error
    if entry.shuffled and choices:
        choices = tuple(random.Random(item).sample(choices, len(choices)))
    group = _digest(images[0], folder).hex()[:16]  # questions about one picture are not independent
    return Example(item, images, question, answer, choices, entry.task, known, split, group)
