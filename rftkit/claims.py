"""The paper's claims, decided by the rule in `data/claims.yaml`, which was written before the first run."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from rftkit.paths import DATA
from rftkit.results import read_answers
from rftkit.settings import METHODS
from rftkit.stats import holm, interval, resample, two_sided

CLAIMS = DATA / "claims.yaml"
LEVEL = 0.05  # of the corrected p-value
POWER = 2.8  # standard errors: a difference as large is seen at that level in 80 % of repetitions


def read_claims() -> dict[str, Any]:
    """The content of `data/claims.yaml`."""
    return yaml.safe_load(CLAIMS.read_text())


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
    sides = ("first", "second")
    pair = [methods.get(claim[side], []) for side in sides]
    trained = [METHODS[claim[side]].trainer is not None for side in sides]
    several = [{run["seed"] for run in runs} for runs, learns in zip(pair, trained, strict=True) if learns]
    seeds = sorted(set.intersection(*several)) if several else [0]
    if not all(pair) or not seeds:
        return None
    parts = []
    for side, runs, learns in zip(sides, pair, trained, strict=True):
        mode = claim.get(f"{side}_mode", METHODS[claim[side]].mode)
        answers = read_answers(runs if learns else runs[:1], mode, "strict")
        parts.append(resample(answers, seeds).get(claim["measure"]))
    if None in parts:
        return None
    (first, first_draws), (second, second_draws) = parts
    return len(seeds), first - second, first_draws - second_draws


def verdict(difference: float, p: float, paper_above: bool) -> str:
    """The words for a difference and its corrected p-value, given whether the paper's difference is above zero."""
    if p > LEVEL:
        return "undecided"
    return "same direction" if (difference > 0) == paper_above else "opposite"
