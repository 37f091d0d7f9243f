"""Arms of the methods beside the study's (GTR, SOPHIA): which runs count, and verdicts by rules written before them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from rftkit.analysis.claims import Comparison, Difference, correct
from rftkit.common.errors import UserError
from rftkit.common.statistics import resample
from rftkit.runs.arms import ArmRun
from rftkit.runs.collect import SMOKE
from rftkit.runs.fingerprint import MACHINE

START = "start"  # the start model, as an arm: a run before its first update
Arms = dict[str, list[ArmRun]]


@dataclass(frozen=True)
class Method:
    """What is asked of a method.

    Args:
        claims: its `profiles`, `arms`, `design` and `comparisons`.
        settings: of a run, by profile, set, arm and seed.
        answers: of runs, a measure and whether it is taken before the first update: a row a run and item, with base,
            seed, split, id, group and correct, for `statistics.resample`; no rows of what was not measured.
        decides: the part that decides a comparison, by set and measure; the others stand beside it. None: the last one,
            which is the mean of several.
    """

    claims: Callable[[], dict[str, Any]]
    settings: Callable[..., Any]
    answers: Callable[[Sequence[ArmRun], str, bool], pd.DataFrame]
    decides: Callable[[str, str], str | None]


def as_designed(runs: Iterable[ArmRun], method: Method) -> list[ArmRun]:
    """The runs with the settings that are written for their arm, each seed's last."""
    found, same = {}, dict.fromkeys(MACHINE)  # how the machine was used does not count
    for run in runs:
        profile, dataset, arm = run.place
        try:
            usual = asdict(method.settings(profile, dataset=dataset, arm=arm, seed=run.settings["seed"]))
        except UserError:  # a profile or an arm that is no more
            continue
        if arm and usual | same == run.settings | same:
            found[run.place, run.pair] = run
    return list(found.values())


def of_arms(runs: Iterable[ArmRun], arms: Container[str]) -> tuple[list[ArmRun], list[ArmRun]]:
    """Runs of a study's `arms`, and those of others, which are made beside it and decide nothing."""
    found: tuple[list[ArmRun], list[ArmRun]] = ([], [])
    for run in runs:
        found[run.place[2] not in arms].append(run)
    return found


def by_set(runs: Iterable[ArmRun], method: Method) -> dict[tuple[str, str], Arms]:
    """Runs by profile and set, and arm, in the order of the arms."""
    arms, found = list(method.claims()["arms"]), defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: (run.place[:2], arms.index(run.place[2]), run.pair)):
        profile, dataset, arm = run.place
        found[profile, dataset][arm].append(run)
    return {place: dict(of_arm) for place, of_arm in found.items()}


def verdict_rows(runs: Iterable[ArmRun], method: Method) -> list[Comparison]:
    """A row for each comparison and set whose arms have seeds in common, corrected over all of them.

    No row of smoke runs.
    """
    rows, verdicts = [], []
    for (profile, dataset), arms in by_set(runs, method).items():
        for claim in method.claims()["comparisons"] if profile != SMOKE else ():
            if found := differences(claim, arms, method):
                part = method.decides(dataset, claim["measure"]) or list(found)[-1]
                row = Comparison.of(found[part], claim=claim["name"], place=dataset, profile=profile)
                row.dataset, row.measure = dataset, claim["measure"]
                row.beside = {other: one.interval for other, one in found.items() if other not in (part, "mean")}
                rows.append(row)
                verdicts.append(("same direction", "opposite"))
    correct(rows, verdicts)
    return rows


def differences(claim: dict[str, Any], arms: Arms, method: Method) -> dict[str, Difference]:
    """The difference of two arms by part, paired by start model, seed and item; nothing if one is missing."""
    sides = claim["first"], claim["second"]
    of_sides = [arms.get(next(name for name in (side, *sides) if name != START), []) for side in sides]
    both = sorted({run.pair for run in of_sides[0]} & {run.pair for run in of_sides[1]})
    if not both:
        return {}
    tables = [
        method.answers([run for run in of if run.pair in both], claim["measure"], side == START)
        for side, of in zip(sides, of_sides, strict=True)
    ]
    if any(table.empty for table in tables):
        return {}
    first, second = map(resample, tables)
    return {
        part: Difference(both, mean - second[part][0], draws - second[part][1]) for part, (mean, draws) in first.items()
    }
