"""Archived runs: what a report needs of many run folders, in two small files that can be committed or handed in.

`runs.parquet` has a run a row, with the columns of `runs.results.Run`, and a digest of `answers.parquet`. That has a
test item a row with what was right, by the number of the run's row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rftkit.common.errors import UserError
from rftkit.rewards import RULES
from rftkit.runs.folder import answers_of
from rftkit.runs.results import RUN, Run

RUNS, ANSWERS = "runs.parquet", "answers.parquet"
COLUMNS = ("split", "mode", "id", "group", *RULES, "likelihood", "blank")  # of answers: no texts


def is_archive(place: Path) -> bool:
    return (place / RUNS).is_file()


def write_archive(runs: Iterable[Run], out: Path) -> None:
    """Archive runs in the folder `out`; UserError if it holds others, or something else."""
    runs = list(runs)
    if out.exists() and not is_archive(out) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--keep: '{out}' holds something else: name a new folder")
    if is_archive(out) and (lost := {_name(run) for run in archived_runs(out)} - {_name(run) for run in runs}):
        raise UserError(f"--keep: {len(lost)} of the runs in '{out}' are not among these: name it with --runs too")
    answers = pd.concat([answers_of(run).filter(COLUMNS).assign(run=number) for number, run in enumerate(runs)])
    table = pa.Table.from_pylist([RUN.dump_python(run, by_alias=True) for run in runs])
    out.mkdir(parents=True, exist_ok=True)
    new_answers, new_runs = out / f"{ANSWERS}.new", out / f"{RUNS}.new"
    answers.to_parquet(new_answers, index=False, compression="zstd")
    table = table.replace_schema_metadata({ANSWERS: _digest(new_answers)})
    pq.write_table(table, new_runs, compression="zstd", write_page_checksum=True)
    new_answers.replace(out / ANSWERS)  # they belong together: no time passes between them
    new_runs.replace(out / RUNS)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _name(run: Run) -> tuple:
    """What tells runs apart in a report."""
    return (run.profile, run.dataset, run.eval_dataset, run.protocol, run.label, *run.pair)


def archived_runs(place: Path) -> list[Run]:
    """The runs of an archive without their answers; UserError if it is truncated or altered."""
    try:
        table = pq.read_table(place / RUNS, page_checksum_verification=True)
        if table.schema.metadata[ANSWERS.encode()].decode() == _digest(place / ANSWERS):
            return [RUN.validate_python(_present(row)) for row in table.to_pylist()]
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(f"'{place}' is no whole archive: remove it and keep the runs again (rftkit report --keep)")


def _present(row: dict) -> dict:
    """A row as its run had it: Parquet gives each the parts, and the versions, of all."""
    return row | {name: {key: value for key, value in row[name].items() if value} for name in ("eval", "versions")}


def read_archive(place: Path) -> list[Run]:
    """The runs of an archive with their answers; UserError if it is truncated or altered."""
    runs = archived_runs(place)
    by_run = pd.read_parquet(place / ANSWERS).groupby("run")
    answers = {number: part.drop(columns="run").dropna(axis=1, how="all") for number, part in by_run}
    return [replace(runs[number], answers=of, source=place) for number, of in answers.items()]
