"""Figures. Each function takes plain rows and returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rftkit.analysis.claims import NAMES, Comparison
from rftkit.analysis.controls import front
from rftkit.analysis.methods import MethodRow
from rftkit.report.samples import visible
from rftkit.settings import METHODS

BLUE, ORANGE, GREY, RED = "#2f6db3", "#d9822b", "#888888", "#c0392b"
COLOURS = {"base": BLUE, "new": ORANGE, "all": BLUE}
MARKERS = {"base": "o", "new": "s", "all": "o"}  # so that they differ without colours too
OTHER_MARKERS = "o^Ds"  # of other parts


def panels(count: int, size: tuple[float, float], x: str = "", y: str = "", grid: str | None = "both", **options: Any):
    """A figure that no notebook shows by itself, and its axes side by side, with labels and a grid."""
    figure, axes = plt.subplots(1, count, figsize=size, squeeze=False, layout="constrained", **options)
    plt.setp(axes, xlabel=x)
    axes[0][0].set_ylabel(y)
    for one in axes[0] if grid else ():
        one.grid(axis=grid, alpha=0.3)
    plt.close(figure)
    return figure, list(axes[0])


def interval(axes: Axes, y: float, cell: Sequence[float], **options: Any) -> None:
    """A mean and its interval, -1..1, in per cent."""
    mean, low, high = (100 * value for value in cell)
    axes.errorbar(mean, y, xerr=[[max(0, mean - low)], [max(0, high - mean)]], capsize=3, ls="none", **options)


def name_rows(axes: Axes, names: Sequence[str], width: int = 40) -> None:
    """Names of rows, the first one on top, long ones on several lines."""
    axes.set_yticks(range(len(names)), [fill(name, width) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)


def accuracy_figure(rows: list[MethodRow]) -> Figure:
    """Accuracy of each method on each part by the rule of training, with its 95 % interval."""
    rule = next(iter(rows[0].accuracy))
    parts = [part for part in rows[0].accuracy[rule] if part not in ("h", "mean")]
    figure, (axes,) = panels(
        1, (8, 0.5 * len(rows) + 1.2), f"test items right ({rule}), %, with 95 % intervals", grid="x"
    )
    for place, part in enumerate(parts):
        look = {"color": COLOURS.get(part, f"C{place}"), "marker": MARKERS.get(part, OTHER_MARKERS[place % 4])}
        for index, row in enumerate(rows):
            y = index + 0.22 * (place - (len(parts) - 1) / 2)
            label = part if index == 0 else "_"  # what begins so is in no legend
            interval(axes, y, row.accuracy[rule][part], label=label, **look)
    name_rows(axes, [row.title for row in rows])
    axes.set_xlim(0, 100)
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def claims_figure(rows: list[Comparison]) -> Figure:
    """The differences of comparisons with their intervals, in points of per cent, and the paper's beside them."""
    figure, (axes,) = panels(1, (8.5, 0.5 * len(rows) + 1.3), "difference of two methods, points", grid="x")
    for place, row in enumerate(rows):
        colour = BLUE if row.difference[0] > 0 else RED
        colour = GREY if row.verdict in ("undecided", "too few seeds") else colour
        interval(axes, place, row.difference, marker="o", color=colour, label="_" if place else "here, 95 % interval")
    theirs = [(100 * value, place) for place, row in enumerate(rows) for value in _theirs(row)]
    if theirs:
        look = {"mfc": "none", "color": "black", "label": "paper, Qwen2-VL-2B"}
        axes.plot(*zip(*theirs, strict=True), "D", ms=6, **look)
    axes.axvline(0, color="black", lw=0.8)
    name_rows(axes, [f"{row.place or row.claim} ({NAMES.get(row.measure, row.measure)})" for row in rows])
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.4 * (high - low))  # room for the verdicts
    for place, row in enumerate(rows):
        axes.text(0.99, place, row.verdict, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=8)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return figure


def _theirs(row: Comparison) -> list[float]:
    """The paper's differences by the measure of a row; where it has other measures, all of them."""
    own = row.paper.get(NAMES.get(row.measure, row.measure))
    return [value for value in row.paper.values() if isinstance(value, float)] if own is None else [own]


def dose_figure(rows: list[Comparison]) -> Figure:
    """Differences in points of per cent against `vague` (`analysis.claims.dose_rows`), a line a claim."""
    figure, (axes,) = panels(1, (8, 5), "share of answers not as asked in pre-training", "difference, points")
    lines: dict[str, list[Comparison]] = {}
    for row in rows:
        lines.setdefault(f"{row.place}: {row.claim} ({row.measure})", []).append(row)
    for place, (label, line) in enumerate(lines.items()):
        mean, low, high = 100 * np.array([row.difference for row in line]).T
        beside = [row.vague + 0.008 * (place - len(lines) / 2) for row in line]  # no interval hides another
        axes.errorbar(beside, mean, yerr=np.maximum(0, [mean - low, high - mean]), fmt="o-", capsize=3, label=label)
    axes.axhline(0, color="black", lw=0.8)
    figure.legend(fontsize=7, loc="outside lower center")
    return figure


def matrix_figure(tables: dict[str, pd.DataFrame], label: str) -> Figure:
    """Heat maps of tables in points of per cent, white at zero, a panel a name: rows trained on, columns tested on."""
    widest = max(len(table.columns) for table in tables.values())
    size = 0.62 * widest * len(tables) + 2, 0.5 * widest + 1.6
    figure, shown = panels(len(tables), size, grid=None)
    reach = max(float(table.abs().max().max()) for table in tables.values())
    for axes, (title, table) in zip(shown, tables.items(), strict=True):
        axes.imshow(table.astype(float), cmap="RdBu", vmin=-reach, vmax=reach)
        for (row, column), value in np.ndenumerate(table.to_numpy(float)):
            ink = "white" if abs(value) > 0.7 * reach else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
        axes.set_xticks(range(len(table.columns)), table.columns, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(table)), table.index, fontsize=7)
        axes.set_title(f"{title}, {label}", fontsize=9)
    return figure


def mask_figure(mask) -> Figure:
    """Which token (row) of a packed group may look at which (column)."""
    figure, (axes,) = panels(1, (3.4, 3.4), "looks at token", "token", grid=None)
    axes.imshow(mask, cmap="Blues", vmin=0, vmax=1.4)
    return figure


def bar_figure(names: Sequence[str], values: Sequence[float], label: str) -> Figure:
    """A horizontal bar for each name, the names (completions, say) from the left."""
    lines = [fill(visible(name), 48) for name in names]
    height = sum(0.18 + 0.14 * (line.count("\n") + 1) for line in lines) + 0.8
    figure, (axes,) = panels(1, (8, height), label, grid="x")
    axes.barh(range(len(lines)), values, color=[BLUE if value > 0 else ORANGE for value in values])
    axes.set_yticks(range(len(lines)), lines, fontsize=7, family="monospace", ha="left")
    longest = max(len(part) for line in lines for part in line.split("\n"))
    axes.tick_params(axis="y", pad=0.61 * 7 * longest + 14)  # points: a letter of this family is 0.6 of its size wide
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    return figure


def front_figure(points: pd.DataFrame) -> Figure:
    """Points of a selection (`controls.selection_points`) by method: base against new accuracy with the front that no
    other point of the method beats, and new accuracy against forward KL from the base model."""
    x, y = "base classes, strict accuracy, %", "new classes, strict accuracy, %"
    figure, (left, right) = panels(2, (10.5, 3.6), x, y, sharey=True)
    for place, (method, part) in enumerate(points[points["step"] > 0].groupby("method", sort=False)):
        best, colour = front(part), f"C{place}"
        left.plot(100 * part["base"], 100 * part["new"], "o", ms=3, alpha=0.4, color=colour)
        left.plot(100 * best["base"], 100 * best["new"], "o-", ms=4, color=colour, label=METHODS[method].title)
        right.plot(part["kl"], 100 * part["new"], "o", ms=4, alpha=0.7, color=colour)
    right.set_xlabel("forward KL from the base model, nats a completion")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def bench_figure(reports: Sequence[dict[str, Any]]) -> Figure:
    """Seconds of a step in stock TRL and here, split by phase, a panel a report of `rftkit bench`."""
    figure, shown = panels(len(reports), (3.4 * len(reports), 3), y="seconds a step", grid=None)
    for axes, report in zip(shown, reports, strict=True):
        bottom = np.zeros(2)
        for phase, colour in (("sampling", BLUE), ("scoring", GREY), ("update", ORANGE)):
            heights = np.array([report[name][f"{phase}_s"] for name in ("stock", "ours")])
            axes.bar(["stock TRL", "rftkit"], heights, bottom=bottom, color=colour, label=phase, width=0.6)
            bottom += heights
        axes.set_title(f"{report['preset']}, {report['mode']}: {report['ratio']['step']['median']:.1f}x", fontsize=10)
    shown[0].legend(fontsize=8)
    return figure
