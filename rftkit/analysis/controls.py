"""What a sceptic asks of a study: does a control do as well, was it known before, what did new classes pay?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rftkit.analysis.claims import cell, compared, paired
from rftkit.report.tables import measured
from rftkit.runs.folder import answers_of
from rftkit.settings import METHODS, read_claims
from rftkit.tasks.example import TASK_RULES

Runs = dict[str, list[dict[str, Any]]]  # results by method, or METHOD+CONTROL, as of `sections.load_runs`


def control_differences(methods: Runs) -> list[dict[str, Any]]:
    """A row for each control whose method has runs of the same bases and seeds, paired by seed and item.

    `differences` are by part, and H or mean: (mean of control minus method, low, high) of accuracy by the task's rule,
    0-1, with a 95 % interval.
    """
    rows = []
    for key in methods:
        method, _, control = key.partition("+")
        if control and (found := paired(methods[key], methods.get(method, []), *[METHODS[method].mode] * 2)):
            (runs, _, _), *_ = found.values()
            differences = {measure: cell(draws) for measure, draws in found.items()}
            rows.append({"method": method, "control": control, "runs": runs, "differences": differences})
    return rows


def claims_with_controls(methods: Runs) -> list[dict[str, Any]]:
    """The primary comparisons (`claims.decide`) with each control in place of the methods that it changes.

    A row for each claim that a control changes: `claim`, `measure` and `differences`, by control, and None for the
    methods as they are: (mean, low, high), 0-1, with a 95 % interval. A method that a control leaves alone stays;
    `mixed` are the controls that only one of two trained methods has.
    """
    rows = []
    for claim in read_claims()["primary"]:
        sides, differences, mixed = (claim["first"], claim["second"]), {}, set()
        trained = sum(METHODS[side].trainer is not None for side in sides)
        for control in [None, *dict.fromkeys(key.partition("+")[2] for key in methods if "+" in key)]:
            changed = {side: methods[f"{side}+{control}"] for side in sides if f"{side}+{control}" in methods}
            found = compared(claim, methods | changed) if changed or control is None else {}
            if claim["measure"] in found:
                differences[control] = cell(found[claim["measure"]])
                mixed |= {control} if control and len(changed) < trained else set()
        if set(differences) > {None}:
            row = {"claim": claim["name"], "measure": claim["measure"]}
            rows.append(row | {"differences": differences, "mixed": mixed})
    return rows


def elicitation_rows(methods: Runs) -> list[dict[str, Any]]:
    """Where a trained method's gain over zero-shot comes from, by part; empty without a zero-shot run.

    `said`, `passed` and `knows` are (before, after) training: accuracy in its mode by its task's rule, any of eight
    samples right (on fewer items), and accuracy by likelihood. `gain` is that in `said`; `gain_known` and
    `gain_unknown` add up to it: what came from test items whose answer the untrained model already found likeliest
    (elicited), and from the others (learnt). All 0-1; each run beside its own base model. `passed` is None where
    nothing was sampled; without choices `knows` is, and `gain` is not divided.
    """
    if not methods.get("zero_shot"):
        return []
    rows, place = [], ["base", "split", "id"]
    before = _answers(methods["zero_shot"]).drop_duplicates([*place, "mode"])
    rule = TASK_RULES[methods["zero_shot"][0]["task"]]
    knew = before[before["mode"] == "no_thinking"].set_index(place).get("likelihood")
    for key, runs in methods.items():
        method = METHODS[key.partition("+")[0]]
        if method.trainer is None:
            continue
        after = _answers(runs)
        after = after[after["base"].isin(before["base"])]
        said_before = before[before["mode"] == method.mode].set_index(place)[rule]
        own = after[after["mode"] == method.mode].set_index(place)[rule]
        if own.empty or not set(own.index) <= set(said_before.index):
            continue  # the untrained model was not asked this, or not in this mode
        untrained = {run["model"]: run for run in methods["zero_shot"]}
        compared_runs = [run for run in runs if run["model"] in untrained]
        both = [untrained[run["model"]] for run in compared_runs], compared_runs
        for split, part in own.groupby("split", sort=False):
            gain = part - said_before.loc[part.index].to_numpy()
            passed = tuple(measured(of, split, "pass@8", method.mode) for of in both)
            row = {"method": key, "split": split, "said": (float((part - gain).mean()), float(part.mean()))}
            row |= {"passed": None if None in passed else passed, "knows": None, "gain": float(gain.mean())}
            if knew is not None:
                known = (knew.loc[part.index] == 1).to_numpy()
                knows = after[(after["mode"] == "no_thinking") & (after["split"] == split)]["likelihood"]
                row |= {"knows": (float(known.mean()), float(knows.mean()))}
                row |= {"gain_known": float(gain[known].sum() / len(gain))}
                row |= {"gain_unknown": float(gain[~known].sum() / len(gain))}
            rows.append(row)
    return rows


def _answers(runs: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.concat([answers_of(run).assign(base=run["model"]) for run in runs])


def front(points: pd.DataFrame) -> pd.DataFrame:
    """Of points with `base` and `new` accuracy those that no other point beats on both, by rising `base`."""
    ordered = points.sort_values(["base", "new"], ascending=False)
    best = np.maximum.accumulate(np.concatenate([[-np.inf], ordered["new"].to_numpy()]))[:-1]
    return ordered[ordered["new"].to_numpy() > best].iloc[::-1]


def selection_points(table: pd.DataFrame, rule: str = "strict") -> pd.DataFrame:
    """The points of a selection (`rftkit select`): a row for each method, rate and step with `base`, `new` and `kl`.

    `kl` is the forward KL from the base model on base items (nats a completion).
    """
    place = ["method", "learning_rate", "step"]
    halves = table.pivot(index=place, columns="half", values=rule)
    kl = table[table["half"] == "base"].set_index(place)["kl"]
    return halves.assign(kl=kl).reset_index()
