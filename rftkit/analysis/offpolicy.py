"""What SOPHIA's arms come to: accuracy, what thoughts assert falsely, and how well pictures are still seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

import pandas as pd

from rftkit.analysis.arms import Method, by_set, of_arms
from rftkit.analysis.claims import Interval, Pair
from rftkit.common.statistics import estimates
from rftkit.runs.arms import ArmRun
from rftkit.sophia.examine import AFTER, BEFORE, thought_shares
from rftkit.sophia.settings import load_settings, read_claims

ACCURACY, INVENTED, WHOLE = "accuracy", "with_invented", "captions whole"  # what comparisons measure
PICTURES = "pictures"  # the part that captioned test pictures are
COLUMNS = ["base", "seed", "split", "id", "group", "correct"]
TITLES = {
    "zero_shot": "start model", "sft": "SFT on answers", "oracle": "SFT on true steps", "cls_rl": "GRPO",
    "raft": "RAFT", "sophia": "SOPHIA", "grpo": "SOPHIA+GRPO", "outcome": "no caption reward",
    "not_shortest": "not the shortest", "random": "random, right or wrong",
    "other_captions": "another model's captions", "keep_2": "Keep-2", "keep_8": "Keep-8",
    "prepended": "caption before the thought", "true_captions": "true captions", "mixed": "captions mixed in",
    "weighted": "weighted by the ratio", "text_reasoner": "text reasoner",
}  # fmt: skip


@dataclass(frozen=True)
class ArmRow:
    """An arm on a set.

    Args:
        accuracy: by the rule of the set, and part, 0-1, with 95 % intervals; last the mean, of several parts.
        unsure: share of answers that give none, or say that they cannot tell (`abstains`).
        thoughts: `examine.thought_shares` of all answers together; nothing where no thought asserts anything.
        with_invented: share of thoughts with a number or name that is not on the picture; None without thoughts.
        whole: share of test pictures that are captioned whole, before and after; nothing of sets without scenes.
        blank: of answers to blank pictures the share that gives none (`abstains`), and that is `right`.
        kept: rows that were learnt from, the mean of runs; None of the kit's own methods.
        kept_whole: share of them whose caption is the true one, the mean of runs; None without captions.
        seconds: of a run, their mean.
    """

    profile: str
    dataset: str
    arm: str
    runs: list[Pair]
    accuracy: dict[str, dict[str, Interval]]
    unsure: float
    thoughts: dict[str, float]
    with_invented: Interval | None
    whole: dict[str, Interval]
    blank: dict[str, float]
    kept: float | None
    kept_whole: float | None
    seconds: float

    @property
    def title(self) -> str:
        return TITLES.get(self.arm, self.arm)


def parted(runs: Iterable[ArmRun]) -> tuple[list[ArmRun], list[ArmRun]]:
    """As `of_arms`, by the arms of the design's parts."""
    return of_arms(runs, {arm for part in read_claims()["design"] for arm in part["arms"]})


def arm_rows(runs: Iterable[ArmRun]) -> list[ArmRow]:
    """A row for each profile, set and arm."""
    return [
        _row(profile, dataset, arm, of_arm)
        for (profile, dataset), arms in by_set(runs, SOPHIA).items()
        for arm, of_arm in arms.items()
    ]


def _row(profile: str, dataset: str, arm: str, runs: Sequence[ArmRun]) -> ArmRow:
    said = pd.concat([run.tables["predictions"] for run in runs])
    thinks = "asserted" in said and said["asserted"].sum() > 0
    seen = {when: answers(runs, WHOLE, when == BEFORE) for when in (BEFORE, AFTER)}
    kept = [run.results["rows"] for run in runs if "rows" in run.results]
    kept_whole = [flow["kept_whole"] for run in runs if (flow := run.results.get("flow"))]
    return ArmRow(
        profile,
        dataset,
        arm,
        [run.pair for run in runs],
        {runs[0].results["scoring"]: estimates(answers(runs, ACCURACY))},
        float(said["abstains"].mean()),
        thought_shares(said) if thinks else {},
        [*estimates(answers(runs, INVENTED)).values()][-1] if thinks else None,  # the mean, of several parts
        {when: estimates(table)[PICTURES] for when, table in seen.items() if len(table)},
        {name: mean(run.results["blank"][name] for run in runs) for name in ("abstains", "right")},
        mean(kept) if kept else None,
        mean(kept_whole) if kept_whole and None not in kept_whole else None,
        mean(run.results["seconds"] for run in runs),
    )


def answers(runs: Sequence[ArmRun], measure: str, before: bool = False) -> pd.DataFrame:
    """A row a run and test item (or captioned picture): base, seed, split, id, group, correct, for `resample`.

    Args:
        measure: `captions whole` before training or after it; `with_invented` and `accuracy` after it alone. No rows
            where it was not measured, as on sets without scenes.
    """
    tables = []
    for run in runs:
        if measure == WHOLE:
            table = run.tables["seen"]
            table = table[table["when"] == (BEFORE if before else AFTER)] if len(table) else table
            table = table.assign(split=PICTURES)
            correct = table.get("whole")
        else:
            table = run.tables["predictions"]
            correct = table[run.results["scoring"]] if measure == ACCURACY else _invented(table)
        if correct is not None:
            tables.append(table.assign(base=run.pair[0], seed=run.pair[1], correct=correct.astype(int))[COLUMNS])
    return pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)


def _invented(table: pd.DataFrame) -> pd.Series | None:
    return table["invented"] > 0 if "invented" in table else None


def _decides(dataset: str, measure: str) -> str | None:
    return PICTURES if measure == WHOLE else None


SOPHIA = Method(read_claims, load_settings, answers, _decides)
