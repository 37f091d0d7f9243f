"""Rows in JSON files beside their images, as sets have them outside of the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from os.path import isfile
from pathlib import Path
from typing import Any

from rftkit.common.errors import UserError
from rftkit.tasks.outside.real_sets import RealSet
from rftkit.tasks.outside.rows import Row

BLANK = re.compile(r"[ \t\r\n]*")
# JSON files of the `datasets` library that hold no rows.
DESCRIPTIONS = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")


def json_files(folder: Path, entry: RealSet, stored: str) -> list[Path]:
    """The JSON files with the rows of a stored split; none in a folder with files that hold the images too."""
    if any(path.suffix in (".parquet", ".arrow") for path in (*folder.glob("*"), *folder.glob("*/*"))):
        return []
    patterns = ("*.json", "*.jsonl", "data/*.json", "data/*.jsonl")
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.name not in DESCRIPTIONS]
    named = [file for file in files if stored in file.stem]
    return named or (files if entry.has_one_split else [])


def json_rows(files: list[Path], entry: RealSet, folder: Path) -> Iterator[tuple[Row, Path]]:
    """The rows of JSON files; their images are beside them, or in the folder of the set."""
    for file in files:
        try:
            rows = _listed(json_values(file.read_text(encoding="utf-8-sig")))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"cannot read '{file}': {str(error)[:200]}") from None
        rows = [_with_image(row, entry) if isinstance(row, dict) else {} for row in rows]
        images = _images_of(rows, entry, file.parent, folder)
        yield from ((row, images) for row in rows)


def _with_image(row: Row, entry: RealSet) -> Row:
    """A row whose picture is named where the set has it on the hub, whatever its own file calls the path."""
    return {entry.image: row["image"]} | row if "image" in row else row


def json_values(text: str) -> list[Any]:
    """The JSON values that stand in a text one after the other, such as one a line; ValueError if there is another."""
    found, place = [], BLANK.match(text).end()
    while place < len(text):
        value, place = json.JSONDecoder().raw_decode(text, place)
        found.append(value)
        place = BLANK.match(text, place).end()
    return found


def _listed(values: list[Any]) -> list[Any]:
    """What a JSON file lists: in a list, in one object by id, or one value after the other."""
    whole = values[0] if len(values) == 1 else values
    if isinstance(whole, dict) and all(isinstance(value, dict) for value in whole.values()):
        return list(whole.values())
    return whole if isinstance(whole, list) else [whole]


def _images_of(rows: list[Row], entry: RealSet, beside: Path, folder: Path) -> Path:
    """The folder that the picture of the first row is in: that of the set's pictures, of its file, or of the set."""
    image = rows[0].get(entry.image) if rows else None
    image = image[0] if isinstance(image, list) and image else image
    places = (beside / entry.images, beside, folder)
    return next((place for place in places if isinstance(image, str) and isfile(place / image)), beside)
