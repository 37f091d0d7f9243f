"""The paper's claims, decided by the rule in `data/claims.yaml`, which was written before the first run."""

from __future__ import annotations

from typing import Any

import yaml

from rftkit.paths import DATA
from rftkit.results import read_answers
from rftkit.settings import METHODS
from rftkit.stats import interval, resample

CLAIMS = DATA / "claims.yaml"


def read_claims() -> dict[str, Any]:
    """The content of `data/claims.yaml`."""
    return yaml.safe_load(CLAIMS.read_text())


def decide(methods: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each primary comparison whose two methods have runs of the same seeds.

    `difference` is the first method's strict accuracy minus the second's with a 95 % interval, paired by seed and test
    item (a single zero-shot run is paired with every seed); `verdict` says whether that is the paper's direction.
    """
    rows = []
    for claim in read_claims()["primary"]:
        pair = [methods.get(claim[side], []) for side in ("first", "second")]
        trained = [METHODS[claim[side]].trainer is not None for side in ("first", "second")]
        several = [{run["seed"] for run in runs} for runs, learns in zip(pair, trained, strict=True) if learns]
        seeds = sorted(set.intersection(*several)) if several else [0]
        if not all(pair) or not seeds:
            continue
        pair = [runs if learns else runs[:1] for runs, learns in zip(pair, trained, strict=True)]
        parts = []
        for side, runs in zip(("first", "second"), pair, strict=True):
            mode = claim.get(f"{side}_mode", METHODS[claim[side]].mode)
            parts.append(resample(read_answers(runs, mode, "strict"), seeds).get(claim["measure"]))
        if None in parts:
            continue
        (first, first_draws), (second, second_draws) = parts
        low, high = interval(first_draws - second_draws)
        row = {"claim": claim["name"], "measure": claim["measure"], "seeds": len(seeds)}
        row["difference"] = (first - second, low, high)
        rows.append(row | {"verdict": verdict(low, high, claim["paper"] == "above")})
    return rows


def verdict(low: float, high: float, paper_above: bool) -> str:
    """The words for a difference's interval, given whether the paper's difference is above zero."""
    if low <= 0 <= high:
        return "undecided"
    return "same direction" if (low > 0) == paper_above else "opposite"
