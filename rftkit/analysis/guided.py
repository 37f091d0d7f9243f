"""What GTR's arms come to: success on fixed deals, truth of thoughts on fixed states, and the verdicts of
`data/gtr.yaml`, which was written before the first run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from rftkit.analysis.claims import Comparison, Difference, Interval, Pair, correct
from rftkit.common.errors import UserError
from rftkit.common.paths import BUNDLED
from rftkit.common.statistics import estimates, resample
from rftkit.gtr.play import parts_of
from rftkit.gtr.settings import load_settings, read_claims
from rftkit.runs.arms import ArmRun
from rftkit.runs.collect import SMOKE

START = "start"  # the start model, as an arm
PLAYED = "success"  # measured on fixed deals; all else on fixed states
SHOWN = ("json", "legal", "facts", "thought", "plan", "gap", "self_bleu", "distinct")  # of `fixed.csv`
Arms = dict[str, list[ArmRun]]


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


def as_designed(runs: Iterable[ArmRun]) -> list[ArmRun]:
    """The runs with the settings that `data/gtr.yaml` gives their arm, each seed's last."""
    found = {}
    for run in runs:
        profile, dataset, arm = run.place
        try:
            usual = asdict(load_settings(profile, dataset=dataset, arm=arm, seed=run.settings["seed"]))
        except UserError:  # a profile or an arm that is no more
            continue
        if arm and usual | {"device": None} == run.settings | {"device": None}:
            found[run.place, run.pair] = run
    return list(found.values())


def by_environment(runs: Iterable[ArmRun]) -> dict[tuple[str, str], Arms]:
    """Runs by profile and environment, and arm, in the order of the design."""
    claims, found = read_claims(), defaultdict(lambda: defaultdict(list))
    arms, names = list(claims["arms"]), claims["design"]["datasets"]
    for run in sorted(runs, key=lambda run: (names.index(run.place[1]), arms.index(run.place[2]), run.pair)):
        profile, dataset, arm = run.place
        found[profile, dataset][arm].append(run)
    return {place: dict(of_arm) for place, of_arm in found.items()}


def arm_rows(runs: Iterable[ArmRun]) -> list[ArmRow]:
    """A row for each environment and arm; the start models first, as their cards have them."""
    rows = []
    for (profile, dataset), arms in by_environment(runs).items():
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
            table = states[states["update"] == end].assign(split="states")
        table = table.assign(base=run.pair[0], seed=run.pair[1], correct=table[measure].astype(int))
        tables.append(table.rename(columns={"cards": "group"}))
    return pd.concat(tables)[["base", "seed", "split", "id", "group", "correct"]]


def verdict_rows(runs: Iterable[ArmRun]) -> list[Comparison]:
    """A row for each comparison and environment whose arms have seeds in common, corrected over all of them.

    On Points24 deals of multisets trained on decide; the others are `beside`. No row of smoke runs.
    """
    rows, verdicts = [], []
    for (profile, dataset), arms in by_environment(runs).items():
        for claim in read_claims()["comparisons"] if profile != SMOKE else ():
            if not (found := _differences(claim, arms)):
                continue
            decides = parts_of(dataset)[0] if claim["measure"] == PLAYED else "states"
            row = Comparison.of(found[decides], claim=claim["name"], place=dataset, profile=profile)
            row.dataset, row.measure = dataset, claim["measure"]
            beside = (part for part in parts_of(dataset) if part != decides and part in found)
            row.beside = {part: found[part].interval for part in beside}
            rows.append(row)
            verdicts.append(("same direction", "opposite"))
    correct(rows, verdicts)
    return rows


def _differences(claim: dict[str, Any], arms: Arms) -> dict[str, Difference]:
    """The difference of two arms by part, paired by start model, seed and deal or state; nothing if one is missing.

    The start model is the other arm's run before its first update.
    """
    sides = claim["first"], claim["second"]
    of_sides = [arms.get(next(name for name in (side, *sides) if name != START), []) for side in sides]
    both = sorted({run.pair for run in of_sides[0]} & {run.pair for run in of_sides[1]})
    if not both:
        return {}
    first, second = (
        resample(answers([run for run in of if run.pair in both], claim["measure"], before=side == START))
        for side, of in zip(sides, of_sides, strict=True)
    )
    return {
        part: Difference(both, mean - second[part][0], draws - second[part][1]) for part, (mean, draws) in first.items()
    }


def curves(runs: Iterable[ArmRun]) -> pd.DataFrame:
    """Means over seeds of the measures on the fixed states: dataset, arm, update, and `SHOWN`."""
    tables = [run.tables["fixed"].assign(dataset=run.place[1], arm=run.place[2]) for run in runs]
    keys = ["dataset", "arm", "update"]
    return pd.concat(tables).groupby(keys, sort=False)[[*SHOWN]].mean().reset_index()
