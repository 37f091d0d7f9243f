"""What GTR's arms come to: success on fixed deals, truth of thoughts on fixed states."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from rftkit.analysis.arms import START, Arms, Method, by_set, of_arms
from rftkit.analysis.claims import Interval, Pair
from rftkit.common.paths import BUNDLED
from rftkit.common.statistics import estimates
from rftkit.gtr.play import parts_of
from rftkit.gtr.settings import load_settings, read_claims
from rftkit.runs.arms import ArmRun

PLAYED = "success"  # measured on fixed deals; all else on fixed states
STATES = "states"  # the part that fixed states are
SHOWN = ("json", "legal", "facts", "thought", "plan", "gap", "self_bleu", "distinct")  # of `fixed.csv`


@dataclass(frozen=True)
class ArmRow:
    """An arm in an environment.

    Args:
        success: by part of the deals, 0-1, with 95 % intervals.
        before, after: means of `measures.measures` on the fixed states.
    """

    profile: str
    dataset: str
    arm: str
    runs: list[Pair]
    success: dict[str, Interval]
    returned: dict[str, float]
    length: dict[str, float]  # steps an episode
    before: dict[str, float]
    after: dict[str, float]


def arm_rows(runs: Iterable[ArmRun]) -> list[ArmRow]:
    """A row for each environment and arm; the start models first, as their cards have them."""
    rows = []
    for (profile, dataset), arms in by_set(runs, GTR).items():
        rows += [_start_row(profile, dataset, arms)]
        for arm, of_arm in arms.items():
            played = pd.concat([run.tables["episodes"] for run in of_arm]).groupby("split")
            before, after = (_means(of_arm, end) for end in (0, -1))
            success = estimates(answers(of_arm, PLAYED))
            success = {part: success[part] for part in parts_of(dataset)}
            rows.append(ArmRow(profile, dataset, arm, [run.pair for run in of_arm], success,
                               dict(played["return"].mean()), dict(played["steps"].mean()), before, after))  # fmt: skip
    return rows


def _means(runs: Sequence[ArmRun], end: int) -> dict[str, float]:
    """Means over runs of the measures on the fixed states, before the first update (0) or after the last (-1)."""
    return dict(pd.DataFrame([run.tables["fixed"].iloc[end] for run in runs])[[*SHOWN]].mean())


def _start_row(profile: str, dataset: str, arms: Arms) -> ArmRow:
    """The start models: success as the cards of bundled ones have it, thoughts as the runs found them."""
    first = next(iter(arms.values()))
    models, success = sorted({run.pair[0] for run in first}), {}
    cards = [BUNDLED / model / "zero_shot.json" for model in models]
    temperature = first[0].settings["temperature"]
    if all(card.is_file() for card in cards):
        told = [row for card in cards for row in json.loads(card.read_text())]
        told = [row for row in told if (row["dataset"], row["temperature"]) == (dataset, temperature)]
        for part in parts_of(dataset):
            won = [row["accuracy"] for row in told if row["part"] == part]
            success[part] = (sum(won) / len(won),)
    thoughts = _means(first, 0)
    return ArmRow(profile, dataset, START, [(model, -1) for model in models], success, {}, {}, thoughts, thoughts)


def answers(runs: Sequence[ArmRun], measure: str, before: bool = False) -> pd.DataFrame:
    """A row a run and deal (or fixed state): base, seed, split, id, group and correct, for `statistics.resample`.

    Deals and states of the same cards are a group.
    """
    tables = []
    for run in runs:
        if measure == PLAYED:
            table = run.tables["episodes"]
        else:
            states = run.tables["states"]
            end = states["update"].min() if before else states["update"].max()
            table = states[states["update"] == end].assign(split=STATES)
        table = table.assign(base=run.pair[0], seed=run.pair[1], correct=table[measure].astype(int))
        tables.append(table.rename(columns={"cards": "group"}))
    return pd.concat(tables)[["base", "seed", "split", "id", "group", "correct"]]


def parted(runs: Iterable[ArmRun]) -> tuple[list[ArmRun], list[ArmRun]]:
    """As `of_arms`, by the arms of the design."""
    return of_arms(runs, read_claims()["design"]["arms"])


def curves(runs: Iterable[ArmRun]) -> pd.DataFrame:
    """Means over seeds of the measures on the fixed states: dataset, arm, update, and `SHOWN`."""
    tables = [run.tables["fixed"].assign(dataset=run.place[1], arm=run.place[2]) for run in runs]
    keys = ["dataset", "arm", "update"]
    return pd.concat(tables).groupby(keys, sort=False)[[*SHOWN]].mean().reset_index()


def _decides(dataset: str, measure: str) -> str:
    """Deals of multisets trained on, where they are parted; the fixed states."""
    return parts_of(dataset)[0] if measure == PLAYED else STATES


GTR = Method(read_claims, load_settings, answers, _decides)
