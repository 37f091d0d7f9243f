"""How long runs will take, by runs of their kind that were made before."""

from __future__ import annotations

import shlex
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from rftkit.common.errors import UserError
from rftkit.common.paths import LOGS
from rftkit.runs.archive import archived_runs, is_archive
from rftkit.runs.arms import TABLES, arm_runs
from rftkit.runs.folder import complete_runs, read_results, read_settings
from rftkit.settings import Settings, load_settings

Kind = Settings | tuple[str, ...]


def seconds_by_kind(out: Path) -> dict[Kind, float]:
    """How long runs of each kind took, in seconds: those made here, or the kit's archived ones."""
    here, archived = defaultdict(list), defaultdict(list)
    for folder in complete_runs(out):
        with suppress(UserError):  # a run of an earlier version
            seconds = read_results(folder).seconds
            here[kind_of(read_settings(folder))].append(seconds)
    # Archived runs have no config.yaml: they were made with the profile as it is.
    for place in filter(is_archive, sorted(LOGS.glob("*"))):
        for run in archived_runs(place):
            asked = {key: getattr(run, key) for key in ("dataset", "eval_dataset", "control", "protocol", "model")}
            with suppress(UserError):  # of a control, say, that is no more
                archived[kind_of(load_settings(run.profile, run.method, **asked))].append(run.seconds)
    for method in TABLES:
        for found, places in ((here, [out]), (archived, sorted(LOGS.glob("*")))):
            for run in arm_runs(method, places):
                found[method, *run.place].append(run.results["seconds"])
    return {kind: mean(seconds) for kind, seconds in (archived | here).items()}


def kind_of(settings: Any) -> Kind:
    """What runs of equal length share: not the seed, the curve that only a first seed has, steps that epochs make. Of
    methods beside the study's their profile, set and arm."""
    if settings.method in TABLES:
        return settings.method, settings.profile, settings.dataset, settings.arm
    steps = settings.steps if settings.epochs is None else 1
    return replace(settings, seed=0, eval_every=0, steps=steps)


def estimate(missing: list[Any], took: dict[Kind, float], profile: str, jobs: int | None) -> str:
    """A line about how long missing runs will take, and one about those of whose kind none was made before.

    Args:
        jobs: how many are made at once; None: nobody knows yet.
    """
    known = [took[kind_of(settings)] for settings in missing if kind_of(settings) in took]
    unknown = [settings for settings in missing if kind_of(settings) not in took]
    text = ""
    if known:
        part = f" for {len(known)} of {len(missing)} runs" if unknown else ""
        way = "" if jobs else ", one at a time"
        text += f"about {max(1, round(sum(known) / (jobs or 1) / 60))} minutes{part}{way}, by runs made before\n"
    if unknown:
        text += f"{len(unknown)} runs take an unknown time, as none of their kind was made before"
        own = unknown[-1].method in TABLES
        text += "\n" if own else f"; of the last: {_estimate_command(unknown[-1], profile)}\n"
    return text


def _estimate_command(settings: Settings, profile: str) -> str:
    """The `rftkit estimate` of a run."""
    names = ("dataset", "method", "model", "control", "eval_dataset", "protocol")
    flags = {"profile": profile} | {name.replace("_", "-"): getattr(settings, name) for name in names}
    return shlex.join(["rftkit", "estimate", *(f"--{name}={value}" for name, value in flags.items() if value)])
