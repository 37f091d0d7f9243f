"""The processes of a study: a kernel for each notebook, and helpers on cores that are free.

A helper makes the last runs of notebooks that still run. A notebook finds them complete when it comes to them, or waits
for the one that is being made (`results.locked`), and shows them all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
import torch
from tqdm.auto import tqdm

from rftkit.common.errors import UserError
from rftkit.common.paths import NOTEBOOKS, PROFILES
from rftkit.run import execute
from rftkit.runs.folder import is_complete
from rftkit.settings import Settings, load_settings, settings_of
from rftkit.study.chapters import Chapter, datasets_of
from rftkit.tasks.registry import short_name

WORTH_A_HELPER = 3  # missing runs from which on one is started; some are being made, and its start takes ten seconds
GRACE = 10.0  # seconds that a process has to end when it is told to
# glibc hands a large tensor's memory back to the system at once and asks for it anew, which takes long on a CPU.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def devices() -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them; none on a CPU."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


class Jobs:
    """So many processes at once, which share the cores and have a GPU each, or one together where GPUs are fewer."""

    def __init__(self, count: int) -> None:
        self.threads = max(1, (os.cpu_count() or 1) // count)
        self._running: set[subprocess.Popen] = set()
        self.ended = False
        self._places: SimpleQueue[str | None] = SimpleQueue()
        for device in islice(cycle(devices() or [None]), count):
            self._places.put(device)

    @contextmanager
    def _environment(self) -> Iterator[dict[str, str]]:
        """The environment of a process, with the GPU of a free place."""
        device = self._places.get()
        own = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        try:
            usual = {"OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}
            yield KEEP_MEMORY | os.environ | usual | own
        finally:
            self._places.put(device)

    def run(self, command: list[str], given: str | None = None, minutes: float | None = None) -> tuple[int, str]:
        """Run a command to its end or time limit, with text for its stdin; return its status and what it wrote."""
        with self._environment() as environment:
            process = subprocess.Popen(
                command, env=environment, text=True, errors="replace",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            self._running.add(process)
            if self.ended:
                _stop([process])
            try:
                written = process.communicate(given, timeout=None if minutes is None else 60 * minutes)[0]
            except subprocess.TimeoutExpired:
                _stop([process])
                written = f"{process.communicate()[0]}\nstopped: the time limit of {minutes:g} minutes was reached"
            self._running.discard(process)
        return process.returncode, written

    def end(self) -> None:
        """End what still runs, and what starts from now on."""
        self.ended = True
        _stop(list(self._running))


def _module(name: str) -> list[str]:
    """The start of a command: `python -m NAME` in a process that does not outlive this one."""
    return [sys.executable, "-m", "rftkit.common.child", str(os.getpid()), name]


def _stop(processes: list[subprocess.Popen]) -> None:
    """End processes, and what they started, by force if they have not ended in time."""
    family = _started_by(processes)
    for process in processes:
        process.terminate()
    until = time.monotonic() + GRACE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
    for process in (*_started_by(processes), *processes, *family):  # a kernel holds the pipe that is read to its end
        with suppress(psutil.Error):
            process.kill()


def _started_by(processes: list[subprocess.Popen]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if process.poll() is None:  # or its number may be another's
                found += psutil.Process(process.pid).children(recursive=True)
    return found


def execute_chapters(
    plan: dict[Chapter, list[int]],
    todo: dict[Chapter, dict[Path, Settings]],
    profile: str,
    dataset: str | None,
    out: Path,
    count: int,
    time_limit: float | None,
) -> list[Chapter]:
    """Run chapters, the longest first, with a bar of complete runs and those at work; return those that failed."""
    order = sorted(todo, key=lambda chapter: -len(todo[chapter]) * chapter.weight)
    runs = {folder: settings for chapter in order for folder, settings in todo[chapter].items()}
    jobs = Jobs(count)
    with ThreadPoolExecutor(count) as pool, tqdm(total=len(runs), desc="runs", disable=not runs) as bar:
        waiting = {pool.submit(execute_chapter, c, profile, dataset, plan[c], out, jobs, time_limit): c for c in order}
        for _ in range(count - 1):  # begin when no chapter waits
            pool.submit(_help, waiting, todo, out, jobs, time_limit)
        try:
            while not all(future.done() for future in waiting):
                wait(waiting, timeout=1.0)
                bar.set_postfix_str(", ".join(c.title for f, c in waiting.items() if f.running()), refresh=False)
                bar.update(sum(map(is_complete, runs)) - bar.n)
        finally:  # of Ctrl-C too: start nothing more, end what runs
            pool.shutdown(wait=False, cancel_futures=True)
            jobs.end()
        return [chapter for future, chapter in waiting.items() if not future.result()]


def execute_chapter(
    chapter: Chapter,
    profile: str,
    dataset: str | None,
    seeds: list[int],
    out: Path,
    jobs: Jobs,
    time_limit: float | None = None,
) -> bool:
    """Run a notebook through papermill in a process of its own; the executed copy is kept beside the runs."""
    parts = [chapter.title, dataset and short_name(dataset), f"s{seeds[0]}" if seeds[0] else None]
    title = "-".join(filter(None, parts))  # parts of a study do not overwrite each other's
    executed = out / Path(profile).stem / "notebooks" / f"{title}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    command = [*_module("papermill"), str(NOTEBOOKS / f"{chapter.notebook}.ipynb"), str(executed)]
    command += ["--kernel", "python3", "--cwd", str(NOTEBOOKS), "--log-output", "--no-progress-bar"]
    for key, value in _parameters(chapter, profile, dataset, seeds, out).items():
        command += ["-y", json.dumps({key: value})]  # JSON is YAML
    began = time.perf_counter()
    status, written = jobs.run(command, minutes=time_limit)
    if status and not jobs.ended:
        _say_last_lines(chapter.title, written)
    how = ("interrupted" if jobs.ended else "failed") if status else "done"
    tqdm.write(f"{chapter.title}: {how} after {time.perf_counter() - began:.0f} s, see {executed}")
    return status == 0


def _parameters(chapter: Chapter, profile: str, dataset: str | None, seeds: list[int], out: Path) -> dict[str, Any]:
    """What papermill puts into the notebook's cell of parameters. It runs elsewhere, so paths are whole."""
    every = [load_settings(profile, "zero_shot", dataset=name) for name in datasets_of(chapter, dataset)]
    sets = [settings.dataset for settings in every]
    bundled = (PROFILES / f"{profile}.yaml").is_file()
    found = {
        "profile": profile if bundled else str(Path(profile).resolve()),
        "seeds": seeds,
        "out": str(out.resolve()),
        "model": chapter.model,
    }
    if chapter.datasets and "dataset" not in chapter.parameters:
        found |= {"datasets": sets, "protocol": chapter.protocol or every[0].protocol}
    else:
        found |= {"dataset": sets[0]}
    return found | chapter.parameters


def _say_last_lines(what: str, written: str) -> None:
    """In one piece: others may write at the same time."""
    tqdm.write("\n".join([f"{what} failed; its last lines:", *written.splitlines()[-30:]]), file=sys.stderr)


def _help(
    waiting: dict[Future, Chapter],
    todo: dict[Chapter, dict[Path, Settings]],
    out: Path,
    jobs: Jobs,
    time_limit: float | None,
) -> None:
    """Make what is missing of the chapters that still run in a process of its own, the last runs first."""
    running = [chapter for future, chapter in waiting.items() if not future.done()]
    missing = [settings for c in running for folder, settings in todo[c].items() if not is_complete(folder)]
    if len(missing) < WORTH_A_HELPER:
        return
    lines = [json.dumps([asdict(settings), str(out)]) for settings in reversed(missing)]
    status, written = jobs.run(_module(__name__), "\n".join(lines), time_limit)
    if status > 0 and not jobs.ended:  # the notebook will come to the same run, and says what is wrong with it
        _say_last_lines("a helper", written)


def make_runs(lines: Iterable[str]) -> None:
    """What a helper does: the runs given as lines of JSON (settings, --out), but for those that others make."""
    for line in lines:
        settings, out = json.loads(line)
        with suppress(UserError):  # the notebook meets it too, and says it
            execute(settings_of(settings), Path(out), wait=False)


if __name__ == "__main__":
    make_runs(sys.stdin)
