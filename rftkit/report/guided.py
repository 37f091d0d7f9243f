"""GTR's tables and figures: arms, verdicts, how thoughts change from update to update, and episodes to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from io import BytesIO

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rftkit.analysis.arms import START
from rftkit.analysis.claims import Comparison
from rftkit.analysis.guided import GTR, ArmRow, arm_rows, curves, parted
from rftkit.gtr.rollout import Step
from rftkit.gtr.rules import GAMES
from rftkit.gtr.worlds import picture
from rftkit.report.arms import ArmsPage, decided_table
from rftkit.report.samples import examples_figure
from rftkit.report.tables import counted, percent, table_of
from rftkit.tasks.example import Example

TITLES = {
    START: "start model", "unguided": "unguided (RL4VLM)", "early_stop": "early stop alone", "gtr": "GTR, exact",
    "gtr_past": "GTR, own past", "cloned": "cloned thoughts alone", "gtr_no_dagger": "GTR, last rollout cloned alone",
    "gtr_clone_action": "GTR, action cloned too", "gtr_lambda_0": "GTR, lambda 0", "gtr_lambda_1": "GTR, lambda 1",
    "supervised_12": "cloned alone, 12 updates", "supervised_36": "cloned alone, 36 updates",
}  # fmt: skip
MEASURES = {  # on fixed states; the last two mislead
    "facts": "true facts, %", "thought": "right thoughts, %", "plan": "right plans, %", "gap": "gap, nats",
    "self_bleu": "self-BLEU-2", "distinct": "distinct thoughts, %",
}  # fmt: skip
SHARES = ("facts", "thought", "plan", "distinct")
CURVES = ("thought", "facts", "gap", "distinct")
SIDE = 128  # pixels of a picture that is shown
LEGEND = """Success: deals won by plain rules, without any corrector, at the temperature of training, with 95 %
intervals; of Points24 first deals of multisets trained on, then others (73.1 % of all can be solved). Thoughts: on
192 fixed states, the same for all arms, before the first update and after the last. *gap*: how much likelier a
thought's token is in its own state than in another. The exact corrector knows the state and every solution: it is
stronger than the paper's, which asks GPT-4o. Self-BLEU and distinct thoughts mislead: they count states."""


def title(arm: str) -> str:
    return TITLES.get(arm, arm)


def arms_table(rows: Sequence[ArmRow]) -> pd.DataFrame:
    """An environment and arm a row: success, length, and the measures on fixed states."""

    def success(row: ArmRow) -> str:
        return "; ".join(map(percent, row.success.values()))

    def played(name: str, row: ArmRow) -> str:
        return " / ".join(f"{value:.1f}" for value in getattr(row, name).values())

    def measured(name: str, row: ArmRow) -> str:
        return f"{100 * row.after[name]:.1f}" if name in SHARES else f"{row.after[name]:.2f}"

    columns: dict[str, Callable[[ArmRow], str]] = {
        "environment": lambda row: GAMES[row.dataset].title,
        "arm": lambda row: title(row.arm),
        "seeds": lambda row: "" if row.arm == START else counted(row.runs),
        "deals won, %": success,
        "return": partial(played, "returned"),
        "steps": partial(played, "length"),
    }
    return table_of(rows, columns | {text: partial(measured, name) for name, text in MEASURES.items()})


def verdicts_table(rows: Sequence[Comparison]) -> pd.DataFrame:
    """The rows of `analysis.arms.verdict_rows`."""

    return decided_table(rows, {"environment": lambda row: GAMES[row.place].title})


def collapse_figure(curves: pd.DataFrame, measures: Sequence[str] = CURVES) -> Figure:
    """Measures on the fixed states by update: a row a measure, a column an environment, a line an arm."""
    names, arms = (list(curves[column].unique()) for column in ("dataset", "arm"))
    size = (3.2 * len(names) + 1.6, 1.9 * len(measures) + 0.6)
    figure, grid = plt.subplots(len(measures), len(names), figsize=size, squeeze=False, sharex="col",
                                layout="constrained")  # fmt: skip
    plt.close(figure)
    for axes, measure in zip(grid, measures, strict=True):
        axes[0].set_ylabel(MEASURES[measure])
        for one, name in zip(axes, names, strict=True):
            for arm, line in curves[curves["dataset"] == name].groupby("arm", sort=False):
                scale, number = 100 if measure in SHARES else 1, arms.index(arm)
                one.plot(line["update"], scale * line[measure], label=title(arm), color=f"C{number}",
                         marker="os^Dv"[number % 5], ms=3)  # fmt: skip
            one.grid(alpha=0.3)
    for one, name in zip(grid[0], names, strict=True):
        one.set_title(GAMES[name].title)
    for one in grid[-1]:
        one.set_xlabel("update")
    lines = {line.get_label(): line for one in grid[0] for line in one.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside right upper", fontsize=8)
    return figure


def said_of(step: Step) -> list[str]:
    """A step in lines: the reply, what is true of it, what was played and what that earned."""
    facts, thought = ("true" if part else "false" for part in step.verdict)
    played = f"plays {step.action}" if step.legal else f"names no action, plays {step.action} at random"
    return [step.text, f"facts {facts}, thought {thought}", f"{played}: {step.reward:+g}"]


def episode_figure(steps: Sequence[Step]) -> Figure:
    """The pictures of an episode, a line of six, with what was said of each (`said_of`)."""
    titles = [f"step {number}: {''.join(step.state.formula)}" for number, step in enumerate(steps, 1)]
    shown = [
        Example(name, (picture(step.state, SIDE),), "", name, None) for name, step in zip(titles, steps, strict=True)
    ]
    return examples_figure(shown, list(map(said_of, steps)))


def viewer(steps: Sequence[Step]) -> ipywidgets.VBox:
    """Go through an episode step by step."""
    place = ipywidgets.IntSlider(1, 1, len(steps), description="step")
    image, text = ipywidgets.Image(width=SIDE), ipywidgets.HTML()

    def show(_=None) -> None:
        step, png = steps[place.value - 1], BytesIO()
        picture(step.state, SIDE).save(png, "png")
        image.value, text.value = png.getvalue(), "<br>".join(map(escape, said_of(step)))

    place.observe(show, "value")
    show()
    return ipywidgets.VBox([place, image, text])


def side_by_side(states: pd.DataFrame, count: int = 8) -> pd.DataFrame:
    """What was said of the same fixed states before the first update and after the last, and whether it was right.

    Args:
        states: the `states.parquet` of a run.
    """
    ends = [
        states[states["update"] == update].head(count) for update in (states["update"].min(), states["update"].max())
    ]
    table = ends[0][["cards", "formula"]].reset_index(drop=True)
    for when, end in zip(("before", "after"), ends, strict=True):
        marks = end["thought"].map({True: "right", False: "wrong"}).to_numpy()
        table[when] = [f"{text} ({mark})" for text, mark in zip(end["text"], marks, strict=True)]
    return table


PAGE = ArmsPage(
    "gtr", GTR, "GTR: agents that think at every step", LEGEND, arm_rows, arms_table, verdicts_table,
    {"thoughts by update": lambda runs, rows: collapse_figure(curves(parted(runs)[0] or runs))},
)  # fmt: skip
