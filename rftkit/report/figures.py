"""Figures. Each function takes plain rows and returns a matplotlib figure."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rftkit.analysis.controls import front
from rftkit.runs.folder import CURVE, METRICS
from rftkit.tasks.example import Example

COLOURS = {"base": "#2f6db3", "new": "#d9822b", "all": "#2f6db3", "h": "#777777"}


def accuracy_figure(rows: list[dict[str, Any]]) -> Figure:
    """Accuracy of each method on each split with intervals, by the rule of training; by a second rule: hollow marks."""
    rules = list(rows[0]["accuracy"])
    splits = [split for split in rows[0]["accuracy"][rules[0]] if split not in ("h", "mean")]
    colours = {split: COLOURS.get(split, f"C{place}") for place, split in enumerate(splits)}
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(rows) + 1.4))
    for place, split in enumerate(splits):
        for index, row in enumerate(rows):
            y = index + 0.22 * (place - (len(splits) - 1) / 2)
            mean, low, high = (100 * v for v in row["accuracy"][rules[0]][split])
            axes.errorbar(mean, y, xerr=[[max(0, mean - low)], [max(0, high - mean)]], fmt="o", color=colours[split],
                          capsize=3, label=f"{split}, {rules[0]}" if index == 0 else None)  # fmt: skip
            for rule in rules[1:]:
                axes.plot(100 * row["accuracy"][rule][split][0], y, "o", mfc="none", color=colours[split],
                          label=f"{split}, {rule}" if index == 0 else None)  # fmt: skip
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)
    return figure


def claims_figure(rows: list[dict[str, Any]]) -> Figure:
    """The differences of decided claims (`rftkit.analysis.claims`) with their intervals, in points of per cent."""
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.2))
    for place, row in enumerate(rows):
        mean, low, high = (100 * value for value in row["difference"])
        colour = "#888888" if row["verdict"] in ("undecided", "too few seeds") else "#2f6db3" if mean > 0 else "#c0392b"
        axes.errorbar(mean, place, xerr=[[max(0, mean - low)], [max(0, high - mean)]], fmt="o", capsize=3, color=colour)
        axes.annotate(row["verdict"], (high, place), (6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(rows)), [f"{row['claim']} ({row['measure']})" for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("difference here, points")
    axes.grid(axis="x", alpha=0.3)
    plt.close(figure)
    return figure


def dose_figure(rows: list[dict[str, Any]]) -> Figure:
    """Differences in points of per cent against `vague` (`analysis.claims.dose_rows`), a line a claim and `models`."""
    figure, axes = plt.subplots(figsize=(8, 4))
    lines = pd.DataFrame(rows).groupby(["models", "claim", "measure"], sort=False)
    for place, ((models, claim, measure), part) in enumerate(lines):
        mean, low, high = 100 * np.array(part["difference"].tolist()).T
        beside = part["vague"] + 0.008 * (place - len(lines) / 2)  # no interval hides another
        axes.errorbar(beside, mean, yerr=np.maximum(0, [mean - low, high - mean]), fmt="o-", capsize=3,
                      label=f"{models}: {claim} ({measure})")  # fmt: skip
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xlabel="share of answers not as asked in pre-training", ylabel="difference, points")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)
    return figure


def training_figure(
    tables: dict[str, pd.DataFrame | list[dict]], columns: Sequence[str] = ("reward", "loss")
) -> Figure:
    """Curves of a run's `metrics.csv` columns against steps, a line a run: those that any run has, or the loss."""
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    shown = [column for column in columns if any(column in frame for frame in frames.values())] or ["loss"]
    figure, axes = plt.subplots(1, len(shown), figsize=(4.2 * len(shown), 3), squeeze=False)
    for axis, column in zip(axes[0], shown, strict=True):
        for name, frame in frames.items():
            if column in frame:
                axis.plot(frame["step"], frame[column], alpha=0.25, color="#2f6db3")
                smooth = frame[column].rolling(8, min_periods=1).mean()
                axis.plot(frame["step"], smooth, label=name)
        axis.set_title(column.replace("_", " "), fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    if len(frames) > 1:
        axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    plt.close(figure)
    return figure


def curve_figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Strict accuracy on held-out items of base and new classes against steps, a panel a run."""
    figure, axes = plt.subplots(1, len(tables), figsize=(4.2 * len(tables), 3), squeeze=False, sharey=True)
    for axis, (name, table) in zip(axes[0], tables.items(), strict=True):
        for half, part in table.groupby("half"):
            axis.plot(part["step"], 100 * part["strict"], "o-", ms=3, color=COLOURS[half], label=half)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step")
        axis.set_ylim(0, 100)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("strict accuracy, %")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    plt.close(figure)
    return figure


def read_metrics(folder: Path) -> pd.DataFrame:
    """A run's `metrics.csv`."""
    return pd.read_csv(folder / METRICS)


def read_curve(folder: Path) -> pd.DataFrame:
    """A run's `curve.csv`."""
    return pd.read_csv(folder / CURVE)


def examples_figure(examples: Sequence[Example], texts: Sequence[str] | None = None, columns: int = 6) -> Figure:
    """The first image of each example with its label, and with a text below it if given (a completion, say)."""
    from rftkit.tasks.images import open_image

    rows = -(-len(examples) // columns)
    height = 1.7 if texts is None else 2.3
    figure, axes = plt.subplots(rows, columns, figsize=(1.9 * columns, height * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for index, example in enumerate(examples):
        axis = axes.flat[index]
        axis.imshow(open_image(example.images[0]))
        axis.set_title(example.answer, fontsize=9)
        if texts is not None:
            axis.text(0.5, -0.08, texts[index], transform=axis.transAxes, ha="center", va="top", fontsize=7, wrap=True)
    figure.tight_layout()
    plt.close(figure)
    return figure


def convergence_figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Accuracy reward of runs against steps and against seconds, each a mean of eight steps."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3), sharey=True)
    for name, table in tables.items():
        smooth = table["accuracy_reward"].rolling(8, min_periods=1).mean()
        axes[0].plot(table["step"], smooth, label=name)
        axes[1].plot(table["step_seconds"].cumsum(), smooth, label=name)
    for axis, label in zip(axes, ("step", "seconds of training"), strict=True):
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy reward")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    plt.close(figure)
    return figure


def budget_figure(folders: dict[str, Path]) -> Figure:
    """Strict accuracy on held-out base and new items of runs against seconds of training, evaluation not counted."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for title, folder in folders.items():
        curve, seconds = read_curve(folder), read_metrics(folder).set_index("step")["step_seconds"].cumsum()
        for axis, half in zip(axes, ("base", "new"), strict=True):
            part = curve[curve["half"] == half]
            spent = [seconds.get(step, 0.0) for step in part["step"]]
            axis.plot(spent, 100 * part["strict"], "o-", ms=3, label=title)
            axis.set_title(f"{half} classes", fontsize=10)
            axis.set_xlabel("seconds of training")
            axis.grid(alpha=0.3)
    axes[0].set_ylabel("strict accuracy, %")
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)
    return figure


def matrix_figure(tables: dict[str, pd.DataFrame], label: str) -> Figure:
    """Heat maps of tables in points of per cent, white at zero, a panel a name: rows trained on, columns tested on."""
    widest = max(len(table.columns) for table in tables.values())
    figure, axes = plt.subplots(1, len(tables), figsize=(0.62 * widest * len(tables) + 2, 0.5 * widest + 1.6))
    reach = max(float(table.abs().max().max()) for table in tables.values())
    for axis, (title, table) in zip([axes] if len(tables) == 1 else axes, tables.items(), strict=True):
        axis.imshow(table.astype(float), cmap="RdBu", vmin=-reach, vmax=reach)
        for (row, column), value in np.ndenumerate(table.to_numpy(float)):
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7)
        axis.set_xticks(range(len(table.columns)), table.columns, rotation=60, ha="right", fontsize=7)
        axis.set_yticks(range(len(table)), table.index, fontsize=7)
        axis.set_title(f"{title}, {label}", fontsize=9)
    figure.tight_layout()
    plt.close(figure)
    return figure


def lines_figure(lines: dict[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> Figure:
    """A line for each name: its x and y values."""
    figure, axes = plt.subplots(figsize=(6, 3.2))
    for name, (across, up) in lines.items():
        axes.plot(across, up, "o-", ms=3, label=name)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)
    return figure


def mask_figure(mask) -> Figure:
    """Which token (row) of a packed group may look at which (column)."""
    figure, axes = plt.subplots(figsize=(3.4, 3.4))
    axes.imshow(mask, cmap="Blues", vmin=0, vmax=1.4)
    axes.set_xlabel("looks at token")
    axes.set_ylabel("token")
    plt.close(figure)
    return figure


def bar_figure(names: Sequence[str], values: Sequence[float], label: str) -> Figure:
    """A horizontal bar for each name."""
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(names) + 0.8))
    axes.barh(range(len(names)), values, color=["#2f6db3" if value > 0 else "#d9822b" for value in values])
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    axes.set_xlabel(label)
    plt.close(figure)
    return figure


def front_figure(points: pd.DataFrame) -> Figure:
    """Points of a selection (`controls.selection_points`) by method: base against new accuracy with the front that no
    other point of the method beats, and new accuracy against forward KL from the base model."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for place, (method, part) in enumerate(points[points["step"] > 0].groupby("method", sort=False)):
        best = front(part)
        left.plot(100 * part["base"], 100 * part["new"], "o", ms=3, alpha=0.4, color=f"C{place}")
        left.plot(100 * best["base"], 100 * best["new"], "o-", ms=4, color=f"C{place}", label=method)
        right.plot(part["kl"], 100 * part["new"], "o", ms=4, alpha=0.7, color=f"C{place}")
    left.set_ylabel("new classes, strict accuracy, %")
    left.set_xlabel("base classes, strict accuracy, %")
    right.set_xlabel("forward KL from the base model, nats a completion")
    left.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    plt.close(figure)
    return figure


def bench_figure(reports: Sequence[dict[str, Any]]) -> Figure:
    """Seconds of a step in stock TRL and here, split by phase, a panel a report of `rftkit bench`."""
    figure, axes = plt.subplots(1, len(reports), figsize=(3.4 * len(reports), 3), squeeze=False)
    for axis, report in zip(axes[0], reports, strict=True):
        bottom = [0.0, 0.0]
        for phase, colour in (("sampling", "#2f6db3"), ("scoring", "#777777"), ("update", "#d9822b")):
            heights = [report[name][f"{phase}_s"] for name in ("stock", "ours")]
            axis.bar(["stock TRL", "rftkit"], heights, bottom=bottom, color=colour, label=phase, width=0.6)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        axis.set_title(f"{report['preset']}, {report['mode']}: {report['ratio']['step']['median']:.1f}x", fontsize=10)
    axes[0][0].set_ylabel("seconds a step")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    plt.close(figure)
    return figure


class LivePlot:
    """Redraws training curves in place while a notebook trains; its last frame stays as a static figure.

    Use it as `on_row` of a run. `every`: seconds between two frames, more where drawing would take a fortieth of them.
    """

    def __init__(self, columns: Sequence[str] = ("reward", "loss"), every: float = 3.0) -> None:
        self.columns, self.every, self.handle, self.next = columns, every, None, -math.inf

    def __call__(self, rows: list[dict]) -> None:
        from IPython.display import display

        if (began := time.monotonic()) < self.next:
            return
        figure = training_figure({"training": rows}, self.columns)
        if self.handle is None:
            self.handle, least = display(figure, display_id=True), 0  # it takes longer than those after it
        else:
            self.handle.update(figure)
            least = 40 * (time.monotonic() - began)  # most of it for the picture of the figure, which `update` makes
        self.next = began + max(self.every, least)
