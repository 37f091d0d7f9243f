"""`rftkit study`: missing runs in one pool of processes, then their notebooks through papermill, then the report."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from rftkit.analysis.methods import title_of
from rftkit.common.errors import UserError, within
from rftkit.models import load_processor
from rftkit.report.pages import write_report
from rftkit.runs.collect import PROTOCOL_TITLES
from rftkit.runs.durations import estimate, kind_of, seconds_by_kind
from rftkit.runs.folder import data_title, is_complete, write_atomically
from rftkit.settings import MOST, Settings, load_profile, whose_turn
from rftkit.study.chapters import Part, dealt, parts_of
from rftkit.study.elsewhere import there
from rftkit.study.workers import devices, execute_notebooks, here, make_runs


def study(
    profile: str,
    *,
    out: Path,
    only: tuple[str, ...] | None = None,
    seeds: int | None = None,
    first_seed: int = 0,
    dataset: str | None = None,
    models: Sequence[str] | None = None,
    test_items: int | None = None,
    dry_run: bool = False,
    jobs: int | None = None,
    ray: str | None = None,
    shard: str | None = None,
    time_limit: float | None = None,
) -> int:
    """Make what is missing, report, and return 0, or 1 if a run or a notebook failed (the others are still made).

    The arguments are the flags of `rftkit study` (`cli.FLAGS`). Without `jobs` there are as many processes as GPUs; on
    a CPU two, or one if there is one core. Without `seeds` and `models` the profile says which.
    """
    began = time.perf_counter()
    profile = profile if test_items is None else _asking(profile, test_items, out)
    jobs = (len(devices()) or min(2, os.cpu_count() or 1)) if jobs is None else jobs
    _check(seeds, jobs, first_seed, time_limit, models)
    named = range(first_seed, first_seed + seeds) if seeds else None
    plan = dealt(profile, only, named, models or [], shard, first_seed)
    parts = parts_of(plan, profile, dataset, out)
    took = seconds_by_kind(out)
    missing = _longest_first(parts, took)
    _announce(parts, names=dry_run)
    print(estimate(list(missing.values()), took, profile, None if ray else jobs), end="", flush=True)
    if dry_run:
        return 0
    for model in {settings.model for settings in missing.values()}:
        load_processor(model)  # one that cannot be had is refused before any work is started
    (out / Path(profile).stem).mkdir(parents=True, exist_ok=True)  # before the work: nothing may be writable there
    todo = [part for part in parts if part.missing() or not part.executed.exists()]
    with there(ray, profile, missing, out, time_limit) if ray and missing else here(jobs, out, time_limit) as hand_over:
        make_runs(missing, _series(parts), hand_over)
    failed = {part: f"runs not made: {len(part.missing())}" for part in todo if part.missing()}
    shown = execute_notebooks([part for part in todo if part not in failed], jobs, time_limit)
    failed |= dict.fromkeys(shown, "its last lines stand above")
    for part, why in failed.items():
        print(f"failed: {part.chapter.title}; {why}", file=sys.stderr)
    if any(map(is_complete, _together(parts))):
        text, path = write_report(out / Path(profile).stem)
        print(f"\n{text}\n\nreport: {path} and {path.with_suffix('.html').name}")
        print(f"took {(time.perf_counter() - began) / 60:.1f} minutes")
    return 1 if failed else 0


def _asking(profile: str, test_items: int, out: Path) -> str:
    """The path of a copy of a profile with so many test items a part, for runs and notebooks alike."""
    within("--test-items", test_items, 1, MOST)
    content = load_profile(profile) | {"test_items": test_items}
    models = content.get("model", Settings.model)
    content["model"] = [whose_turn(model, 0, profile) for model in (models if isinstance(models, list) else [models])]
    path = out / Path(profile).stem / f"{Path(profile).stem}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, yaml.safe_dump(content))
    return str(path)


def _check(
    seeds: int | None, jobs: int, first_seed: int, time_limit: float | None, models: Sequence[str] | None
) -> None:
    """Refuse options that cannot work."""
    within("--seeds", seeds, 1, 10**4)
    within("--jobs", jobs, 1, 10**3)
    within("--first-seed", first_seed, 0, 2**31)
    within("--time-limit", time_limit, 0.01, 10**4)
    if models and not all(models):
        raise UserError("--models: a name between commas is missing")


def _together(parts: Iterable[Part]) -> dict[Path, Any]:
    """The runs of all parts, each once; where parts share one and only some look at its curve, it has one."""
    every = [run for part in parts for run in part.runs.items()]
    return dict(sorted(every, key=lambda run: getattr(run[1], "eval_every", 0)))  # the last of equal folders stays


def _longest_first(parts: Iterable[Part], took: dict[Any, float]) -> dict[Path, Any]:
    """The missing runs, so that none is left to the end that keeps one process busy alone; unknown ones at first."""
    missing = [run for run in _together(parts).items() if not is_complete(run[0])]
    return dict(sorted(missing, key=lambda run: -took.get(kind_of(run[1]), math.inf)))


def _series(parts: Iterable[Part]) -> dict[str, set[Path]]:
    """The runs of each method on each set by a title; those of a chapter with a model of its own stand apart."""
    found = defaultdict(set)
    for part in parts:
        for folder, settings in part.runs.items():
            if part.chapter.own:
                found[f"{settings.profile}, {settings.dataset}, {settings.method}, arm {settings.arm}"].add(folder)
                continue
            data = data_title(settings.dataset, settings.eval_dataset) + PROTOCOL_TITLES[settings.protocol]
            method = title_of("+".join(filter(None, (settings.method, settings.control))))
            model = part.chapter.model_title or part.chapter.model
            found[", ".join(filter(None, (data, model, method)))].add(folder)
    return found


def _announce(parts: Iterable[Part], names: bool) -> None:
    told: set[Path] = set()  # notebooks share runs
    for part in parts:
        missing = [folder for folder in part.missing() if folder not in told]
        told.update(missing)
        rest = "complete" if part.executed.exists() else "no other runs to do, notebook to execute"
        print(f"{part.chapter.title}: {f'{len(missing)} runs to do' if missing else rest}")
        if names:
            print("".join(f"  {folder.name}\n" for folder in missing), end="")
