"""Curves of runs: training step by step, accuracy on held-out items, and other things against steps or tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rftkit.analysis.methods import title_of
from rftkit.common.paths import LOGS
from rftkit.report.figures import COLOURS, MARKERS, panels
from rftkit.runs.changed import as_set
from rftkit.runs.folder import CURVE, METRICS, read_results
from rftkit.settings import METHODS

# What the columns of `metrics.csv` are, and their units.
TITLES = {
    "loss": "loss",
    "reward": "reward of a completion",
    "reward_std": "spread of rewards in a group",
    "accuracy_reward": "accuracy reward, 0 to 1",
    "format_reward": "format reward, 0 to 1",
    "frac_reward_zero_std": "groups that teach nothing, share",
    "completion_length": "completion length, tokens",
    "clipped_ratio": "completions cut at the limit, share",
    "entropy": "entropy, nats a token",
    "kl": "KL to the reference, nats a token",
    "grad_norm": "norm of the gradient",
    "step_seconds": "seconds a step",
}


def read_metrics(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / METRICS)


def read_curve(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / CURVE)


def archived_logs(dataset: str) -> dict[str, Path]:
    """Folders of the archived runs on a set whose curves the kit brings, by method, in the order of METHODS."""
    folders = {method: LOGS / f"{dataset}-{method}" for method in METHODS}
    return {method: folder for method, folder in folders.items() if (folder / METRICS).is_file()}


def by_method(folders: Sequence[Path]) -> dict[str, Path]:
    """The first run folder of each method, or METHOD+CONTROL."""
    return {read_results(folder).label: folder for folder in reversed(folders)}


def with_titles(folders: Sequence[Path], file: str) -> dict[str, Path]:
    """Those run folders that have a file, by method, and by seed if there are several."""
    runs = [as_set(read_results(folder)) for folder in folders if (folder / file).is_file()]
    several = len({run.seed for run in runs}) > 1
    return {title_of(run.label) + (f", seed {run.seed}" if several else ""): run.folder for run in runs}


def training_figure(tables: dict[str, pd.DataFrame], columns: Sequence[str] = ("reward", "loss")) -> Figure:
    """Curves of a run's `metrics.csv` columns against steps, a colour a run: those that any run has, or the loss.

    Thin: each step. Thick: the mean of eight steps.
    """
    shown = [column for column in columns if any(column in table for table in tables.values())] or ["loss"]
    figure, axes = panels(len(shown), (4.0 * len(shown), 3), "optimizer step")
    for panel, column in zip(axes, shown, strict=True):
        for place, (name, table) in enumerate(tables.items()):
            if column in table:
                panel.plot(table["step"], table[column], alpha=0.25, color=f"C{place}", lw=0.8)
                panel.plot(table["step"], _smooth(table[column]), color=f"C{place}", label=name)
        panel.set_title(TITLES.get(column, column.replace("_", " ")), fontsize=10)
    if len(tables) > 1:
        lines = {line.get_label(): line for panel in axes for line in panel.get_lines() if line.get_label()[0] != "_"}
        figure.legend(lines.values(), lines, fontsize=8, loc="outside lower center", ncols=3)
    return figure


def _smooth(values: pd.Series) -> pd.Series:
    return values.rolling(8, min_periods=1).mean()


def _lines(by_panel: dict[str, dict[str, pd.Series]], x: str | Sequence[str], y: str, marker: str = "o") -> Figure:
    """Lines against their index, a panel a title; base and new classes differ by marker and dashes too.

    Args:
        x: what the index is, or what it is in each panel.
    """
    width = max(6, 4.0 * len(by_panel))
    figure, axes = panels(len(by_panel), (width, 3), y=y, sharey=True)
    titles = [x] * len(by_panel) if isinstance(x, str) else x
    for panel, label, (title, lines) in zip(axes, titles, by_panel.items(), strict=True):
        for name, line in lines.items():
            form = MARKERS.get(name, marker) + ("--" if name == "new" else "-")
            panel.plot(line, form, ms=4, color=COLOURS.get(name), label=name)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel(label)
    axes[-1].legend(fontsize=8)
    return figure


def curve_figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Strict accuracy on held-out items of base and new classes against steps, a panel a run."""
    by_run = {name: _by_half(table.set_index("step")) for name, table in tables.items()}
    figure = _lines(by_run, "optimizer step", "held-out items right, %")
    plt.setp(figure.axes, ylim=(0, 100))
    return figure


def run_curves(folders: Sequence[Path], columns: Sequence[str]) -> Figure:
    """Columns of `metrics.csv` step by step, of those runs that were trained."""
    return training_figure({title: read_metrics(run) for title, run in with_titles(folders, METRICS).items()}, columns)


def accuracy_curves(folders: Sequence[Path]) -> Figure | str:
    """Accuracy on held-out items while runs were trained, or why there is none."""
    tables = {title: read_curve(run) for title, run in with_titles(folders, CURVE).items()}
    return curve_figure(tables) if tables else "no curve: eval_every is 0 in this profile"


def _by_half(curve: pd.DataFrame) -> dict[str, pd.Series]:
    """Strict accuracy in per cent of base and new classes."""
    return {half: 100 * part["strict"] for half, part in curve.groupby("half")}


def mean_curves(folders: dict[str, Path], rule: str) -> pd.DataFrame:
    """Accuracy on held-out items by a rule in per cent, the mean of the parts: a column a method's title, by step.

    Args:
        folders: runs by method; those without a curve are left out.
    """
    curves = {method: read_curve(folder) for method, folder in folders.items() if (folder / CURVE).is_file()}
    means = {METHODS[method].title: 100 * curve.groupby("step")[rule].mean() for method, curve in curves.items()}
    return pd.DataFrame(means)


def convergence_figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Accuracy reward of runs against steps and against seconds, each a mean of eight steps."""
    by_step, by_time = {}, {}
    for name, table in tables.items():
        by_step[name] = _smooth(table.set_index("step")["accuracy_reward"])
        by_time[name] = _smooth(table.set_index(table["step_seconds"].cumsum())["accuracy_reward"])
    by_panel = {"by step": by_step, "by time": by_time}
    return _lines(by_panel, ("optimizer step", "seconds of training"), "accuracy reward, 0 to 1", marker="")


def budget_figure(folders: dict[str, Path]) -> Figure:
    """Strict accuracy on held-out base and new items of runs against seconds of training, evaluation not counted."""
    base, new = {}, {}
    for title, folder in folders.items():
        curve, seconds = read_curve(folder), read_metrics(folder).set_index("step")["step_seconds"].cumsum()
        spent = curve["step"].map(seconds).fillna(0.0)  # nothing before the first step
        halves = _by_half(curve.set_index(spent))
        base[title], new[title] = halves["base"], halves["new"]
    return _lines({"base classes": base, "new classes": new}, "seconds of training", "held-out items right, %")


def lines_figure(lines: pd.DataFrame, x: str, y: str) -> Figure:
    """A line for each column, against the index."""
    return _lines({"": {name: line.dropna() for name, line in lines.items()}}, x, y)


class LivePlot:
    """Redraws training curves in place while a notebook trains; its last frame stays as a static figure.

    Use it as `on_row` of a run.

    Args:
        every: seconds between two frames, more where drawing would take a fortieth of them.
        draw: makes the figure from the rows so far; `training_figure` of the columns, if not given.
    """

    def __init__(
        self,
        columns: Sequence[str] = ("reward", "loss"),
        every: float = 3.0,
        draw: Callable[[pd.DataFrame], Figure] | None = None,
    ) -> None:
        self.draw = draw or (lambda rows: training_figure({"training": rows}, columns))
        self.every, self.handle, self.next = every, None, -math.inf

    def __call__(self, rows: list[dict]) -> None:
        from IPython.display import display

        if (began := time.monotonic()) < self.next:
            return
        figure = self.draw(pd.DataFrame(rows))
        if self.handle is None:
            self.handle, least = display(figure, display_id=True), 0  # it takes longer than those after it
        else:
            self.handle.update(figure)
            least = 40 * (time.monotonic() - began)  # most of it for the picture of the figure, which `update` makes
        self.next = began + max(self.every, least)
