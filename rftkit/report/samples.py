"""Pictures with what is said of them. Texts a model writes are shown whole, with what cannot be seen made visible."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rftkit.tasks.example import Example
from rftkit.tasks.images import open_image

WIDTH, POINTS = 30, 7  # characters of a line below a picture, and their size
MOST_LINES = 24  # of a text; longer ones are cut
LINE = 1.25 * POINTS / 72  # inches
PICTURE, TITLE, CELL = 1.4, 0.3, 1.9  # inches: a picture's side, the line above it, the width of both


def visible(text: str) -> str:
    """A text on one line: newlines as ↵, tabs as ⇥, spaces at its ends as ␣, an empty one as ∅."""
    inner = text.replace("\n", "↵").replace("\t", "⇥")
    begin, end = len(inner) - len(inner.lstrip(" ")), len(inner) - len(inner.rstrip(" "))
    if begin == len(inner):
        return "␣" * begin or "∅"
    return "␣" * begin + inner.strip(" ") + "␣" * end


def _lines(texts: Sequence[str]) -> list[str]:
    """Paragraphs, each wrapped, and cut if it is very long."""
    lines = []
    for text in texts:
        own = wrap(visible(text), WIDTH, break_on_hyphens=False)
        lines += own[:MOST_LINES] + ["..."] * (len(own) > MOST_LINES)
    return lines


def examples_figure(
    examples: Sequence[Example], texts: Sequence[str | Sequence[str]] | None = None, columns: int = 6
) -> Figure:
    """The first image of each example below its label, and above a text if given: a completion, or several.

    A row is as high as its longest text.
    """
    given = [()] * len(examples) if texts is None else texts
    below = [_lines([text] if isinstance(text, str) else text) for text in given]
    starts = range(0, len(examples), columns)
    heights = [TITLE + PICTURE + LINE * (1 + max(map(len, below[start : start + columns]))) for start in starts]
    size = CELL * columns, sum(heights)
    figure, top = plt.figure(figsize=size), sum(heights)
    for place, (example, lines) in enumerate(zip(examples, below, strict=True)):
        row, column = divmod(place, columns)
        under = top - sum(heights[:row]) - TITLE - PICTURE  # inches from the bottom of the figure
        left = CELL * column + 0.05
        box = left / size[0], under / size[1], PICTURE / size[0], PICTURE / size[1]
        axes = figure.add_axes(box)
        axes.imshow(open_image(example.images[0]))
        axes.axis("off")
        axes.set_title("\n".join(wrap(example.answer, 24)[:1]), fontsize=9, loc="left", pad=4)
        where = left / size[0], (under - 0.05) / size[1]
        figure.text(*where, "\n".join(lines), va="top", fontsize=POINTS, family="monospace", linespacing=1.2)
    plt.close(figure)
    return figure
