"""What a row of a table holds, checked: texts that may reach a model, and images."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from string import ascii_uppercase
from typing import Any
from unicodedata import normalize

from rftkit.common.errors import UserError
from rftkit.tasks.example import PLACE, Example, ImageRef
from rftkit.tasks.images import pixels_of

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
            number = isinstance(text, int | float) and f'; write "{text}", not {text}'
            how = "; it is null: give it, or leave the row out" if text is None else number or ""
            raise UserError(f"{item}: '{column}' must be a text that is not empty{how}")
    if choices is not None and not (isinstance(choices, list) and all(isinstance(c, str) for c in choices)):
        raise UserError(f"{item}: 'choices' must be a list of texts")
    question, answer = normalize("NFC", question), normalize("NFC", answer)
    # Tables pad short lists with empty texts, and write an empty list where there is nothing to choose.
    choices = [normalize("NFC", choice) for choice in choices or () if choice.strip()] or None
    if choices is not None:
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


Texts = tuple[Any, Any, list[Any] | None]  # question, answer and choices as a row has them, not checked yet


def example_of(
    row: Row, texts: Texts, pictures: Any, folder: Path | None, item: str, task: str, **where: Any
) -> Example:
    """The example that a row is; UserError naming `item` if it cannot be asked. No picture is opened.

    Args:
        texts: of the row, which also has `unit` and `precision` if it states them.
        pictures: what it has for them (`read_images`).
        folder: that they are in; None: there is none.
        where: further fields of the example.
    """
    question, answer, choices = check_texts(*texts, item, task)
    question, unit, precision = asked_in(row, question, choices, item)
    question, images = placed(question, read_images(pictures, folder, item))
    return Example(
        images=images,
        question=question,
        answer=answer,
        choices=choices,
        task=task,
        unit=unit,
        precision=precision,
        **where,
    )


def with_headers(row: Example | UserError, item: str) -> Example | UserError:
    """A row, or what the headers of its pictures say is wrong with them."""
    try:
        for image in row.images if isinstance(row, Example) else ():
            pixels_of(image, item=item)
    except UserError as error:
        return error
    return row


def repeated(examples: Iterable[Example]) -> list[str]:
    """A line for each id that several examples have: answers could not be told apart by it."""
    times = Counter(example.id for example in examples)
    return [f"{name} names {count} items: ids must differ" for name, count in times.items() if count > 1]


# A place holder of a picture, as benchmarks write it: <image>, <image1>, <image 1>, <img_1>, <|image_1|>.
MARK = re.compile(r"<\|?(?:image|img|picture)[ _-]?(\d*)\|?>", re.IGNORECASE)
MARKS = re.compile(rf"(?:\s*{MARK.pattern})+(\s*)([,.;:?!)]?)", re.IGNORECASE)


def placed(question: str, images: tuple[ImageRef, ...]) -> tuple[str, tuple[ImageRef, ...]]:
    """A question with `PLACE` for each place holder, and the pictures in that order (see `Example`).

    A single picture stands before the text, so that its place holders are left out; so are those that do not fit the
    number of pictures. Where a picture is named again its number stays.
    """
    marks = MARK.findall(question)
    order = list(dict.fromkeys(int(mark) - 1 for mark in marks)) if all(marks) else []
    fits = all(0 <= place < len(images) for place in order) if all(marks) else len(marks) <= len(images)
    if len(images) < 2 or not fits or (any(marks) and not all(marks)):
        return MARKS.sub(_left_out, question).strip(), images
    rest = [image for place, image in enumerate(images) if place not in order] if order else images
    seen = set()

    def place(mark: re.Match) -> str:
        again = mark[1] in seen
        seen.update([mark[1]] if mark[1] else [])
        return f"image {mark[1]}" if again else PLACE

    return MARK.sub(place, question), (*rest, *(images[number] for number in order))


def _left_out(marks: re.Match) -> str:
    """What stands for place holders that are left out: as much space as was around them, none before a comma."""
    return marks[3] or ("\n" if "\n" in marks[0] else " ")


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
        image = file_within(folder, name, item)
    except (OSError, ValueError):  # a name too long, with a null character
        raise UserError(f"{item}: {name!r:.80} is not the name of a file") from None
    if image is None:
        raise UserError(f"{item}: there is no image {name!r:.80} in the folder '{folder.name}'")
    return image


def file_within(folder: Path, name: str, item: str) -> Path | None:
    """The picture of this name in a folder, or None; UserError naming `item` if it lies outside.

    By its name alone: links are followed, wherever they lead, as people link folders of pictures. OSError or ValueError
    if no file can be called so.
    """
    within = os.path.normpath(name)
    if os.path.isabs(within) or within.split(os.sep)[0] == "..":
        raise UserError(f"{item}: image {name!r:.80} points outside the data folder")
    path = in_either_form(folder, within)
    return path if path.is_file() else None


def in_either_form(folder: Path, name: str) -> Path:
    """The file of this name, in whichever Unicode forms the disk has its parts: macOS writes `é` as two characters."""
    if (folder / name).is_file():
        return folder / name
    for part in Path(name).parts:
        forms = [folder / part, *(folder / normalize(form, part) for form in ("NFC", "NFD"))]
        folder = next((path for path in forms if path.exists()), forms[0])
    return folder


def same_answers(texts: Iterable[str]) -> str:
    """Two texts that every rule takes for the same answer, in words; nothing if all can be told apart."""
    seen: dict[str, str] = {}
    for text in texts:
        plain = " ".join(normalize("NFC", text).casefold().split())
        if plain in seen:
            return f"'{seen[plain]:.60}' and '{text:.60}'"
        seen[plain] = text
    return ""
