"""Sets that are tables of rows, and the paper's real ones among them (`real_sets.py`), from the hub or a folder.

`hub:NAME` is read from the hub, and only then is anything fetched. `NAME@DIR` is the same set in a folder: parquet or
arrow files, what `datasets.save_to_disk` wrote, or JSON files beside their images.
"""

from __future__ import annotations

import logging
import random
import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rftkit.common.errors import UserError, said
from rftkit.tasks.example import Example, ExampleSet, as_asked
from rftkit.tasks.outside.json_files import json_files, json_rows
from rftkit.tasks.outside.real_sets import REAL_SETS, RealSet
from rftkit.tasks.outside.rows import Row, example_of, in_either_form, repeated, with_headers
from rftkit.tasks.outside.splits import content, held_out, is_held_out

GROUP = "group"  # column: rows with the same one are not independent, and are held out together
BATCH = 64  # rows read at once


class Numbered(NamedTuple):
    """A row, its place in its split, and the folder that its images are in (None: they are in the row)."""

    number: int
    row: Row
    folder: Path | None


class Table(ExampleSet):
    """A set whose examples are rows. A subclass says how rows are read."""

    given: str  # its name as the user gave it, for messages
    usual_items = None
    drawn_shots = False  # whether its training rows are few shots of each class, drawn by those who made it
    distinct_ids = True  # whether two rows of a split may not have one id

    def stored(self, split: str) -> str:
        """What a split is called in the source; UserError if there is none."""
        if split not in self.splits:
            raise UserError(f"'{self.given}' has no rows for '{split}', only for {', '.join(self.splits)}")
        return self.splits[split]

    @abstractmethod
    def read(self, split: str, count: int | None = None, seed: int = 0) -> Iterable[Example | UserError]:
        """Rows of a split as examples, or what is wrong with a row; UserError if the table itself cannot be read."""

    def examples(
        self, split: str, part: str, count: int | None, seed: int = 0, protocol: str = "base_to_new"
    ) -> list[Example]:
        """As in `ExampleSet`, in the table's order.

        A test row that cannot be used is a UserError. Training rows that cannot are left out, and one line says so.
        """
        if part not in ("test", "all"):
            raise UserError(f"'{self.given}' has no split '{part}', only 'test'")
        found = list(self.read(split, count, seed))
        bad = [row for row in found if isinstance(row, UserError)]
        good = [row for row in found if isinstance(row, Example)]
        if bad and (split == "test" or not good):
            raise bad[0]
        if bad:
            told = f"{len(bad)} of {len(found)} training rows left out, the first: {bad[0]}"
            print(f"{self.given}: {told}", file=sys.stderr)
        if not good:
            raise UserError(f"'{self.given}' has no rows for '{split}'")
        if self.distinct_ids and (again := repeated(good)):
            raise UserError(f"'{self.given}', {split}: {again[0]}")
        return as_asked(good, protocol)

    def size(self, part: str, protocol: str) -> int:
        return sum(1 for _ in self.rows("test"))

    def rows(self, split: str) -> Iterable[Example | UserError]:
        return self.read(split)

    def training(self, protocol: str, shots: int, items: int, seed: int) -> list[Example]:
        """As in `ExampleSet`: a plain sample of `items` rows, or all, where those who made the set drew its shots."""
        return self.examples("shots", "all", None if self.drawn_shots else items, seed, protocol)

    def sample(self, rows: Iterable[tuple], split: str, count: int | None, seed: int) -> list[tuple]:
        """Up to `count` rows, each as likely as any other, by their numbers; one pass, so that rows may be streamed.

        If there are more to train on, a line says so, once.
        """
        rng, kept, seen = random.Random(seed), [], 0
        for seen, row in enumerate(rows, 1):
            if count is None or len(kept) < count:
                kept.append(row)
            elif (place := rng.randrange(seen)) < count:
                kept[place] = row
        if split == "shots" and seen > len(kept):
            _tell(
                f"{self.given}: trained on {len(kept)} of {seen} rows, a plain sample; a larger train_items takes more"
            )
        return sorted(kept, key=lambda row: row[0])


@cache
def _tell(line: str) -> None:
    """A line on stderr, once: a study asks for the examples of many runs."""
    print(line, file=sys.stderr)


class RealTable(Table):
    """One of the paper's sets (`real_sets.py`), from the hub or from a folder."""

    published = True

    def __init__(self, name: str, entry: RealSet, folder: Path | None) -> None:
        self.name, self.entry, self.folder = name, entry, folder
        self.given = f"hub:{name}" if folder is None else f"{name}@{folder}"
        self.spec = f"hub:{name}" if folder is None else f"{name}@{folder.resolve()}"
        self.task, self.drawn_shots = entry.task, entry.task == "classification"
        stored = {"shots": entry.train, "val": entry.train if entry.held_out else None, "test": entry.test}
        self.splits = {split: source for split, source in stored.items() if source}

    @classmethod
    def named(cls, name: str) -> RealTable | None:
        """The set that `hub:NAME` or `NAME@DIR` means; UserError if it cannot be read there."""
        on_hub = name.startswith("hub:")
        known, _, folder = name.removeprefix("hub:").partition("@")
        if not on_hub and known not in REAL_SETS:
            return None
        if known not in REAL_SETS:
            raise UserError(f"there is no real set '{known}': rftkit data list names them")
        entry = REAL_SETS[known]
        if on_hub and folder:
            raise UserError(f"'{name}' names both the hub and a folder: give hub:{known} or {known}@{folder}")
        if on_hub and not entry.on_hub:
            raise UserError(f"'{known}' cannot be read from the hub ({entry.where}): fetch it and give {known}@DIR")
        if not on_hub and not (folder and Path(folder).is_dir()):
            hub = f" or hub:{known}" if entry.on_hub else ""
            raise UserError(f"'{name}' names no folder: give {known}@DIR{hub}")
        return cls(known, entry, None if on_hub else Path(folder))

    def read(self, split: str, count: int | None = None, seed: int = 0) -> Iterator[Example | UserError]:
        rows = self._rows(self.stored(split))
        if split != "test":
            rows = self._kept(rows, split == "val")
        for numbered in self.sample(rows, split, count, seed):
            yield self._example(numbered, split)

    def _rows(self, stored: str) -> Iterator[Numbered]:
        """The rows of a stored split; the first ones only, where the paper takes no more for training."""
        files = json_files(self.folder, self.entry, stored) if self.folder else []
        rows = json_rows(files, self.entry, self.folder) if files else self._table_rows(stored)
        for number, (row, images) in enumerate(rows):
            if stored == self.entry.train and number == self.entry.first_rows:
                return
            yield Numbered(number, row, images)

    def _table_rows(self, stored: str) -> Iterator[tuple[Row, Path | None]]:
        """The rows that the `datasets` library reads, images not decoded."""
        import datasets  # it takes a second to load

        from rftkit.common.hub import asked_once

        for library in ("huggingface_hub", "datasets"):  # they tell of each try, and of what is raised
            logging.getLogger(library).setLevel(logging.CRITICAL)
        where, folder, copy = self.entry.where, self.folder, f"give {self.name}@DIR"
        try:
            if folder is None:
                with asked_once(where, "dataset", f"{copy} with a copy of it in DIR"):
                    table = datasets.load_dataset(where, split=stored, streaming=self.entry.streamed)
            elif (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
                table = _stored(folder, self.entry, stored)
            else:  # streamed: nothing is copied into the library's cache
                files = _parquet_files(folder, stored)
                table = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
            for batch in table.with_format("arrow").iter(BATCH):
                yield from ((row, folder) for row in batch.to_pylist())
        except UserError:
            raise
        except Exception as error:  # of the network, the hub, the files: the library raises all kinds
            other = f"; with a copy of it in DIR {copy}" if folder is None else ""
            reason = f"{said(error)[:200]}{other}"
            raise UserError(f"cannot read the split '{stored}' of '{self.given}': {reason}") from None

    def _kept(self, rows: Iterable[Numbered], val: bool) -> Iterator[Numbered]:
        """The training rows that are the paper's, and held out for choosing or not."""
        rows = filter(self._is_the_papers, rows)
        if not self.entry.held_out:
            return rows
        if self.entry.streamed and self.folder is None:  # one pass, one picture a row: as it would be in a folder
            return (row for row in rows if is_held_out(self._keys(row)[0]) == val)
        kept = held_out(map(self._keys, filter(self._is_the_papers, self._rows(self.entry.train))))
        return (row for row, held in zip(rows, kept, strict=True) if held == val)

    def _is_the_papers(self, numbered: Numbered) -> bool:
        return not self.entry.one_image or len(_listed(numbered.row.get(self.entry.image))) == 1

    def _keys(self, numbered: Numbered) -> list[str]:
        """What keeps rows in one split: the content of their pictures, and their group."""
        row, keys = numbered.row, []
        if row.get(GROUP) is not None:
            keys.append(f"group {row[GROUP]}")
        for image in _listed(row.get(self.entry.image)):
            image = (image.get("bytes") or image.get("path")) if isinstance(image, dict) else image
            if isinstance(image, str) and numbered.folder is not None:
                with suppress(OSError, ValueError):  # a picture that is not there is told of with its row
                    image = content(in_either_form(numbered.folder, image))
            keys.insert(0, content(image) if isinstance(image, bytes) else str(image))
        return keys

    def _example(self, numbered: Numbered, split: str) -> Example | UserError:
        entry, row, item = self.entry, numbered.row, f"{self.name}-{split}-{numbered.number}"
        try:
            for column in entry.columns:
                if column not in row:
                    raise UserError(f"{item}: column '{column}' is missing (there are {', '.join(row) or 'none'})")
            texts, place = entry.read(entry, row), {"id": item, "dataset": self.name, "split": split}
            example = example_of(row, texts, row[entry.image], numbered.folder, item, entry.task, **place)
        except UserError as error:
            return error
        # Questions about one picture are not independent.
        group = content(example.images[0])[:16] if row.get(GROUP) is None else str(row[GROUP])
        choices = example.choices
        if entry.shuffled and choices:
            choices = tuple(random.Random(item).sample(choices, len(choices)))
        return with_headers(replace(example, group=group, choices=choices), item)


def _listed(images: Any) -> list:
    return images if isinstance(images, list) else [images]


def _stored(folder: Path, entry: RealSet, stored: str) -> Any:
    """A split of what was saved with `save_to_disk`: splits by name, or one alone."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # of truncated files the library says no more than which word it misses
        raise ValueError(f"what save_to_disk wrote there is truncated: copy or save it again ({error})") from error
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
