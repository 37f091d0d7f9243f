"""The paper's claims, decided by the rule in `data/claims.yaml`, which was written before the first run."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

from rftkit.analysis.paper import paper_numbers
from rftkit.common.errors import UserError
from rftkit.common.statistics import holm, interval, resample, two_sided
from rftkit.runs.collect import by_dose, short_names
from rftkit.runs.folder import read_answers, same_tests
from rftkit.settings import METHODS, read_claims
from rftkit.tasks.example import TASK_RULES

LEVEL = 0.05  # of the corrected p-value
NAMES = {"h": "H"}  # of measures, in tables and the paper's columns
Paired = tuple[list[tuple[str, int]], float, np.ndarray]
POWER = 0.8  # in so many repetitions a difference as large as `smallest` passes the strictest of Holm's corrections


def decide(methods: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each primary comparison whose two methods have runs of the same base models and seeds.

    `difference` is the first method's strict accuracy minus the second's with a 95 % interval, paired by seed and test
    item (a base model's zero-shot run is paired with each of its seeds); `p` its two-sided bootstrap p-value,
    Holm-corrected over the rows; `smallest` the difference this design would see in four of five repetitions, whatever
    the other rows; `verdict` says whether the difference is in the paper's direction; `paper` is the paper's with
    Qwen2-VL-2B on its own sets, None if it has none.
    """
    rows = []
    for claim in read_claims()["primary"]:
        if draws := compared(claim, methods).get(claim["measure"]):
            row = {"claim": claim["name"], "measure": claim["measure"], "above": claim["paper"] == "above"}
            paper = paper_difference(methods[claim["first"]], methods[claim["second"]])
            rows.append(row | summary(draws) | {"paper": paper.get(NAMES.get(claim["measure"], claim["measure"]))})
    correct(rows)
    for row in rows:
        same = (row["difference"][0] > 0) == row.pop("above")
        row["verdict"] = undecided(row) or ("same direction" if same else "opposite")
    return rows


def summary(draws: Paired) -> dict[str, Any]:
    """What a row of a table says of a comparison, not yet one of several (`correct`)."""
    runs, _, differences = draws
    return {
        "runs": runs,
        "difference": cell(draws),
        "p": two_sided(differences),
        "smallest": smallest_seen(differences),
    }


def smallest_seen(draws: np.ndarray) -> float:
    """The difference that the design of these draws would see in POWER of all repetitions, as one comparison alone."""
    return _spreads(1) * float(draws.std())


def _spreads(comparisons: int) -> float:
    """How many times the spread of its draws a difference must be to be seen, whatever the other comparisons."""
    return NormalDist().inv_cdf(1 - LEVEL / 2 / comparisons) + NormalDist().inv_cdf(POWER)


def cell(draws: Paired) -> tuple[float, float, float]:
    """The mean of a difference (-1..1) and its 95 % interval."""
    _, mean, differences = draws
    return (mean, *interval(differences))


def correct(rows: list[dict[str, Any]]) -> None:
    """Correct the rows of a table for how many they are: `p` by Holm, `smallest` by Holm's strictest, whatever the
    other rows."""
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p": p, "smallest": row["smallest"] * _spreads(len(rows)) / _spreads(1)}


def paper_difference(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> dict[str, float]:
    """The paper's accuracy of these runs' method minus that of those (-1..1), with Qwen2-VL-2B, by column."""
    one, other = (
        paper_numbers(runs[0]["task"], runs[0].get("protocol"), METHODS[runs[0]["method"]].paper)
        for runs in (first, second)
    )
    return {column: (value - other[column]) / 100 for column, value in one.items() if column in other}


def dose_rows(sections: dict) -> list[dict[str, Any]]:
    """The primary comparisons (`decide`) by the share of answers not as asked that base models were taught
    (`sections.by_dose`): each row with its share `vague` (0-1) and `models`, what they have in common."""
    short = short_names(model for _, _, model in sections)
    return [
        {"models": models, "vague": vague} | row | {"runs": [(short[base], seed) for base, seed in row["runs"]]}
        for models, doses in by_dose(sections)
        for vague, methods in doses.items()
        for row in decide(methods)
    ]


def compared(
    claim: dict[str, Any], methods: dict[str, list], part_of: Callable[[str], str] | None = None
) -> dict[str, Paired]:
    """What `paired` says of a comparison of `data/claims.yaml`; nothing where runs are missing."""
    names = claim["first"], claim["second"]
    modes = (claim.get(f"{side}_mode", METHODS[claim[side]].mode) for side in ("first", "second"))
    return paired(*(methods.get(name, []) for name in names), *modes, part_of)


def paired(
    first: list[dict],
    second: list[dict],
    first_mode: str,
    second_mode: str,
    part_of: Callable[[str], str] | None = None,
) -> dict[str, Paired]:
    """The difference of two methods' accuracy by measure (a split; last `h` or `mean`), paired by base, seed and item.

    Accuracy is that of the rule their task trains with.

    Args:
        first, second: runs, as of `sections.load_runs`; one of an untrained model stands for each of its seeds.
        part_of: the part an item's id belongs to, in place of the run's splits.

    Returns:
        the (base, seed) that both have, mean difference (0-1) and its bootstrap draws; nothing if they have none.
    """
    sides = [(runs, METHODS[runs[0]["method"]].trainer is not None) for runs in (first, second) if runs]
    several = [{(run["model"], run["seed"]) for run in runs} for runs, learns in sides if learns]
    both = sorted(set.intersection(*several)) if several else [(run["model"], run["seed"]) for run in first]
    bases = set.intersection(*({run["model"] for run in runs} for runs, _ in sides)) if sides else set()
    both = [(base, seed) for base, seed in both if base in bases]
    if len(sides) < 2 or not both:
        return {}
    answers = [
        read_answers(_chosen(runs, learns, both), mode, TASK_RULES[runs[0]["task"]])
        for (runs, learns), mode in zip(sides, (first_mode, second_mode), strict=True)
    ]
    if part_of:
        answers = [table.assign(split=table["id"].map(part_of)) for table in answers]
    items = [set(table[["split", "id"]].drop_duplicates().itertuples(index=False)) for table in answers]
    if items[0] != items[1] or not same_tests(*first, *second):
        raise UserError("two methods were tested on different items and cannot be compared: report their runs apart")
    ones, others = map(resample, answers)
    return {
        measure: (both, one - others[measure][0], draws - others[measure][1]) for measure, (one, draws) in ones.items()
    }


def _chosen(runs: list[dict], learns: bool, both: list[tuple[str, int]]) -> list[dict]:
    """The runs of these bases and seeds; the run of an untrained model once for each of its seeds."""
    if learns:
        return [run for run in runs if (run["model"], run["seed"]) in both]
    untrained = {run["model"]: run for run in runs}
    return [untrained[base] | {"seed": seed} for base, seed in both]


def undecided(row: dict[str, Any]) -> str | None:
    """The words for a corrected row that says neither the one nor the other; None if it does."""
    if len(row["runs"]) < read_claims()["fewest_runs"]:
        return "too few seeds"
    return "undecided" if row["p"] > LEVEL else None
