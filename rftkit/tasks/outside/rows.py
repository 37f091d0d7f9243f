"""What a row of a table holds, checked: texts that may reach a model, and images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from rftkit.common.errors import UserError
from rftkit.tasks.example import Example

Row = dict[str, Any]
MOST_DECIMALS = 15  # that a number of double precision has
CONTROL_TOKEN = re.compile(r"<\|\w+\|>")  # chat templates and image places are written with these


def check_texts(
    question: Any, answer: Any, choices: Any, item: str, task: str = "classification"
) -> tuple[str, str, tuple[str, ...] | None]:
    """Question, answer and choices as they may reach a model; UserError naming `item` if one of them may not.

    Only in classification choices are asked for without letters (`rftkit.prompts.question_text`).
    """
    for column, text in (("question", question), ("answer", answer)):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{item}: '{column}' must be a text that is not empty")
    if choices is not None:
        if not isinstance(choices, list) or not all(isinstance(c, str) and c.strip() for c in choices):
            raise UserError(f"{item}: 'choices' must be a list of texts")
        if answer not in choices:
            raise UserError(f"{item}: answer {answer!r:.80} is not among the choices {choices!r:.200}")
        if task != "classification" and len(choices) > len(ascii_uppercase):
            raise UserError(f"{item}: there are {len(choices)} choices and {len(ascii_uppercase)} letters to name them")
    for text in (question, answer, *(choices or ())):
        if found := CONTROL_TOKEN.search(text):
            raise UserError(f"{item}: {found[0]!r} is a control token of the chat format: write it another way")
        if not is_utf8(text):  # it would break the tokenizer
            raise UserError(f"{item}: {text!r:.80} has half a character in it")
    return question, answer, None if choices is None else tuple(choices)


def asked_in(row: Row, question: str, choices: Any, item: str) -> tuple[str, str, int | None]:
    """The question with how its answer is to be given, and the `unit` and the `precision` in decimals that a row names.

    UserError naming `item` if they are no text and no small whole number. Choices have both in them.
    """
    unit, precision = row.get("unit") or "", row.get("precision")
    if not isinstance(unit, str) or not is_utf8(unit) or CONTROL_TOKEN.search(unit):
        raise UserError(f"{item}: 'unit' must be a text such as cm, not {unit!r:.40}")
    if precision is not None and not (isinstance(precision, int | float) and precision in range(MOST_DECIMALS + 1)):
        raise UserError(f"{item}: 'precision' must be a number of decimals such as 2, not {precision!r:.40}")
    if choices:
        return question, "", None
    unit, said = unit.strip(), question.rstrip()
    if unit and not re.search(rf"(?<!\w){re.escape(unit)}(?!\w)", question):
        said += f" Answer in {unit}."
    if precision is None:
        return said, unit, None
    if not re.search(r"\bround|\bdecimal|\bnearest\b", question, re.IGNORECASE):
        said += f" Round to {precision:.0f} decimal{'' if precision == 1 else 's'}."
    return said, unit, int(precision)


def repeated(examples: Iterable[Example]) -> list[str]:
    """A line for each id that several examples have: answers could not be told apart by it."""
    times = Counter(example.id for example in examples)
    return [f"{name} names {count} items: ids must differ" for name, count in times.items() if count > 1]


def is_utf8(text: str) -> bool:
    """Whether a text can be written in UTF-8: it has no half characters, such as Python's for bytes of other codes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_images(value: Any, folder: Path | None, item: str) -> tuple[Path | bytes, ...]:
    """The images of a row: paths inside `folder` (None: there is none), the content of files, or a list of these.

    The content of a file is `bytes`, or a dict with `bytes` or `path`, as the `datasets` library stores images.
    """
    values = value if isinstance(value, list) else [value]
    if not values:
        raise UserError(f"{item}: 'image' is an empty list")
    contents = [(v.get("bytes") or v.get("path")) if isinstance(v, dict) else v for v in values]
    return tuple(c if isinstance(c, bytes) and c else _image_path(c, folder, item) for c in contents)


def _image_path(name: Any, folder: Path | None, item: str) -> Path:
    if not isinstance(name, str) or not name or folder is None:
        raise UserError(f"{item}: 'image' must be a path")
    folder = folder.resolve()
    try:
        image = (folder / name).resolve()
        is_file = image.is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long, with a null character, a loop of links
        raise UserError(f"{item}: {name!r:.80} is not the name of a file") from None
    if not image.is_relative_to(folder):
        raise UserError(f"{item}: image {name!r:.80} points outside the data folder")
    if not is_file:
        raise UserError(f"{item}: there is no image {name!r:.80} in the folder '{folder.name}'")
    return image
