"""Opens images, and says in one line what is wrong with them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from rftkit.common.errors import UserError
from rftkit.tasks.example import Example, ImageRef

MAX_PIXELS = 40_000_000
MAX_SIDE = 20_000
MAX_ASPECT = 200  # the image processor of Qwen2-VL refuses longer ones
ALLOWED = (
    f"at most {MAX_PIXELS // 10**6} megapixels, {MAX_SIDE} pixels a side and an aspect ratio of {MAX_ASPECT} are read: "
    "scale it down or crop it"
)
WHITES = (1.0, 255.0, 65535.0)  # the usual values of white in pictures of more than 8 bits


def open_image(image: ImageRef, item: str = "") -> Image.Image:
    """An image in RGB, in its own size; UserError naming `item` if it cannot be used.

    What is transparent becomes white. Of an animation it is the first picture.
    """
    if isinstance(image, Path | bytes):
        with opened(image, item) as file:
            image = as_rgb(ImageOps.exif_transpose(file))
    return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in RGB: transparent parts on white, more than 8 bits a value scaled to 8."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Values [H, W] as bytes. White is 65,535 in 16 bits; in 32 bits the smallest usual one that holds all values."""
    values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    low, high = min(0.0, values.min()), values.max()
    if mode.startswith("I;16"):
        high = WHITES[-1]
    elif low == 0:
        high = next((white for white in WHITES[mode != "F" :] if high <= white), high)
    return ((values - low) * (255 / ((high - low) or 1))).round().astype(np.uint8)


@contextmanager
def opened(image: Path | bytes, item: str) -> Iterator[Image.Image]:
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


def with_blanks(examples: Iterable[Example]) -> list[Example]:
    """The examples with a blank picture of its size in place of each of theirs."""
    return [replace(e, images=tuple(_blank(open_image(image, e.id).size) for image in e.images)) for e in examples]


@lru_cache
def _blank(size: tuple[int, int]) -> bytes:
    """A PNG of one grey. As a file, since many pictures of a camera's size would fill the memory."""
    file = BytesIO()
    Image.new("L", size, 128).save(file, "PNG")
    return file.getvalue()


def pixels_of(image: ImageRef, item: str = "") -> int:
    """How many pixels `open_image` would give, from the header alone; UserError as there."""
    if isinstance(image, Path | bytes):
        with opened(image, item) as file:
            width, height = file.size
    else:
        width, height = image.size
    return width * height


def check_pictures(examples: Iterable[Example], whole: bool) -> None:
    """UserError on the first picture that cannot be read: its header, or all of it (`whole`). Nothing is kept."""
    read = open_image if whole else pixels_of
    for example in tqdm(examples, desc="check pictures", leave=False, delay=2):
        for image in example.images:
            if isinstance(image, Path | bytes):
                read(image, item=example.id)


def check_size(size: tuple[int, int], name: str, item: str) -> None:
    """Refuse images that would eat the memory or that the image processor refuses."""
    width, height = size
    if width * height > MAX_PIXELS or max(size) > MAX_SIDE or max(size) > MAX_ASPECT * min(size):
        raise UserError(f"{item}: image '{name}' is {width} x {height} pixels; {ALLOWED}")
