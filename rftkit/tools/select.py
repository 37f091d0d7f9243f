"""Chooses steps and learning rate of each method by the rule in `data/claims.yaml`: held-out base items only."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from itertools import product
from pathlib import Path

import pandas as pd
import yaml
from tqdm.auto import tqdm

from rftkit.common.errors import Diverged, UserError
from rftkit.common.pool import pool
from rftkit.gtr import select as guided
from rftkit.runs.folder import CURVE, write_atomically
from rftkit.settings import METHODS, Settings, load_settings, read_claims
from rftkit.study.workers import make_run
from rftkit.tasks.registry import open_set


def select(profile: str, dataset: str, out: Path, control: str | None = None) -> str:
    """Train every method over the written grid and pick each one's best point.

    The grid, the budget and the seed are those of `selection` in `data/claims.yaml`, the same for all methods. Writes
    every point to `OUT/selection-DATASET.csv` and returns the chosen ones as the `methods` part of a profile. With a
    control, its methods with its settings and rates, `OUT/selection-DATASET-CONTROL.csv` and its part of claims.yaml.
    All points of a run that diverged have accuracy 0 and n 0, and none of them is chosen. Of `points24`, an environment
    of agents, rate and clone norm of the guided arms are chosen (`gtr.select`).
    """
    if dataset == guided.DATASET:  # an environment of agents, with a rule of its own
        return guided.select_guided(profile, out)
    data = open_set(dataset)  # a wrong name is said once, here, and so is a set with nothing held out
    data.examples("val", data.trained_parts(data.usual_protocol)[0], 1, protocol=data.usual_protocol)
    grid = _grid(profile, dataset, control)
    # A run's name does not say how it is looked at on the way: a curve of another rule would be found again.
    folder = out / "selection" / f"{grid[0].val_items}-items-every-{grid[0].eval_every}"
    folder.mkdir(parents=True, exist_ok=True)  # before the work: it may be a place where nothing can be written
    with pool(threads=1) as workers:
        waiting = [workers.submit(make_run, settings, folder) for settings in grid]
        points = [_points(settings, run) for settings, run in zip(grid, tqdm(waiting, desc="runs"), strict=True)]
    columns = ["method", "learning_rate", "step", "half", "mode", "n", "kl"]
    table = pd.concat(points)[[*columns, *dict.fromkeys(("strict", "lenient", data.rule))]]
    name = "-".join(filter(None, ("selection", data.name, control)))
    write_atomically(out / f"{name}.csv", table.to_csv(index=False))
    by_method = table[table["n"] > 0].groupby("method", sort=False)
    chosen = {method: best_point(part, data.rule) for method, part in by_method}
    if lost := [method for method in table["method"].unique() if method not in chosen]:
        raise UserError(f"every run of {', '.join(lost)} diverged: try lower learning rates, in data/claims.yaml")
    return yaml.safe_dump({"methods": chosen}, sort_keys=False, default_flow_style=None)


def _grid(profile: str, dataset: str, control: str | None) -> list[Settings]:
    rule = read_claims()["selection"]
    methods = [name for name, method in METHODS.items() if method.trainer]
    rates = rule["learning_rates"]
    if control is not None:
        changed = read_claims()["controls"].get(control, {})
        methods = list(changed.get("methods", ["sft"]))
        rates = changed.get("learning_rates", rates)
    first = load_settings(profile, methods[0], dataset=dataset, steps=rule["steps"]).model  # of several base models
    given = {"dataset": dataset, "control": control, "model": first, "seed": rule["seed"], "steps": rule["steps"]}
    given |= {"eval_every": rule["every"], "eval_kl": True, "val_items": rule["items"]}
    given |= {"test_items": 2, "pass_items": 0}  # the curve is what is looked at
    return [load_settings(profile, method, learning_rate=rate, **given) for method in methods for rate in rates]


def _points(settings: Settings, run: Future) -> pd.DataFrame:
    """The curve of a run with its method and rate; if it diverged, and a line says so, the worst there could be."""
    try:
        points = pd.read_csv(run.result() / CURVE)
    except Diverged as error:
        point = f"{settings.method} with learning rate {settings.learning_rate:g}"
        tqdm.write(f"{point} diverged and counts as the worst: {error}", file=sys.stderr)
        steps = range(settings.eval_every, settings.steps + 1, settings.eval_every)
        halves = settings.train_set.trained_parts(settings.protocol)
        points = pd.DataFrame(list(product(steps, halves)), columns=["step", "half"])
        points = points.assign(mode=METHODS[settings.method].mode, n=0, kl=float("nan"))
        points = points.assign(**dict.fromkeys(("strict", "lenient", settings.train_set.rule), 0.0))
    return points.assign(method=settings.method, learning_rate=settings.learning_rate)


def best_point(table: pd.DataFrame, rule: str = "strict") -> dict[str, float]:
    """The point with the highest accuracy on held-out base items by a rule; of equals fewest steps, lowest rate."""
    base = table[(table["half"] != "new") & (table["step"] > 0)]
    best = base.sort_values([rule, "step", "learning_rate"], ascending=[False, True, True]).iloc[0]
    return {"steps": int(best["step"]), "learning_rate": float(best["learning_rate"])}
