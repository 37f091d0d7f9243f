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
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rftkit.analysis.claims import Comparison
from rftkit.analysis.controls import front
from rftkit.analysis.methods import MethodRow
from rftkit.runs.folder import CURVE, METRICS
from rftkit.tasks.example import Example

BLUE, ORANGE, GREY, RED = "#2f6db3", "#d9822b", "#888888", "#c0392b"
BESIDE = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # of a legend
COLOURS = {"base": BLUE, "new": ORANGE, "all": BLUE}


def _panels(count: int, size: tuple[float, float], x: str = "", y: str = "", grid: str | None = "both", **options: Any):
    """A figure that no notebook shows by itself, and its axes side by side, with labels and a grid."""
    figure, axes = plt.subplots(1, count, figsize=size, squeeze=False, **options)
    plt.setp(axes, xlabel=x)
    axes[0][0].set_ylabel(y)
    for one in axes[0] if grid else ():
        one.grid(axis=grid, alpha=0.3)
    plt.close(figure)
    return figure, list(axes[0])


def _interval(axes: Axes, y: float, cell: Sequence[float], **options: Any) -> None:
    """A mean and its interval, -1..1, in per cent."""
    mean, low, high = (100 * value for value in cell)
    axes.errorbar(mean, y, xerr=[[max(0, mean - low)], [max(0, high - mean)]], fmt="o", capsize=3, **options)


def _smooth(values: pd.Series) -> pd.Series:
    return values.rolling(8, min_periods=1).mean()


def accuracy_figure(rows: list[MethodRow]) -> Figure:
    """Accuracy of each method on each part with intervals, by the rule of training; by a second rule: hollow marks."""
    rule, *others = rows[0].accuracy
    parts = [part for part in rows[0].accuracy[rule] if part not in ("h", "mean")]
    figure, (axes,) = _panels(1, (8, 0.55 * len(rows) + 1.4), "accuracy, %", grid="x")
    for place, part in enumerate(parts):
        colour = COLOURS.get(part, f"C{place}")
        for index, row in enumerate(rows):
            y = index + 0.22 * (place - (len(parts) - 1) / 2)
            label = part if index == 0 else "_"  # what begins so is in no legend
            _interval(axes, y, row.accuracy[rule][part], color=colour, label=f"{label}, {rule}")
            for other in others:
                mean = 100 * row.accuracy[other][part][0]
                axes.plot(mean, y, "o", mfc="none", color=colour, label=f"{label}, {other}")
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.legend(fontsize=8, **BESIDE)
    return figure


def claims_figure(rows: list[Comparison]) -> Figure:
    """The differences of comparisons with their intervals, in points of per cent."""
    figure, (axes,) = _panels(1, (8, 0.5 * len(rows) + 1.2), "difference here, points", grid="x")
    for place, row in enumerate(rows):
        decided = BLUE if row.difference[0] > 0 else RED
        _interval(axes, place, row.difference, color=GREY if row.verdict in ("undecided", "too few seeds") else decided)
        high = 100 * row.difference[2], place
        axes.annotate(row.verdict, high, (6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(rows)), [f"{row.place or row.claim} ({row.measure})" for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.2)
    return figure


def dose_figure(rows: list[Comparison]) -> Figure:
    """Differences in points of per cent against `vague` (`analysis.claims.dose_rows`), a line a claim."""
    figure, (axes,) = _panels(1, (8, 4), "share of answers not as asked in pre-training", "difference, points")
    lines: dict[str, list[Comparison]] = {}
    for row in rows:
        lines.setdefault(f"{row.place}: {row.claim} ({row.measure})", []).append(row)
    for place, (label, line) in enumerate(lines.items()):
        mean, low, high = 100 * np.array([row.difference for row in line]).T
        beside = [row.vague + 0.008 * (place - len(lines) / 2) for row in line]  # no interval hides another
        axes.errorbar(beside, mean, yerr=np.maximum(0, [mean - low, high - mean]), fmt="o-", capsize=3, label=label)
    axes.axhline(0, color="black", lw=0.8)
    axes.legend(fontsize=7, **BESIDE)
    return figure


def training_figure(tables: dict[str, pd.DataFrame], columns: Sequence[str] = ("reward", "loss")) -> Figure:
    """Curves of a run's `metrics.csv` columns against steps, a line a run: those that any run has, or the loss."""
    shown = [column for column in columns if any(column in table for table in tables.values())] or ["loss"]
    figure, panels = _panels(len(shown), (4.2 * len(shown), 3), "step", layout="tight")
    for axes, column in zip(panels, shown, strict=True):
        for name, table in tables.items():
            if column in table:
                axes.plot(table["step"], table[column], alpha=0.25, color=BLUE)
                axes.plot(table["step"], _smooth(table[column]), label=name)
        axes.set_title(column.replace("_", " "), fontsize=10)
    if len(tables) > 1:
        panels[0].legend(fontsize=8)
    return figure


def _lines(panels: dict[str, dict[str, pd.Series]], x: str, y: str, form: str = "o-") -> Figure:
    """Lines against their index, a panel a title."""
    figure, axes = _panels(len(panels), (max(6, 4.2 * len(panels)), 3), x, y, sharey=True)
    for panel, (title, lines) in zip(axes, panels.items(), strict=True):
        for name, line in lines.items():
            panel.plot(line, form, ms=3, color=COLOURS.get(name), label=name)
        panel.set_title(title, fontsize=10)
    axes[-1].legend(fontsize=8, **BESIDE)
    return figure


def curve_figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Strict accuracy on held-out items of base and new classes against steps, a panel a run."""
    panels = {name: _by_half(table.set_index("step")) for name, table in tables.items()}
    figure = _lines(panels, "step", "strict accuracy, %")
    plt.setp(figure.axes, ylim=(0, 100))
    return figure


def _by_half(curve: pd.DataFrame) -> dict[str, pd.Series]:
    """Strict accuracy in per cent of base and new classes."""
    return {half: 100 * part["strict"] for half, part in curve.groupby("half")}


def read_metrics(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / METRICS)


def read_curve(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / CURVE)


def examples_figure(examples: Sequence[Example], texts: Sequence[str] | None = None, columns: int = 6) -> Figure:
    """The first image of each example with its label, and with a text below it if given (a completion, say)."""
    from rftkit.tasks.images import open_image

    rows = -(-len(examples) // columns)
    height = 1.7 if texts is None else 2.3
    figure, panels = plt.subplots(rows, columns, figsize=(1.9 * columns, height * rows), squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, example, text in zip(panels.flat, examples, texts or [""] * len(examples), strict=False):
        axes.imshow(open_image(example.images[0]))
        axes.set_title(example.answer, fontsize=9)
        axes.text(0.5, -0.08, text, transform=axes.transAxes, ha="center", va="top", fontsize=7, wrap=True)
    figure.tight_layout()
    plt.close(figure)
    return figure


def convergence_figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Accuracy reward of runs against steps and against seconds, each a mean of eight steps."""
    by_step, by_time = {}, {}
    for name, table in tables.items():
        by_step[name] = _smooth(table.set_index("step")["accuracy_reward"])
        by_time[name] = _smooth(table.set_index(table["step_seconds"].cumsum())["accuracy_reward"])
    panels = {"by step": by_step, "by seconds of training": by_time}
    return _lines(panels, "", "accuracy reward", form="-")


def budget_figure(folders: dict[str, Path]) -> Figure:
    """Strict accuracy on held-out base and new items of runs against seconds of training, evaluation not counted."""
    base, new = {}, {}
    for title, folder in folders.items():
        curve, seconds = read_curve(folder), read_metrics(folder).set_index("step")["step_seconds"].cumsum()
        spent = curve["step"].map(seconds).fillna(0.0)  # nothing before the first step
        halves = _by_half(curve.set_index(spent))
        base[title], new[title] = halves["base"], halves["new"]
    panels = {"base classes": base, "new classes": new}
    return _lines(panels, "seconds of training", "strict accuracy, %")


def matrix_figure(tables: dict[str, pd.DataFrame], label: str) -> Figure:
    """Heat maps of tables in points of per cent, white at zero, a panel a name: rows trained on, columns tested on."""
    widest = max(len(table.columns) for table in tables.values())
    size = 0.62 * widest * len(tables) + 2, 0.5 * widest + 1.6
    figure, panels = _panels(len(tables), size, grid=None, layout="tight")
    reach = max(float(table.abs().max().max()) for table in tables.values())
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        axes.imshow(table.astype(float), cmap="RdBu", vmin=-reach, vmax=reach)
        for (row, column), value in np.ndenumerate(table.to_numpy(float)):
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7)
        axes.set_xticks(range(len(table.columns)), table.columns, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(table)), table.index, fontsize=7)
        axes.set_title(f"{title}, {label}", fontsize=9)
    return figure


def lines_figure(lines: pd.DataFrame, x: str, y: str) -> Figure:
    """A line for each column, against the index."""
    return _lines({"": {name: line.dropna() for name, line in lines.items()}}, x, y)


def mask_figure(mask) -> Figure:
    """Which token (row) of a packed group may look at which (column)."""
    figure, (axes,) = _panels(1, (3.4, 3.4), "looks at token", "token", grid=None)
    axes.imshow(mask, cmap="Blues", vmin=0, vmax=1.4)
    return figure


def bar_figure(names: Sequence[str], values: Sequence[float], label: str) -> Figure:
    """A horizontal bar for each name."""
    figure, (axes,) = _panels(1, (8, 0.4 * len(names) + 0.8), label, grid=None)
    axes.barh(range(len(names)), values, color=[BLUE if value > 0 else ORANGE for value in values])
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    return figure


def front_figure(points: pd.DataFrame) -> Figure:
    """Points of a selection (`controls.selection_points`) by method: base against new accuracy with the front that no
    other point of the method beats, and new accuracy against forward KL from the base model."""
    x, y = "base classes, strict accuracy, %", "new classes, strict accuracy, %"
    figure, (left, right) = _panels(2, (9, 3.6), x, y, sharey=True, layout="tight")
    for place, (method, part) in enumerate(points[points["step"] > 0].groupby("method", sort=False)):
        best, colour = front(part), f"C{place}"
        left.plot(100 * part["base"], 100 * part["new"], "o", ms=3, alpha=0.4, color=colour)
        left.plot(100 * best["base"], 100 * best["new"], "o-", ms=4, color=colour, label=method)
        right.plot(part["kl"], 100 * part["new"], "o", ms=4, alpha=0.7, color=colour)
    right.set_xlabel("forward KL from the base model, nats a completion")
    left.legend(fontsize=8)
    return figure


def bench_figure(reports: Sequence[dict[str, Any]]) -> Figure:
    """Seconds of a step in stock TRL and here, split by phase, a panel a report of `rftkit bench`."""
    figure, panels = _panels(len(reports), (3.4 * len(reports), 3), y="seconds a step", grid=None, layout="tight")
    for axes, report in zip(panels, reports, strict=True):
        bottom = np.zeros(2)
        for phase, colour in (("sampling", BLUE), ("scoring", GREY), ("update", ORANGE)):
            heights = np.array([report[name][f"{phase}_s"] for name in ("stock", "ours")])
            axes.bar(["stock TRL", "rftkit"], heights, bottom=bottom, color=colour, label=phase, width=0.6)
            bottom += heights
        axes.set_title(f"{report['preset']}, {report['mode']}: {report['ratio']['step']['median']:.1f}x", fontsize=10)
    panels[0].legend(fontsize=8)
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
        figure = training_figure({"training": pd.DataFrame(rows)}, self.columns)
        if self.handle is None:
            self.handle, least = display(figure, display_id=True), 0  # it takes longer than those after it
        else:
            self.handle.update(figure)
            least = 40 * (time.monotonic() - began)  # most of it for the picture of the figure, which `update` makes
        self.next = began + max(self.every, least)
