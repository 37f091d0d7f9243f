"""`rftkit study`: the papermill batch. Notebooks of a profile, several seeds in one kernel, complete runs skipped."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean

from rftkit.common.errors import UserError, within
from rftkit.common.paths import LOGS
from rftkit.models import load_processor
from rftkit.report.pages import write_report
from rftkit.runs.archive import archived_runs, is_archive
from rftkit.runs.folder import complete_runs, is_complete, read_results, read_settings
from rftkit.settings import Settings, load_settings, study_seeds
from rftkit.study.chapters import Chapter, datasets_of, dealt, runs_of
from rftkit.study.workers import devices, execute_chapters


def study(
    profile: str,
    only: tuple[str, ...] | None,
    seeds: int | None,
    out: Path,
    first_seed: int = 0,
    dataset: str | None = None,
    models: Sequence[str] | None = None,
    dry_run: bool = False,
    jobs: int | None = None,
    shard: str | None = None,
    time_limit: float | None = None,
) -> int:
    """Run what is missing, report, and return 0, or 1 if a notebook failed (the others still run).

    Args:
        only: numbers of notebooks, or `all`; None: the headline, 01 to 04.
        seeds: how many; None: as many as the profile says.
        models: the models to start from, each with all seeds; None: what the profile says.
        first_seed: the lowest of them: several people's runs can be pooled if their seeds differ.
        jobs: processes at once, which share the cores; None: as many as there are GPUs; on a CPU two, or one if
            there is one core.
        shard: `i/n`: the i-th of n parts of the work, for n machines.
        time_limit: minutes after which a notebook is stopped.
    """
    began = time.perf_counter()
    count = study_seeds(profile) if seeds is None else seeds
    jobs = (len(devices()) or min(2, os.cpu_count() or 1)) if jobs is None else jobs
    _check(count, jobs, first_seed, time_limit, models)
    # Notebooks run in a folder of their own: paths are made absolute.
    bases = [str(Path(m).resolve()) if Path(m).is_dir() else m for m in dict.fromkeys(models or [])]
    plan = dealt(profile, only, range(first_seed, first_seed + count), bases, shard)
    plan = {chapter: part for chapter, part in plan.items() if datasets_of(chapter, dataset)}
    missing = {c: _missing(runs_of(c, profile, dataset, part, out)) for c, part in plan.items()}
    _announce(missing, names=dry_run)
    print(_estimate(_together(missing), profile, out, jobs), end="", flush=True)
    if dry_run:
        return 0
    todo = {chapter: runs for chapter, runs in missing.items() if runs}
    for model in {settings.model for settings in _together(todo)}:
        load_processor(model)  # one that cannot be had is refused before any notebook is started
    failed = execute_chapters(plan, todo, profile, dataset, out, jobs, time_limit)
    for chapter in failed:
        print(f"failed: {chapter.title}; its last lines stand above", file=sys.stderr)
    if len(failed) < len(plan):
        _report(out / Path(profile).stem)
        print(f"took {(time.perf_counter() - began) / 60:.1f} minutes")
    return 1 if failed else 0


def _report(runs: Path) -> None:
    text, path = write_report(runs)
    print(f"\n{text}\n\nreport: {path} and {path.with_suffix('.html').name}")


def _check(seeds: int, jobs: int, first_seed: int, time_limit: float | None, models: Sequence[str] | None) -> None:
    """Refuse options that cannot work."""
    within("--seeds", seeds, 1, 10**4)
    within("--jobs", jobs, 1, 10**3)
    within("--first-seed", first_seed, 0, 2**31)
    within("--time-limit", time_limit, 0.01, 10**4)
    if models and not all(models):
        raise UserError("--models: a name between commas is missing")


def _together(missing: dict[Chapter, dict[Path, Settings]]) -> list[Settings]:
    """The settings of missing runs, each once: chapters share some."""
    every = {folder: settings for runs in missing.values() for folder, settings in runs.items()}
    return list(every.values())


def _missing(runs: dict[Path, Settings]) -> dict[Path, Settings]:
    return {folder: settings for folder, settings in runs.items() if not is_complete(folder)}


def _announce(missing: dict[Chapter, dict[Path, Settings]], names: bool) -> None:
    for chapter, runs in missing.items():
        print(f"{chapter.title}: {f'{len(runs)} runs to do' if runs else 'complete'}")
        if names:
            print("".join(f"  {folder.name}\n" for folder in runs), end="")


def _estimate(missing: list[Settings], profile: str, out: Path, jobs: int) -> str:
    """A line about how long missing runs will take, by runs with the same settings but for the seed: those made here,
    or the kit's committed ones; and one about those of whose kind there is none."""
    took: dict[Settings, list[float]] = {}
    for folder in complete_runs(out):
        with suppress(UserError):  # a run of an earlier version
            seconds = read_results(folder).seconds
            took.setdefault(_kind(read_settings(folder)), []).append(seconds)
    kept: dict[Settings, list[float]] = {}
    # They have no config.yaml: made with the profile as it is.
    for run in (run for place in sorted(LOGS.glob("*")) if is_archive(place) for run in archived_runs(place)):
        asked = {key: getattr(run, key) for key in ("dataset", "eval_dataset", "control", "protocol", "model")}
        with suppress(UserError):  # of a control, say, that is no more
            kept.setdefault(_kind(load_settings(run.profile, run.method, **asked)), []).append(run.seconds)
    took = kept | took
    known = [mean(took[kind]) for kind in map(_kind, missing) if kind in took]
    unknown = [settings for settings in missing if _kind(settings) not in took]
    text = ""
    if known:
        part = f" for {len(known)} of {len(missing)} runs" if unknown else ""
        text += f"about {max(1, round(sum(known) / jobs / 60))} minutes{part}, by runs made before\n"
    if unknown:
        text += f"{len(unknown)} runs take an unknown time, as none of their kind was made before; of the last: "
        text += f"{_estimate_command(unknown[-1], profile)}\n"
    return text


def _estimate_command(settings: Settings, profile: str) -> str:
    """The `rftkit estimate` of a run."""
    names = {"dataset": settings.dataset, "method": settings.method, "model": settings.model}
    names |= {name: value for name in ("control", "eval_dataset") if (value := getattr(settings, name))}
    names |= {} if settings.protocol == Settings.protocol else {"protocol": settings.protocol}
    return shlex.join(
        ["rftkit", "estimate", "--profile", profile, *(f"--{k.replace('_', '-')}={v}" for k, v in names.items())]
    )


def _kind(settings: Settings) -> Settings:
    """What runs of equal length share: not the seed, the curve that only a first seed has, steps that epochs make."""
    steps = settings.steps if settings.epochs is None else 1
    return replace(settings, seed=0, eval_every=0, steps=steps)
