"""SOPHIA's tables and figures: arms, verdicts, how rewards flow from answers back to captions, what is still seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rftkit.analysis.claims import Comparison, Interval
from rftkit.analysis.offpolicy import SOPHIA, ArmRow, arm_rows
from rftkit.report.arms import ArmsPage, decided_table
from rftkit.report.figures import BLUE, GREY, ORANGE, interval, name_rows, panels
from rftkit.report.tables import counted, percent, shares, table_of
from rftkit.sophia.examine import AFTER, BEFORE
from rftkit.tasks.example import Example
from rftkit.tasks.images import open_image

LEGEND = """Accuracy in per cent, each arm in its own mode: SFT on answers does not think, all others do. *unsure*:
answers that give none, or say that they cannot tell. *invented*: thoughts that take a number or name that is not on
the picture. *right numbers*: thoughts that take exactly the true ones. *wrong steps*: of all steps, those with a
wrong result. *captions whole*: greedy captions of 100 test pictures that are true word for word, before training
and after. *blank pictures*: answers to grey ones that are unsure, and that are right. *kept*: rows that were learnt
from, and how many of them were reasoned on a caption true word for word. The reasoner is an exact rule that reads
the caption's words, and slips now and then. The profile `nano/thinks` is the control: its start model can think
before training."""


def arms_table(rows: Sequence[ArmRow]) -> pd.DataFrame:
    """A profile, set and arm a row; nothing stands where nothing was measured."""

    def accuracy(row: ArmRow) -> dict[str, Interval]:
        (by_part,) = row.accuracy.values()
        return by_part

    def parts(row: ArmRow) -> str:
        return shares([cell[0] for part, cell in accuracy(row).items() if part not in ("mean", "h")])

    def share(name: str) -> Callable[[ArmRow], str]:
        return lambda row: percent(row.thoughts.get(name))

    columns: dict[str, Callable[[ArmRow], str]] = {
        "profile": lambda row: row.profile,
        "set": lambda row: row.dataset,
        "arm": lambda row: row.title,
        "seeds": lambda row: counted(row.runs),
        "parts right, %": parts,
        "mean, %": lambda row: percent(list(accuracy(row).values())[-1]),
        "unsure, %": lambda row: percent(row.unsure),
        "invented, %": share("with_invented"),
        "right numbers, %": share("right_numbers"),
        "wrong steps, %": share("wrong_steps"),
        "captions whole, %": lambda row: shares([cell[0] for cell in row.whole.values()]),
        "blank pictures: unsure, right, %": lambda row: shares(row.blank.values()),
        "kept": lambda row: "" if row.kept is None else f"{row.kept:.0f}",
        "of whole captions, %": lambda row: percent(row.kept_whole),
        "s": lambda row: f"{row.seconds:.0f}",
    }
    return table_of(rows, columns)


def verdicts_table(rows: list[Comparison]) -> pd.DataFrame:
    """The rows of `analysis.arms.verdict_rows`."""
    return decided_table(rows, {"profile": lambda row: row.profile, "set": lambda row: row.place})


def places(rows: Sequence[ArmRow]) -> list[str]:
    """What each row is called where arms of several sets or profiles stand together."""
    several = len({(row.profile, row.dataset) for row in rows}) > 1
    return [f"{row.title} ({row.profile}, {row.dataset})" if several else row.title for row in rows]


def arms_figure(rows: Sequence[ArmRow]) -> Figure:
    """Mean accuracy of each arm with its 95 % interval."""
    figure, (axes,) = panels(1, (8, 0.3 * len(rows) + 1.2), "test items right, mean of the parts, %", grid="x")
    for place, row in enumerate(rows):
        (by_part,) = row.accuracy.values()
        interval(axes, place, list(by_part.values())[-1], marker="o", color=ORANGE if row.arm == "sophia" else BLUE)
    name_rows(axes, places(rows))
    axes.set_xlim(left=0)
    return figure


def hallucination_figure(rows: Sequence[ArmRow]) -> Figure:
    """What is seen and what is made up: captions whole before and after, and thoughts that assert what is not there."""
    figure, (left, right) = panels(2, (10, 0.3 * len(rows) + 1.4), grid="x", sharey=True)
    for place, row in enumerate(rows):
        for when, colour, marker, beside in ((BEFORE, GREY, "s", -0.15), (AFTER, BLUE, "o", 0.15)):
            if when in row.whole:
                label = f"{when} training" if place == 0 else "_"
                interval(left, place + beside, row.whole[when], marker=marker, color=colour, label=label)
        if row.with_invented:
            interval(right, place, row.with_invented, marker="o", color=BLUE)
    name_rows(left, places(rows))
    left.set_xlabel("captions whole, %")
    right.set_xlabel("thoughts with something invented, after training, %")
    figure.legend(fontsize=8, loc="outside upper right", ncols=2)
    return figure


def flow_figure(example: Example, captions: Sequence[str], rewards: pd.DataFrame, kept: pd.DataFrame) -> Figure:
    """How rewards flow back: a picture, its captions, R(y) of each caption's reasonings, R(c), and what is kept.

    Args:
        captions: of the picture, in the order of `k`.
        rewards: of this picture's reasonings: k, n, right and r_caption (`selection.caption_rewards`).
        kept: the selected rows of them.
    """
    grid = rewards.pivot(index="k", columns="n", values="right").to_numpy(float)
    earned = rewards.groupby("k")["r_caption"].first()
    size = (11, max(3.2, 0.42 * len(captions) + 1.2))
    figure, (left, right) = plt.subplots(1, 2, figsize=size, width_ratios=(1, 3), layout="constrained")
    plt.close(figure)
    left.imshow(open_image(example.images[0]))
    left.axis("off")
    left.set_title(fill(example.question, 32), fontsize=9)
    right.imshow(grid, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    for (k, n), value in np.ndenumerate(grid):
        right.text(n, k, f"{value:.0f}", ha="center", va="center", fontsize=8)
    for row in kept.itertuples():
        right.add_patch(plt.Rectangle((row.n - 0.5, row.k - 0.5), 1, 1, fill=False, ec=ORANGE, lw=3))
    right.set_yticks(range(len(captions)), [fill(text, 34) for text in captions], fontsize=8, family="monospace")
    right.set_xticks(range(grid.shape[1]))
    right.set_xlabel("R(y) of each reasoning; in the frame the one that is learnt")
    means = right.secondary_yaxis("right")
    means.set_yticks(range(len(captions)), [f"R(c) = {earned[k]:.2f}" for k in range(len(captions))], fontsize=8)
    return figure


PAGE = ArmsPage(
    "sophia", SOPHIA, "SOPHIA: reasoning learnt from what the model itself saw", LEGEND, arm_rows, arms_table,
    verdicts_table,
    {"accuracy by arm": lambda runs, rows: arms_figure(rows),
     "seen and invented": lambda runs, rows: hallucination_figure(rows)},
)  # fmt: skip
