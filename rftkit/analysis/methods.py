"""What each method came to: a row of a report's first table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rftkit.analysis.claims import Interval, Pair
from rftkit.analysis.paper import paper_numbers, paper_sets, rerun_numbers
from rftkit.common.statistics import estimates
from rftkit.runs.collect import Methods
from rftkit.runs.folder import read_answers
from rftkit.runs.results import Run
from rftkit.settings import METHODS, read_claims
from rftkit.tasks.example import TASK_RULES


@dataclass(frozen=True)
class MethodRow:
    """A method's runs together; shares are 0-1, by part."""

    label: str  # `Run.label`
    title: str
    runs: list[Pair]
    accuracy: dict[str, dict[str, Interval]]  # by rule, the one of training first, and part, `h` and `mean` among them
    likelihood: dict[str, float | None]  # whose likeliest choice is right, whatever the model says
    passed: dict[str, float | None]  # pass@8
    tokens: float  # of a completion
    seconds: float  # of training
    paper: dict[str, float]  # the paper's accuracy in per cent, by column
    paper_sets: int | None  # of how many sets that is the mean
    rerun: dict[str, float]  # another group's accuracy in per cent, by column


def method_rows(methods: Methods) -> list[MethodRow]:
    """A row a method, in the order of METHODS, controls behind their methods.

    Classification is scored strictly and by the paper's evaluation, the other tasks by their rule.
    """
    ran = [runs for runs in methods.values() if runs]
    return [_row(runs) for runs in sorted(ran, key=lambda runs: (list(METHODS).index(runs[0].method), runs[0].label))]


def _row(runs: list[Run]) -> MethodRow:
    first = runs[0]
    theirs = first.task, first.protocol, METHODS[first.method].paper if first.as_written else None
    rule = TASK_RULES[first.task]
    rules = ("strict", "lenient") if rule == "strict" else (rule,)
    trained = [run.training.seconds for run in runs if run.training]
    return MethodRow(
        label=first.label,
        title=title_of(first.label),
        runs=[run.pair for run in runs],
        accuracy={rule: estimates(read_answers(runs, first.mode, rule)) for rule in rules},
        likelihood={part: measured(runs, part, "likelihood", "no_thinking") for part in first.parts},
        passed={part: measured(runs, part, "pass@8", first.mode) for part in first.parts},
        tokens=float(np.mean([run.completion_length for run in runs])),
        seconds=float(np.mean(trained)) if trained else 0.0,
        paper=paper_numbers(*theirs),
        paper_sets=paper_sets(first.task, first.protocol),
        rerun=rerun_numbers(*theirs),
    )


def measured(runs: list[Run], part: str, measure: str, mode: str) -> float | None:
    """Mean over runs of a measure (0-1); None if no run has it."""
    place = part, measure, mode
    found = [m.accuracy for run in runs for m in run.measures if (m.split, m.measure, m.mode) == place]
    return float(np.mean(found)) if found else None


def title_of(label: str) -> str:
    """The title of METHOD, or of METHOD+CONTROL, and behind it what else was changed (`Run.label`)."""
    made, *changed = label.split(", ")
    method, _, control = made.partition("+")
    controls = read_claims()["controls"]
    also = [controls.get(control, {}).get("title", control)] if control else []
    return ", ".join((METHODS[method].title, *also, *changed))
