"""Reads examples and images from disk, and says in one line what is wrong with them."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from rftkit.common.errors import UserError
from rftkit.tasks.example import Example, ImageRef

MAX_PIXELS = 40_000_000
MAX_SIDE = 20_000
MAX_ASPECT = 200  # the image processor of Qwen2-VL refuses longer ones
ALLOWED = (
    f"at most {MAX_PIXELS // 10**6} megapixels, {MAX_SIDE} pixels a side and an aspect ratio of {MAX_ASPECT} are read: "
    "scale it down or crop it"
)
CONTROL_TOKEN = re.compile(r"<\|\w+\|>")  # chat templates and image places are written with these


def open_image(image: ImageRef, max_pixels: int | None = None, item: str = "") -> Image.Image:
    """An image in RGB, scaled down to `max_pixels` if it has more; UserError naming `item` if it cannot be used."""
    if isinstance(image, Path | bytes):
        with _opened(image, item) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    image = image.convert("RGB")
    if max_pixels and image.width * image.height > max_pixels:
        scale = (max_pixels / (image.width * image.height)) ** 0.5
        size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image


@contextmanager
def _opened(image: Path | bytes, item: str) -> Iterator[Image.Image]:
    """An image file of an allowed size, its pixels not yet read; whatever goes wrong is a UserError naming `item`."""
    name = image.name if isinstance(image, Path) else "stored in the row"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; the size is checked here
            with Image.open(image if isinstance(image, Path) else BytesIO(image)) as file:
                check_size(file.size, name, item)
                yield file
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{item}: there is no image '{image}'") from None
    except Image.DecompressionBombError:  # raised before the size can be looked at
        raise UserError(f"{item}: image '{name}' is far too large; {ALLOWED}") from None
    except UnidentifiedImageError:  # its text has a whole path in it, or the address of a buffer
        raise UserError(f"{item}: cannot read image '{name}': it is in no format that Pillow reads") from None
    except Exception as error:  # Pillow's readers raise all kinds of errors on broken files
        reason = str(error) or type(error).__name__
        raise UserError(f"{item}: cannot read image '{name}': {reason}") from None


def check_size(size: tuple[int, int], name: str, item: str) -> None:
    """Refuse images that would eat the memory or that the image processor refuses."""
    width, height = size
    if width * height > MAX_PIXELS or max(size) > MAX_SIDE or max(size) > MAX_ASPECT * min(size):
        raise UserError(f"{item}: image '{name}' is {width} x {height} pixels; {ALLOWED}")


def read_jsonl(path: Path) -> list[Example]:
    """Examples of a JSONL file (`read_lines`); the first line that is none is a UserError."""
    found = read_lines(path)
    for line in found:
        if isinstance(line, UserError):
            raise line
    return found


def read_lines(path: Path) -> list[Example | UserError]:
    """The lines of a JSONL file of `{image, question, answer, choices?, id?, group?}` beside its images.

    `image` is a path, or a list of paths, relative to the file and inside its folder. A line is an example, or what is
    wrong with it; UserError if the file cannot be read or has none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a byte order mark first
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from None
    # Not splitlines(): JSON texts may hold U+2028 and the like.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"'{path}' holds no examples")
    found: list[Example | UserError] = []
    for number, line in lines:
        try:
            found.append(_example(line, path, number))
        except UserError as error:
            found.append(error)
    return found


def _example(line: str, path: Path, number: int) -> Example:
    item = f"{path.name} line {number}"
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair would break the tokenizer
    except (ValueError, RecursionError) as error:
        raise UserError(f"{item}: not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{item}: not a JSON object")
    for column in ("image", "question", "answer"):
        if column not in row:
            raise UserError(f"{item}: column '{column}' is missing (needed: image, question, answer; choices if any)")
    question, answer, choices = check_texts(row["question"], row["answer"], row.get("choices"), item)
    images = read_images(row["image"], path.parent, item)
    for image in images:
        with _opened(image, item):  # reads the header only
            pass
    name = f"{path.stem}-{number}" if row.get("id") is None else str(row["id"])
    group = name if row.get("group") is None else str(row["group"])
    return Example(name, images, question, answer, choices, dataset=path.stem, split="test", group=group)


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
