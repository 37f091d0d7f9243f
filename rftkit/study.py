"""`rftkit study`: the papermill batch. Notebooks of a profile, several seeds in one kernel, complete runs skipped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rftkit.errors import UserError
from rftkit.paths import NOTEBOOKS
from rftkit.report import write_report
from rftkit.results import is_complete
from rftkit.run import folder_of
from rftkit.settings import METHODS, load_profile, load_settings


@dataclass(frozen=True)
class Chapter:
    """A notebook of the study and the methods it runs."""

    notebook: str
    methods: tuple[str, ...]

    @property
    def number(self) -> str:
        return self.notebook[:2]


CHAPTERS = (
    Chapter("01_sft_baseline", ("zero_shot", "sft", "sft_all")),
    Chapter("02_cls_rl", ("cls_rl",)),
    Chapter("03_no_thinking_rl", ("no_thinking_rl",)),
    Chapter("04_think_after_answer", ("think_after_answer",)),
)


def chapters(only: tuple[str, ...] | None) -> list[Chapter]:
    """The chapters with these numbers, in order; all of them if None."""
    numbers = {chapter.number: chapter for chapter in CHAPTERS}
    unknown = [number for number in only or () if number not in numbers]
    if unknown:
        raise UserError(f"--only: no notebook {', '.join(unknown)} in the study; there are {', '.join(numbers)}")
    return [chapter for number, chapter in numbers.items() if only is None or number in only]


def missing_runs(chapter: Chapter, profile: str, dataset: str | None, seeds: list[int], out: Path) -> list[str]:
    """Names of the chapter's runs that are not complete. A zero-shot run has one seed: nothing is drawn."""
    missing = []
    for method in chapter.methods:
        for seed in seeds if METHODS[method].trainer else seeds[:1]:
            folder = folder_of(load_settings(profile, method, dataset=dataset, seed=seed), out)
            if not is_complete(folder):
                missing.append(folder.name)
    return missing


def study(
    profile: str,
    only: tuple[str, ...] | None,
    seeds: int | None,
    out: Path,
    dataset: str | None = None,
    dry_run: bool = False,
) -> int:
    """Run what is missing, report, and return 0, or 1 if a notebook failed (the others still run)."""
    wanted = load_profile(profile).get("study", {})
    count = wanted.get("seeds", 1) if seeds is None else seeds
    if count < 1:
        raise UserError("--seeds must be at least 1")
    plan = [(c, missing_runs(c, profile, dataset, list(range(count)), out)) for c in chapters(only)]
    for chapter, missing in plan:
        print(f"{chapter.notebook}: {f'{len(missing)} runs to do' if missing else 'complete'}", flush=True)
        if dry_run:
            print("".join(f"  {name}\n" for name in missing), end="")
    if dry_run:
        return 0
    todo = [chapter for chapter, missing in plan if missing]
    failed = [chapter for chapter in todo if not execute_chapter(chapter, profile, dataset, count, out)]
    text, path = write_report(out / Path(profile).stem)
    print(f"\n{text}\n\nreport: {path}")
    for chapter in failed:
        print(f"failed: {chapter.notebook}; its last lines stand above", file=sys.stderr)
    return 1 if failed else 0


def execute_chapter(chapter: Chapter, profile: str, dataset: str | None, seeds: int, out: Path) -> bool:
    """Run a notebook through papermill in a process of its own; the executed copy is kept beside the runs."""
    executed = out / Path(profile).stem / "notebooks" / f"{chapter.notebook}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    parameters = {"profile": profile, "seeds": list(range(seeds)), "out": str(out.resolve())}
    if dataset is not None:
        parameters["dataset"] = dataset
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS / f"{chapter.notebook}.ipynb"), str(executed)]
    command += ["--kernel", "python3", "--cwd", str(NOTEBOOKS), "--log-output", "--no-progress-bar"]
    for name, value in parameters.items():
        command += ["-y", f"{name}: {value}"]
    print(f"{chapter.notebook}: started", flush=True)
    began = time.perf_counter()
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = time.perf_counter() - began
    if finished.returncode:
        print("\n".join(finished.stdout.splitlines()[-30:]), file=sys.stderr)
    state = "failed" if finished.returncode else "done"
    print(f"{chapter.notebook}: {state} after {seconds:.0f} s, see {executed}", flush=True)
    return finished.returncode == 0
