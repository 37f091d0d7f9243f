"""Tasks: what is asked and how an answer is judged. One module a task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ImageRef = Image.Image | Path | bytes  # a drawn image, or a file or its content, opened when it is needed


@dataclass(frozen=True)
class Example:
    """One item. Only `images`, `question` and `choices` ever reach the model."""

    id: str
    images: tuple[ImageRef, ...]
    question: str
    answer: str
    choices: tuple[str, ...] | None = None
    task: str = "classification"
    dataset: str = ""
    split: str = ""
    group: str = ""  # what intervals are clustered by, such as the drawing an image was made from
    steps: tuple[str, ...] = ()  # true statements that lead to the answer, where they are known
