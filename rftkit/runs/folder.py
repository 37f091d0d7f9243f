"""Run folders: their names and files. `results.json` (or `gtr.json`, ...) is written last: the run is complete."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from filelock import FileLock, Timeout

from rftkit.common.errors import UserError
from rftkit.common.paths import OWN
from rftkit.runs.fingerprint import git_revision, kind_sha256, sha256_json, versions
from rftkit.runs.results import RUN, Run
from rftkit.settings import Settings, settings_of
from rftkit.tasks.registry import short_name

SCHEMA_VERSION = 1
LATE = 90  # seconds that a network disk may take to show what another machine has written
CONFIG, RESULTS, PREDICTIONS = "config.yaml", "results.json", "predictions.parquet"
METRICS, CURVE = "metrics.csv", "curve.csv"  # of training, step by step


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the whole new one."""
    for left in path.parent.glob(f".{path.name}.*"):
        number = left.suffix[1:]
        if number.isdecimal() and not psutil.pid_exists(int(number)):  # the process was killed while it wrote
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as Parquet, atomically too."""
    temporary = path.with_name(f".{path.name}")
    pd.DataFrame(rows).to_parquet(temporary, index=False)
    temporary.replace(path)


def copy_atomically(source: Path, to: Path) -> None:
    temporary = to.with_name(f".{to.name}")
    shutil.copyfile(source, temporary)
    temporary.replace(to)


def data_title(dataset: str, eval_dataset: str | None) -> str:
    """How a run's data are named: DATASET, or TRAINED-to-TESTED."""
    return "-to-".join(short_name(name) for name in (dataset, eval_dataset) if name)


def run_folder(out: Path, settings: Settings, mark: str) -> Path:
    """`OUT/PROFILE/DATASET-METHOD-MODEL-sSEED-FINGERPRINT`.

    A control stands behind the method: `METHOD+CONTROL`; a protocol behind the set, if it is not the usual one.
    """
    dataset, model = data_title(settings.dataset, settings.eval_dataset), Path(settings.model).name
    dataset += "" if settings.protocol == Settings.protocol else f"-{settings.protocol}"
    method = settings.method + (f"+{settings.control}" if settings.control else "")
    return out / settings.profile / f"{dataset}-{method}-{model}-s{settings.seed}-{mark}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run. Another process that wants to make it waits until this one has ended, however it ends."""
    place = folder.parent / ".locks"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / folder.name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder.name}: another process is making this run; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def result_file(method: str) -> str:
    """The file that a run of a method writes last."""
    return f"{method}.json" if method in OWN else RESULTS


LAST = (RESULTS, *map(result_file, OWN))


def is_complete(folder: Path) -> bool:
    return any((folder / name).is_file() for name in LAST)


def write_config(folder: Path, settings: Settings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CONFIG, yaml.safe_dump(asdict(settings), sort_keys=False))


def read_settings(run: Path) -> Settings:
    """The settings in a run folder's `config.yaml`; UserError if it has not all of them: it is truncated, or old."""
    try:
        content = yaml.safe_load((run / CONFIG).read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict) or content.keys() != {field.name for field in fields(Settings)}:
        raise UserError(f"'{run}' is no run folder of this version: it has no config.yaml that can be read")
    return settings_of(content)


def write_results(folder: Path, settings: Settings, content: dict[str, Any], data_sha: str) -> None:
    """Write `results.json`, the last act of a run; `runs.results.Run` says what is in it."""
    head = ("task", "dataset", "eval_dataset", "method", "control", "protocol", "model", "profile", "seed", "scoring")
    results = {"schema_version": SCHEMA_VERSION} | {key: getattr(settings, key) for key in head} | content
    results |= {
        "versions": versions(),
        "git_revision": git_revision(),
        "config_sha256": sha256_json(asdict(settings)),
        "kind_sha256": kind_sha256(settings),
        "data_sha256": data_sha,
    }
    write_atomically(folder / RESULTS, json.dumps(results, indent=1))


def run_files(folder: Path) -> dict[str, bytes]:
    """The files of a complete run by their paths in its folder, without the checkpoints."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {name.as_posix(): path.read_bytes() for name, path in paths.items() if name.parts[0] != "checkpoints"}


def write_run(folder: Path, files: dict[str, bytes]) -> None:
    """Write a run that another machine has made (`run_files`), unless it is here.

    Without files, it has written them itself on a disk that both share.
    """
    until = time.monotonic() + LATE
    while not files and not is_complete(folder) and time.monotonic() < until:
        time.sleep(1)
    with locked(folder):
        if is_complete(folder) or not files:
            return
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        (last,) = files.keys() & {*LAST}
        for name in files.keys() - {last}:
            path = unfinished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])
        shutil.rmtree(folder, ignore_errors=True)  # the beginning of the same run
        unfinished.replace(folder)
        write_atomically(folder / last, files[last].decode())


def read_results(folder: Path) -> Run:
    """A complete run; UserError if its `results.json` is truncated, or changed so that it cannot be used."""
    path = folder / RESULTS
    try:
        found = RUN.validate_json(path.read_bytes(), strict=True)
    except ValueError as error:
        raise UserError(f"'{path}' is not what a run writes: remove it and start the run again") from error
    return replace(found, folder=folder, source=folder)


def read_predictions(folder: Path, *rules: str) -> pd.DataFrame:
    """The test answers of a complete run, an item and mode a row; UserError if they are truncated, or changed.

    Args:
        rules: columns of scores that are needed.
    """
    path = folder / PREDICTIONS
    try:
        table = _predictions(path, path.stat().st_mtime_ns)
        whole = table is not None and all(table[rule].isin((0, 1)).all() for rule in rules)
    except (OSError, ValueError, LookupError, TypeError):  # pyarrow's own are among them
        whole = False
    if not whole:
        raise UserError(f"'{path}' is not what a run writes: remove {RESULTS} beside it and start the run again")
    return table


@lru_cache(maxsize=128)  # a report comes to each run several times
def _predictions(path: Path, changed: int) -> pd.DataFrame | None:
    """What is in the file that was changed at that time; None if it does not name each item and mode once."""
    table = pd.read_parquet(path)
    whole = len(table) and not table[["split", "id", "mode"]].duplicated().any() and "group" in table
    return table if whole else None


def answers_of(run: Run, *rules: str) -> pd.DataFrame:
    """The test answers of a run, an item and mode a row."""
    return read_predictions(run.folder, *rules) if run.answers is None else run.answers


def same_tests(*runs: Run) -> bool:
    """Whether runs were tested on the same items, as far as they say: items drawn anew have the names of others."""
    return len({run.tests_sha256 for run in runs if run.tests_sha256}) < 2


def read_answers(runs: Iterable[Run], mode: str, rule: str) -> pd.DataFrame:
    """Test answers of runs in a mode: base (the start model), seed, split, id, group, correct by a rule."""
    tables = [answers_of(run, rule).assign(base=run.model, seed=run.seed) for run in runs]
    table = pd.concat(tables).rename(columns={rule: "correct"})
    return table.loc[table["mode"] == mode, ["base", "seed", "split", "id", "group", "correct"]]


def complete_runs(out: Path) -> list[Path]:
    """All complete run folders of the study's methods under `out`, sorted by path; not those within another's run."""
    folders = sorted(path.parent for path in out.rglob(RESULTS))
    return [f for f in folders if not any((out / p / CONFIG).is_file() for p in f.relative_to(out).parents)]
