"""What a sceptic asks of a study: does a control do as well, was it known before, what did new classes pay?"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from rftkit.analysis.claims import Comparison, Interval, compared
from rftkit.analysis.methods import measured
from rftkit.common.statistics import harmonic_mean
from rftkit.runs.collect import Methods
from rftkit.runs.folder import answers_of
from rftkit.runs.results import Run
from rftkit.settings import METHODS, read_claims
from rftkit.tasks.example import TASK_RULES

PLACE = ["base", "split", "id"]  # of an answer: start model, part, test item


@dataclass(frozen=True)
class ControlledClaim:
    """A primary comparison, with controls in place of the methods that they change."""

    claim: str
    measure: str
    differences: dict[str | None, Interval]  # by control; None: the methods as they are
    mixed: set[str] = field(default_factory=set)  # controls that only one of two trained methods has


@dataclass(kw_only=True)
class Elicitation:
    """Where a trained method's gain over its start models comes from, on one part; shares are 0-1.

    `said`, `passed` and `knows` are before and after training. `gain_known` and `gain_unknown` add up to `gain`: what
    came from items whose answer the untrained model already found likeliest (elicited), and from the others (learnt).
    """

    label: str
    part: str
    said: tuple[float, float]  # accuracy in its mode by its task's rule
    passed: tuple[float, float] | None  # any of eight samples right, on fewer items; None where nothing was sampled
    knows: tuple[float, float] | None = None  # accuracy by likelihood; None without choices, as what follows from it
    gain: float  # in what is said
    gain_known: float | None = None
    gain_unknown: float | None = None


def control_differences(methods: Methods) -> list[Comparison]:
    """METHOD+CONTROL minus its method, uncorrected, by part, and H or mean: a row for each that has runs of the same
    start models and seeds."""
    rows = []
    for label, runs in methods.items():
        # An untrained model says the same whatever it would be trained on.
        counts = bool(runs and runs[0].control and not runs[0].changed and METHODS[runs[0].method].trainer)
        if counts and (found := compared({"first": label, "second": runs[0].method}, methods)):
            *_, measure = found
            beside = {measure: difference.interval for measure, difference in found.items()}
            rows.append(Comparison.of(found[measure], claim=label, measure=measure, beside=beside))
    return rows


def claims_with_controls(methods: Methods) -> list[ControlledClaim]:
    """A row for each primary comparison that a control changes; a method that it leaves alone stays as it is."""
    controls = dict.fromkeys(runs[0].control for runs in methods.values() if runs and runs[0].control)
    rows = []
    for claim in read_claims()["primary"]:
        row = ControlledClaim(claim["name"], claim["measure"], {})
        sides = claim["first"], claim["second"]
        for control in (None, *controls):
            changed = {side: methods[f"{side}+{control}"] for side in sides if f"{side}+{control}" in methods}
            found = compared(claim, methods | changed) if changed or control is None else {}
            if row.measure in found:
                row.differences[control] = found[row.measure].interval
                trained = [side for side in sides if METHODS[side].trainer]
                if control and len(changed) < len(trained):
                    row.mixed.add(control)
        if set(row.differences) > {None}:
            rows.append(row)
    return rows


def elicitation_rows(methods: Methods) -> list[Elicitation]:
    """A row for each trained method and part; none without a zero-shot run."""
    untrained = {run.model: run for run in methods.get("zero_shot", [])}
    rows = []
    for runs in methods.values():
        beside = [run for run in runs if run.model in untrained and METHODS[run.method].trainer]
        if beside:
            rows += _elicited(beside, untrained)
    return rows


def _elicited(runs: list[Run], untrained: dict[str, Run]) -> list[Elicitation]:
    """The rows of a method; none if its start models were not asked this, or not in its mode."""
    rule, mode = TASK_RULES[runs[0].task], runs[0].mode
    before, after = _answers(list(untrained.values())), _answers(runs)
    own = after.loc[after["mode"] == mode, rule].rename("after").to_frame()
    own = own.join(before.loc[before["mode"] == mode, rule].rename("before"))
    if own.empty or own["before"].isna().any():
        return []
    if "likelihood" in before:
        likely = before.loc[before["mode"] == "no_thinking", "likelihood"] == 1
        own = own.join(likely.rename("known"))  # found likeliest before training
    rows = []
    for part, answers in own.groupby("split", sort=False):
        beside = [untrained[run.model] for run in runs]
        passed = measured(beside, part, "pass@8", mode), measured(runs, part, "pass@8", mode)
        gain = answers["after"] - answers["before"]
        row = Elicitation(
            label=runs[0].label,
            part=part,
            said=(float(answers["before"].mean()), float(answers["after"].mean())),
            passed=None if None in passed else passed,
            gain=float(gain.mean()),
        )
        if "known" in answers:
            knows = after.loc[after["mode"] == "no_thinking", "likelihood"].xs(part, level="split")
            row.knows = (float(answers["known"].mean()), float(knows.mean()))
            row.gain_known = float(gain[answers["known"]].sum() / len(gain))
            row.gain_unknown = float(gain[~answers["known"]].sum() / len(gain))
        rows.append(row)
    return rows


def _answers(runs: list[Run]) -> pd.DataFrame:
    """The answers of runs by PLACE."""
    return pd.concat([answers_of(run).assign(base=run.model) for run in runs]).set_index(PLACE)


def front(points: pd.DataFrame) -> pd.DataFrame:
    """Of points with `base` and `new` accuracy those that no other point beats on both, by rising `base`."""
    ordered = points.sort_values(["base", "new"], ascending=False)
    best_before = ordered["new"].cummax().shift(fill_value=-1.0)
    return ordered[ordered["new"] > best_before].iloc[::-1]


def selection_points(table: pd.DataFrame) -> pd.DataFrame:
    """The points of a selection (`rftkit select`): a row for each method, rate and step with `base`, `new` and `kl`.

    `kl` is the forward KL from the base model on base items (nats a completion).
    """
    place = ["method", "learning_rate", "step"]
    halves = table.pivot(index=place, columns="half", values="strict")
    kl = table[table["half"] == "base"].set_index(place)["kl"]
    return halves.assign(kl=kl).reset_index()


def best_points(points: pd.DataFrame) -> pd.DataFrame:
    """Of each method the trained point (`selection_points`) with the highest H, if one could look at new classes."""
    trained = points[points["step"] > 0]
    h = [harmonic_mean(*pair) for pair in zip(trained["base"], trained["new"], strict=True)]
    with_h = trained.assign(H=h)
    return with_h.loc[with_h.groupby("method", sort=False)["H"].idxmax()]


def distance_and_forgetting(points: pd.DataFrame) -> pd.Series:
    """The rank correlation of KL and accuracy on new classes over each method's trained points (-1..1)."""
    trained = points[points["step"] > 0]
    found = {m: part["kl"].rank().corr(part["new"].rank()) for m, part in trained.groupby("method", sort=False)}
    return pd.Series(found, name="rank correlation of KL and new").rename_axis("method")
