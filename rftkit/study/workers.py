"""The processes of a study: workers that make its runs, each once, and then execute its notebooks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tqdm.auto import tqdm

from rftkit.common.errors import UserError, said
from rftkit.common.paths import NOTEBOOKS
from rftkit.common.pool import attempt, end_children, pool
from rftkit.common.progress import ticking
from rftkit.gtr.run import execute as execute_gtr
from rftkit.models import quieten
from rftkit.run import execute, folder_of
from rftkit.runs.beside import accuracies, arm_folder
from rftkit.runs.folder import is_complete, write_run
from rftkit.sophia.run import execute as execute_sophia
from rftkit.study import notebooks
from rftkit.study.chapters import Part

# Of a process when it starts. glibc hands a large tensor's memory back to the system at once and asks for it anew,
# which takes long on a CPU.
ENVIRONMENT = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**32))
ENVIRONMENT["TOKENIZERS_PARALLELISM"] = "false"
MAKERS = {"gtr": execute_gtr, "sophia": execute_sophia}  # of methods with settings of their own
HandOver = Callable[[Path, Any], Future]  # a run, and its folder; the future has what went wrong, None or files


def devices() -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them; none on a CPU."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


@contextmanager
def processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """So many processes, which share the cores and have a GPU each, or one together where GPUs are fewer."""
    os.environ.update(ENVIRONMENT | os.environ)
    with pool(jobs, max(1, (os.cpu_count() or 1) // jobs), devices()) as workers:
        yield workers


def place_of(settings: Any, out: Path) -> Path:
    """The folder of a run, whatever its method."""
    return (arm_folder if settings.method in MAKERS else folder_of)(settings, out)


def make_run(settings: Any, out: Path) -> Path:
    """What a worker does. It keeps what it has loaded from run to run."""
    quieten()
    return MAKERS.get(settings.method, execute)(settings, out)


@contextmanager
def here(jobs: int, out: Path, minutes: float | None) -> Iterator[HandOver]:
    """Processes that make runs (`make_runs`), each stopped after so many minutes."""
    with processes(jobs) as workers:
        yield lambda folder, settings: workers.submit(attempt, make_run, settings, out, minutes=minutes)


def make_runs(todo: dict[Path, Any], series: dict[str, set[Path]], hand_over: HandOver) -> None:
    """Make runs in this order; say what fails, and the accuracy of each series whose last missing run is done.

    `series` has the runs of a method on a set, by a title.
    """
    waiting = set(todo)
    for folder, made in _done({hand_over(*run): run[0] for run in todo.items()}, "runs"):
        waiting.remove(folder)
        if isinstance(made, dict):
            write_run(folder, made)
        elif made:
            tqdm.write(f"{folder.name} failed{made}", file=sys.stderr)
        for title, folders in series.items():
            if folder in folders and folders.isdisjoint(waiting):
                _tell(title, folders)


def _done(work: dict[Future, Any], what: str) -> Iterator[tuple[Any, Any]]:
    """What was handed over and what its future has, when it is done; with a bar."""
    with ticking(total=len(work), desc=what, disable=not work) as bar:
        for future in as_completed(work):
            bar.update()
            error = future.exception()
            if isinstance(error, BrokenExecutor):
                raise error
            yield work.pop(future), f": {said(error)}" if error else future.result()  # files are kept no longer


def _tell(title: str, folders: set[Path]) -> None:
    """Say the mean accuracy of complete runs by part."""
    with suppress(UserError):  # the report names a run that cannot be read
        made = [accuracies(folder) for folder in sorted(folders) if is_complete(folder)]
        if made:
            means = (f"{part} {100 * mean(run[part] for run in made):.1f} %" for part in made[0])
            tqdm.write(f"{title}: {', '.join(means)} (runs: {len(made)})")


def execute_notebooks(parts: list[Part], jobs: int, minutes: float | None) -> list[Part]:
    """Execute notebooks whose runs are complete, and keep what they show beside these; return those that failed."""
    failed = []
    with processes(jobs) as workers:
        work = {}
        for part in parts:
            job = (notebooks.execute, NOTEBOOKS / f"{part.chapter.notebook}.ipynb", part.parameters, part.executed)
            work[workers.submit(attempt, *job, stop=end_children, minutes=minutes)] = part
        for part, problem in _done(work, "notebooks"):
            if problem:
                failed.append(part)
                tqdm.write(f"{part.chapter.title} failed{problem}", file=sys.stderr)
            tqdm.write(f"{part.chapter.title}: {'failed' if problem else 'done'}, see {part.executed}")
    return failed
