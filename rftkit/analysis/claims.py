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
from rftkit.runs.collect import SMOKE, Methods, Sections, by_dose, model_names
from rftkit.runs.folder import read_answers, same_tests
from rftkit.runs.results import Run
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
        """What this design would see in POWER of all repetitions, as one comparison alone."""
        return _spreads(1) * float(self.draws.std())


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
    is in the paper's direction; `paper` has its difference with Qwen2-VL-2B, if it has one. No row of smoke runs.
    """
    rows, verdicts = [], []
    if any(run.profile == SMOKE for runs in methods.values() for run in runs):
        return rows
    for claim in read_claims()["primary"]:
        measure = claim["measure"]
        if found := compared(claim, methods).get(measure):
            paper = paper_difference(claim, methods)
            paper = {column: value for column, value in paper.items() if column == NAMES.get(measure, measure)}
            rows.append(Comparison.of(found, claim=claim["name"], measure=measure, paper=paper))
            above = claim["paper"] == "above"
            verdicts.append(("same direction", "opposite") if above else ("opposite", "same direction"))
    correct(rows, verdicts)
    return rows


def without_runs(methods: Methods, decided: Sequence[Comparison]) -> list[str]:
    """The primary comparisons of which only one method ran, or both with no start model and seed in common; and what
    is missing for each."""
    made, lines = {row.claim for row in decided}, []
    for claim in read_claims()["primary"]:
        sides = claim["first"], claim["second"]
        lacking = [METHODS[side].title for side in sides if not methods.get(side)]
        if claim["name"] not in made and len(lacking) < 2:
            why = f"no runs of {lacking[0]}" if lacking else "no seed in common"
            lines.append(f"{claim['name']} ({why})")
    return lines


def dose_rows(sections: Sections) -> list[Comparison]:
    """The primary comparisons (`decide`) by the share of answers not as asked that start models were taught; `place` is
    what these have in common."""
    names, rows = model_names(sections), []
    for models, doses in by_dose(sections):
        for vague, methods in doses.items():
            for row in decide(methods):
                runs = [(names[model], seed) for model, seed in row.runs]
                rows.append(replace(row, place=models, vague=vague, runs=runs))
    return rows


def _spreads(comparisons: int) -> float:
    """How many times the spread of its draws a difference must be to be seen, whatever the other comparisons."""
    return NormalDist().inv_cdf(1 - LEVEL / 2 / comparisons) + NormalDist().inv_cdf(POWER)


def correct(rows: Sequence[Comparison], verdicts: Sequence[tuple[str, str]]) -> None:
    """Correct the rows of a table for how many they are: `p` by Holm, `smallest` by Holm's strictest.

    Args:
        verdicts: what each row says if it is decided, with the first method ahead, and with the second.
    """
    fewest = read_claims()["fewest_runs"]
    corrected = holm([row.p for row in rows])
    for row, p, (first_ahead, second_ahead) in zip(rows, corrected, verdicts, strict=True):
        row.p = p
        row.smallest *= _spreads(len(rows)) / _spreads(1)
        if len(row.runs) < fewest:
            row.verdict = "too few seeds"
        elif p > LEVEL:
            row.verdict = "undecided"
        else:
            row.verdict = first_ahead if row.difference[0] > 0 else second_ahead


def paper_difference(claim: dict[str, Any], methods: Methods) -> dict[str, float]:
    """The paper's difference (-1..1) of the methods of a comparison, with Qwen2-VL-2B, by column."""
    runs = methods[claim["first"]][0], methods[claim["second"]][0]
    first, second = (paper_numbers(run.task, run.protocol, METHODS[run.method].paper) for run in runs)
    return {column: (value - second[column]) / 100 for column, value in first.items() if column in second}


def compared(
    claim: dict[str, Any], methods: Methods, part_of: Callable[[str], str] | None = None
) -> dict[str, Difference]:
    """The difference of two methods' accuracy by measure (a part; last `h` or `mean`), by the rule of their task.

    Args:
        claim: the labels of the `first` and the `second`, and the latter's `second_mode` if it is not its own; `score`
            is a column of answers in place of the rule. A run of an untrained model stands for each of its seeds.
        part_of: the part an item's id belongs to, in place of the run's own parts.

    Returns:
        nothing if they have no start model and seed in common.
    """
    first, second = methods.get(claim["first"]), methods.get(claim["second"])
    if not first or not second:
        return {}
    ones, others = _by_pair(first, second), _by_pair(second, first)
    both = sorted(ones.keys() & others.keys())
    if not both:
        return {}
    answers = []
    for runs, mode in ((ones, first[0].mode), (others, claim.get("second_mode") or second[0].mode)):
        rule = claim.get("score", TASK_RULES[first[0].task])
        table = read_answers([runs[pair] for pair in both], mode, rule)
        answers.append(table.assign(split=table["id"].map(part_of)) if part_of else table)
    items = [set(table[["split", "id"]].drop_duplicates().itertuples(index=False)) for table in answers]
    if items[0] != items[1] or not same_tests(*first, *second):
        raise UserError("two methods were tested on different items and cannot be compared: report their runs apart")
    accuracy, other = map(resample, answers)
    return {
        measure: Difference(both, mean - other[measure][0], draws - other[measure][1])
        for measure, (mean, draws) in accuracy.items()
    }


def _by_pair(runs: list[Run], beside: list[Run]) -> dict[Pair, Run]:
    """Runs by start model and seed; one of an untrained model for each seed that a trained method has beside it."""
    trained, trained_beside = (METHODS[of[0].method].trainer is not None for of in (runs, beside))
    if trained or not trained_beside:
        return {run.pair: run for run in runs}
    untrained = {run.model: run for run in runs}
    return {run.pair: replace(untrained[run.model], seed=run.seed) for run in beside if run.model in untrained}
