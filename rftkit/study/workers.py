"""The processes of a study: workers that make its runs, each once, and then execute its notebooks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean

import torch
from tqdm.auto import tqdm

from rftkit.common.errors import UserError
from rftkit.common.paths import NOTEBOOKS
from rftkit.common.pool import attempt, end_children, pool
from rftkit.common.progress import ticking
from rftkit.models import quieten
from rftkit.run import execute
from rftkit.runs.folder import is_complete, read_results
from rftkit.settings import Settings
from rftkit.study import notebooks
from rftkit.study.chapters import Part

# glibc hands a large tensor's memory back to the system at once and asks for it anew, which takes long on a CPU.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def devices() -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them; none on a CPU."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


@contextmanager
def processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """So many processes, which share the cores and have a GPU each, or one together where GPUs are fewer."""
    os.environ.update(KEEP_MEMORY | os.environ | {"TOKENIZERS_PARALLELISM": "false"})  # read when a process starts
    with pool(jobs, max(1, (os.cpu_count() or 1) // jobs), devices()) as workers:
        yield workers


def make_runs(
    todo: dict[Path, Settings], series: dict[str, set[Path]], out: Path, jobs: int, minutes: float | None
) -> None:
    """Make runs in this order; say what fails, and the accuracy of each series whose last missing run is done.

    Args:
        series: the runs of a method on a set, by a title.
        minutes: after which a run is stopped.
    """
    waiting = set(todo)
    with processes(jobs) as workers, ticking(total=len(todo), desc="runs", disable=not todo) as bar:
        futures = {workers.submit(attempt, make_run, todo[folder], out, minutes=minutes): folder for folder in todo}
        for future in as_completed(futures):
            folder = futures[future]
            waiting.remove(folder)
            bar.update()
            if problem := future.result():
                tqdm.write(f"{folder.name} failed{problem}", file=sys.stderr)
            for title, folders in series.items():
                if folder in folders and folders.isdisjoint(waiting):
                    _tell(title, folders)


def make_run(settings: Settings, out: Path) -> Path:
    """What a worker does. It keeps what it has loaded from run to run."""
    quieten()
    return execute(settings, out)


def _tell(title: str, folders: set[Path]) -> None:
    """Say the mean accuracy of complete runs by part."""
    with suppress(UserError):  # the report names a run that cannot be read
        made = [read_results(folder).parts for folder in sorted(folders) if is_complete(folder)]
        if made:
            means = (f"{part} {100 * mean(run[part].accuracy for run in made):.1f} %" for part in made[0])
            tqdm.write(f"{title}: {', '.join(means)} (runs: {len(made)})")


def execute_notebooks(parts: list[Part], jobs: int, minutes: float | None) -> list[Part]:
    """Execute notebooks whose runs are complete, and keep what they show beside these; return those that failed."""
    failed = []
    with processes(jobs) as workers, ticking(total=len(parts), desc="notebooks", disable=not parts) as bar:
        futures = {}
        for part in parts:
            job = (notebooks.execute, NOTEBOOKS / f"{part.chapter.notebook}.ipynb", part.parameters, part.executed)
            futures[workers.submit(attempt, *job, stop=end_children, minutes=minutes)] = part
        for future in as_completed(futures):
            part = futures[future]
            bar.update()
            if problem := future.result():
                failed.append(part)
                tqdm.write(f"{part.chapter.title} failed{problem}", file=sys.stderr)
            tqdm.write(f"{part.chapter.title}: {'failed' if problem else 'done'}, see {part.executed}")
    return failed
