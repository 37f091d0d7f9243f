"""The paper's claims, decided by the rule in `data/claims.yaml`, which was written before the first run."""

from __future__ import annotations

from typing import Any

import numpy as np

from rftkit.errors import UserError
from rftkit.results import read_answers
from rftkit.settings import METHODS, read_claims
from rftkit.stats import holm, interval, resample, two_sided
from rftkit.tasks.bundled import rule_of_task

LEVEL = 0.05  # of the corrected p-value
POWER = 2.8  # standard errors: a difference as large is seen at that level in 80 % of repetitions


def decide(methods: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each primary comparison whose two methods have runs of the same seeds.

    `difference` is the first method's strict accuracy minus the second's with a 95 % interval, paired by seed and test
    item (a single zero-shot run is paired with every seed); `p` its two-sided bootstrap p-value, Holm-corrected over
    the rows; `smallest` the difference this design would see in four of five repetitions; `verdict` says whether the
    difference is in the paper's direction.
    """
    rows = []
    for claim in read_claims()["primary"]:
        draws = _draws(claim, methods)
        if draws is None:
            continue
        seeds, mean, differences = draws
        row = {"claim": claim["name"], "measure": claim["measure"], "seeds": seeds, "above": claim["paper"] == "above"}
        row["difference"] = (mean, *interval(differences))
        row["smallest"] = POWER * float(differences.std())
        rows.append(row | {"p": two_sided(differences)})
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p": p, "verdict": verdict(row["difference"][0], p, row.pop("above"))}
    return rows


def _draws(claim: dict[str, Any], methods: dict[str, list]) -> tuple[int, float, np.ndarray] | None:
    """Seeds, mean difference and its bootstrap draws of a comparison; None where runs are missing."""
    names = claim["first"], claim["second"]
    modes = (claim.get(f"{side}_mode", METHODS[claim[side]].mode) for side in ("first", "second"))
    return paired(*(methods.get(name, []) for name in names), *modes, claim["measure"])


def paired(
    first: list[dict], second: list[dict], first_mode: str, second_mode: str, measure: str
) -> tuple[int, float, np.ndarray] | None:
    """The difference of two methods' accuracy on a measure (a split, `h` or `mean`), paired by seed and item.

    Accuracy is that of the rule their task trains with.

    Args:
        first, second: runs, as of `report.load_runs`; one of an untrained model stands for every seed.

    Returns:
        number of seeds, mean difference (0-1) and its bootstrap draws; None without runs of the same seeds.
    """
    sides = [(runs, METHODS[runs[0]["method"]].trainer is not None) for runs in (first, second) if runs]
    several = [{run["seed"] for run in runs} for runs, learns in sides if learns]
    seeds = sorted(set.intersection(*several)) if several else [0]
    if len(sides) < 2 or not seeds:
        return None
    answers = [
        read_answers(runs if learns else runs[:1], mode, rule_of_task(runs[0]["task"]))
        for (runs, learns), mode in zip(sides, (first_mode, second_mode), strict=True)
    ]
    items = [set(zip(table["split"], table["id"], strict=True)) for table in answers]
    if items[0] != items[1]:
        raise UserError("two methods were tested on different items and cannot be compared: report their runs apart")
    parts = [resample(table, seeds).get(measure) for table in answers]
    if None in parts:
        return None
    (one, one_draws), (other, other_draws) = parts
    return len(seeds), one - other, one_draws - other_draws


def verdict(difference: float, p: float, paper_above: bool) -> str:
    """The words for a difference and its corrected p-value, given whether the paper's difference is above zero."""
    if p > LEVEL:
        return "undecided"
    return "same direction" if (difference > 0) == paper_above else "opposite"
