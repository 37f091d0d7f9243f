"""Chooses rate and clone weight of the guided arms on Points24 by the rule in `data/gtr.yaml`: held-out deals only."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd
import yaml
from tqdm.auto import tqdm

from rftkit.common.pool import pool
from rftkit.gtr.run import execute
from rftkit.gtr.settings import GTRSettings, load_settings, read_claims
from rftkit.runs.folder import result_file, write_atomically

DATASET, PART = "points24", "train"


def select_guided(profile: str, out: Path) -> str:
    """Train `gtr` with each rate and clone norm; write every point to `OUT/selection-points24.csv`, return the best.

    The best wins most of the held-out deals of multisets trained on; of equals the lower rate, then no norm.
    """
    folder = out / "selection" / DATASET
    folder.mkdir(parents=True, exist_ok=True)
    grid = points_of(profile)
    with pool(threads=1) as workers:
        runs = [workers.submit(execute, settings, folder) for settings in grid]
        rows = [_row(settings, run.result()) for settings, run in zip(grid, tqdm(runs, desc="runs"), strict=True)]
    table = pd.DataFrame(rows)
    write_atomically(out / f"selection-{DATASET}.csv", table.to_csv(index=False))
    return yaml.safe_dump({DATASET: best_point(rows)}, sort_keys=False)


def best_point(rows: list[dict]) -> dict[str, float | None]:
    """The rate and norm with the most deals won; of equals the first."""
    best = max(rows, key=lambda row: row["correct"])
    return {"learning_rate": best["learning_rate"], "clone_norm": best["clone_norm"]}


def points_of(profile: str) -> list[GTRSettings]:
    """The settings of each point, lower rates first."""
    rule = read_claims()["selection"]
    usual = load_settings(profile, dataset=DATASET, arm="gtr", seed=rule["seed"], held_out=True)
    points = product(sorted(rule["learning_rates"]), rule["clone_norms"])
    return [replace(usual, learning_rate=rate, clone_norm=norm) for rate, norm in points]


def _row(settings: GTRSettings, folder: Path) -> dict:
    found = json.loads((folder / result_file(settings.method)).read_text())
    point = {"learning_rate": settings.learning_rate, "clone_norm": settings.clone_norm}
    after = {name: found["fixed_after"][name] for name in ("facts", "thought", "plan")}
    played = found["eval"]
    won = {name: played[PART][name] for name in ("n", "correct", "accuracy", "ci_low", "ci_high", "return", "length")}
    return point | won | after | {"test": played["test"]["accuracy"]}
