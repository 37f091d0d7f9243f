"""The paper's claims, decided by the rule in `data/claims.yaml`, which was written before the first run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from rftkit.analysis.paper import paper_numbers
from rftkit.common.errors import UserError
from rftkit.common.statistics import holm, interval, resample, two_sided
from rftkit.runs.collect import Methods, Sections, by_dose, short_names
from rftkit.runs.folder import read_answers, same_tests
from rftkit.runs.record import Run
from rftkit.settings import METHODS, read_claims
from rftkit.tasks.example import TASK_RULES

LEVEL = 0.05  # of the corrected p-value
POWER = 0.8  # in so many repetitions a difference as large as `smallest` passes the strictest of Holm's corrections
NAMES = {"h": "H"}  # of measures, in tables and the paper's columns
Interval = tuple[float, float, float]  # a mean and the ends of its 95 % interval
Pair = tuple[str, int]  # start model and seed


@dataclass(frozen=True)
class Difference:
    """A first method's accuracy minus a second's, paired by start model, seed and test item."""

    runs: list[Pair]  # that both methods have
    mean: float  # -1..1
    draws: np.ndarray  # [draws] of the bootstrap

    @property
    def interval(self) -> Interval:
        return (self.mean, *interval(self.draws))

    @property
    def smallest(self) -> float:
        return smallest_seen(self.draws)


@dataclass(kw_only=True)
class Comparison:
    """A row of a report: what is compared, where, what was found, and what the paper has."""

    claim: str
    place: str = ""  # the set, and where it matters profile, start models, and what the paper has there
    profile: str = ""
    dataset: str = ""
    measure: str = ""  # a part, `h`, or `mean` of the parts
    runs: list[Pair] = field(default_factory=list)
    difference: tuple[float, ...]  # in `unit`: a mean, and the ends of its interval if it has one
    unit: str = "points"  # -1..1; or `%` (0..1), or `times`
    p: float | None = None  # two-sided, of the bootstrap
    smallest: float | None = None  # the difference this design would see in four of five repetitions
    by: str = ""  # what the verdict rests on
    verdict: str = ""
    paper: dict[str, float | str] = field(default_factory=dict)  # its difference by column of its tables
    beside: dict[str, Interval] = field(default_factory=dict)  # of parts, levels or models alone, uncorrected
    smallest_beside: dict[str, float] = field(default_factory=dict)
    parameters: tuple[int, ...] = ()  # of the start models
    vague: float | None = None  # the share of answers not as asked that the start models were taught

    @classmethod
    def of(cls, difference: Difference, **said: Any) -> Comparison:
        """A row that is not yet one of several (`correct`)."""
        p = two_sided(difference.draws)
        return cls(runs=difference.runs, difference=difference.interval, p=p, smallest=difference.smallest, **said)


def read_rows(path: Path) -> Any:
    """The rows in a JSON file of a report, or the lists of them by name."""
    return TypeAdapter(list[Comparison] | dict[str, list[Comparison]]).validate_json(path.read_bytes())


def decide(methods: Methods) -> list[Comparison]:
    """A row for each primary comparison whose two methods have runs of the same start models and seeds.

    Accuracy is strict; an untrained model's run is paired with each of its seeds. `verdict` says whether the difference
    is in the paper's direction; `paper` has its difference with Qwen2-VL-2B, if it has one.
    """
    rows, above = [], {}
    for claim in read_claims()["primary"]:
        measure = claim["measure"]
        if found := compared(claim, methods).get(measure):
            paper = paper_difference(methods[claim["first"]], methods[claim["second"]])
            paper = {column: value for column, value in paper.items() if column == NAMES.get(measure, measure)}
            rows.append(Comparison.of(found, claim=claim["name"], measure=measure, paper=paper))
            above[claim["name"]] = claim["paper"] == "above"
    correct(rows)
    for row in rows:
        same = (row.difference[0] > 0) == above[row.claim]
        row.verdict = undecided(row) or ("same direction" if same else "opposite")
    return rows


def dose_rows(sections: Sections) -> list[Comparison]:
    """The primary comparisons (`decide`) by the share of answers not as asked that start models were taught; `place` is
    what these have in common."""
    short = short_names(model for section in sections for model in section.models)
    rows = []
    for models, doses in by_dose(sections):
        for vague, methods in doses.items():
            for row in decide(methods):
                runs = [(short[model], seed) for model, seed in row.runs]
                rows.append(replace(row, place=models, vague=vague, runs=runs))
    return rows


def smallest_seen(draws: np.ndarray) -> float:
    """The difference that the design of these draws would see in POWER of all repetitions, as one comparison alone."""
    return _spreads(1) * float(draws.std())


def _spreads(comparisons: int) -> float:
    """How many times the spread of its draws a difference must be to be seen, whatever the other comparisons."""
    return NormalDist().inv_cdf(1 - LEVEL / 2 / comparisons) + NormalDist().inv_cdf(POWER)


def correct(rows: Sequence[Comparison]) -> None:
    """Correct the rows of a table for how many they are: `p` by Holm, `smallest` by Holm's strictest."""
    for row, p in zip(rows, holm([row.p for row in rows]), strict=True):
        row.p = p
        row.smallest *= _spreads(len(rows)) / _spreads(1)


def undecided(row: Comparison) -> str | None:
    """The words for a corrected row that says neither the one nor the other; None if it does."""
    if len(row.runs) < read_claims()["fewest_runs"]:
        return "too few seeds"
    return "undecided" if row.p > LEVEL else None


def paper_difference(first: list[Run], second: list[Run]) -> dict[str, float]:
    """The paper's accuracy of these runs' method minus that of those (-1..1), with Qwen2-VL-2B, by column."""
    one, other = (paper_numbers(run.task, run.protocol, METHODS[run.method].paper) for run in (first[0], second[0]))
    return {column: (value - other[column]) / 100 for column, value in one.items() if column in other}


def compared(
    claim: dict[str, Any], methods: Methods, part_of: Callable[[str], str] | None = None
) -> dict[str, Difference]:
    """What `paired` says of a comparison of `data/claims.yaml`; nothing where runs are missing."""
    first, second = methods.get(claim["first"], []), methods.get(claim["second"], [])
    return paired(first, second, claim.get("second_mode"), part_of)


def paired(
    first: list[Run],
    second: list[Run],
    second_mode: str | None = None,
    part_of: Callable[[str], str] | None = None,
) -> dict[str, Difference]:
    """The difference of two methods' accuracy by measure (a part; last `h` or `mean`), by the rule of their task.

    Args:
        first, second: runs; one of an untrained model stands for each of its seeds.
        second_mode: in place of the second method's own.
        part_of: the part an item's id belongs to, in place of the run's own parts.

    Returns:
        nothing if they have no start model and seed in common.
    """
    both = _in_both(first, second)
    if not both:
        return {}
    answers = []
    for runs, mode in ((first, first[0].mode), (second, second_mode or second[0].mode)):
        table = read_answers(_chosen(runs, both), mode, TASK_RULES[runs[0].task])
        answers.append(table.assign(split=table["id"].map(part_of)) if part_of else table)
    items = [set(table[["split", "id"]].drop_duplicates().itertuples(index=False)) for table in answers]
    if items[0] != items[1] or not same_tests(*first, *second):
        raise UserError("two methods were tested on different items and cannot be compared: report their runs apart")
    ones, others = map(resample, answers)
    return {
        measure: Difference(both, mean - others[measure][0], draws - others[measure][1])
        for measure, (mean, draws) in ones.items()
    }


def _learns(runs: list[Run]) -> bool:
    return METHODS[runs[0].method].trainer is not None


def _in_both(first: list[Run], second: list[Run]) -> list[Pair]:
    """Start models and seeds that two methods have in common; an untrained model has the seeds of the other."""
    if not first or not second:
        return []
    trained = [{run.pair for run in runs} for runs in (first, second) if _learns(runs)]
    pairs = set.intersection(*trained) if trained else {run.pair for run in first}
    models = {run.model for run in first} & {run.model for run in second}
    return sorted(pair for pair in pairs if pair[0] in models)


def _chosen(runs: list[Run], both: list[Pair]) -> list[Run]:
    """The runs of these start models and seeds; the run of an untrained model once for each of its seeds."""
    if _learns(runs):
        return [run for run in runs if run.pair in both]
    untrained = {run.model: run for run in runs}
    return [replace(untrained[model], seed=seed) for model, seed in both]
