"""The training loop as one picture."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from rftkit.report.figures import BLUE, GREY

BOXES = {  # text: place of its middle, in figure units
    "picture and question\nin a mode's words": (1.2, 2.6),
    "policy\n(model with LoRA)": (4.1, 2.6),
    "a group of G\nsampled completions": (7.0, 2.6),
    "reward of each:\nformat, right answer": (9.9, 2.6),
    "advantage: how far above\nthe group's mean": (9.9, 0.7),
    "loss: make better\ncompletions likelier": (7.0, 0.7),
    "gradient step\non the LoRA weights": (4.1, 0.7),
}
WIDTH, HEIGHT = 2.3, 1.0


def loop_figure() -> Figure:
    """GRPO in seven boxes: from a picture and a question to a step of the weights, and again."""
    figure = Figure(figsize=(11.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.1, 11.2), ylim=(0, 3.3), aspect="equal")
    axes.axis("off")
    for text, (x, y) in BOXES.items():
        corner = (x - WIDTH / 2, y - HEIGHT / 2)
        box = FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle="round,pad=0.02,rounding_size=0.12", fc="white", ec=BLUE)
        axes.add_patch(box)
        axes.text(x, y, text, ha="center", va="center", fontsize=10)
    places = list(BOXES.values())
    for start, end in zip(places, [*places[1:], places[1]], strict=True):
        axes.add_patch(_arrow(start, end))
    axes.text(3.95, 1.65, "again, with the next questions", ha="right", va="center", fontsize=9, color=GREY)
    return figure


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> FancyArrowPatch:
    """From the edge of one box to the edge of another, along a row or a column."""
    along, up = (end[0] > start[0]) - (end[0] < start[0]), (end[1] > start[1]) - (end[1] < start[1])
    edges = [(x + sign * along * WIDTH / 2, y + sign * up * HEIGHT / 2) for (x, y), sign in ((start, 1), (end, -1))]
    return FancyArrowPatch(*edges, arrowstyle="-|>", mutation_scale=14, color=GREY, shrinkA=3, shrinkB=3)
