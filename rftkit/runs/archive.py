"""Archived runs: what a report needs of many run folders, in two small files that can be committed or handed in.

`runs.parquet` has a run a row, with the columns of `runs.record.Run`; `answers.parquet` a test item a row, with what
was right, by the number of the run's row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rftkit.common.errors import UserError
from rftkit.rewards import RULES
from rftkit.runs.folder import answers_of
from rftkit.runs.record import RUN, Run

RUNS, ANSWERS = "runs.parquet", "answers.parquet"
PLACE = ["run", "split", "mode"]  # of answers that are counted together
SCORES = [*RULES, "likelihood"]
UNREADABLE = (pa.ArrowException, OSError, ValueError, LookupError, TypeError)


def is_archive(place: Path) -> bool:
    return (place / RUNS).is_file()


def write_archive(runs: Iterable[Run], out: Path) -> None:
    """Archive runs in the folder `out`; UserError if it holds others, or something else."""
    runs = list(runs)
    if out.exists() and not is_archive(out) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--keep: '{out}' holds something else: name a new folder")
    if is_archive(out) and (lost := {_name(run) for run in archived_runs(out)} - {_name(run) for run in runs}):
        raise UserError(f"--keep: {len(lost)} of the runs in '{out}' are not among these: name it with --runs too")
    rows = [RUN.dump_python(run, by_alias=True) for run in runs]
    answers = pd.concat([_scores(run).assign(run=number) for number, run in enumerate(runs)])
    tables = {
        ANSWERS: pa.Table.from_pandas(answers, preserve_index=False),
        RUNS: pa.Table.from_pylist(rows),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, out / f"{name}.new", compression="zstd", write_page_checksum=True)
    for name in tables:  # they belong together: no time passes between them
        (out / f"{name}.new").replace(out / name)


def _name(run: Run) -> tuple:
    """What tells runs apart in a report."""
    return (run.profile, run.dataset, run.eval_dataset, run.protocol, run.label, *run.pair)


def _scores(run: Run) -> pd.DataFrame:
    """A run's answers without their texts: only the scores that stay."""
    answers = answers_of(run)
    return answers[["split", "mode", "id", "group", *(score for score in SCORES if score in answers)]]


def archived_runs(place: Path) -> list[Run]:
    """The runs of an archive without their answers; UserError if it is truncated or altered."""
    try:
        rows = pq.read_table(place / RUNS, page_checksum_verification=True).to_pylist()
        return [RUN.validate_python(_present(row)) for row in rows]
    except UNREADABLE as error:
        raise _broken(place) from error


def _present(row: dict) -> dict:
    """A row as its run had it: Parquet gives each the parts, and the versions, of all."""
    return row | {name: {key: value for key, value in row[name].items() if value} for name in ("eval", "versions")}


def read_archive(place: Path) -> list[Run]:
    """The runs of an archive with their answers; UserError if it is truncated or altered."""
    runs = archived_runs(place)
    try:
        answers = pd.read_parquet(place / ANSWERS, page_checksum_verification=True)
        known = set(answers["run"]) == set(range(len(runs))) and not answers.duplicated([*PLACE, "id"]).any()
        if not known or not _is_counted(runs, answers):
            raise ValueError("the answers are not those of the runs")
    except UNREADABLE as error:
        raise _broken(place) from error
    by_run = answers.groupby("run")
    return [replace(runs[n], answers=part.drop(columns="run").dropna(axis=1, how="all")) for n, part in by_run]


def _is_counted(runs: list[Run], answers: pd.DataFrame) -> bool:
    """Whether the answers are as many, and as many of them right, as the runs' measures say."""
    by_place = answers.groupby(PLACE)[[score for score in SCORES if score in answers]]
    counts, right = by_place.count().stack(), by_place.sum().stack()
    found = {place: (n, right[place]) for place, n in counts.items() if n}
    measured = {}
    for number, run in enumerate(runs):
        for measure in run.measures:
            measured[number, measure.split, measure.mode, measure.measure] = (measure.n, measure.correct)
    # Where there are no choices, or no answers were kept by likelihood, a measure may stand alone.
    return found == {place: of for place, of in measured.items() if place[-1] in RULES or place in found}


def _broken(place: Path) -> UserError:
    return UserError(f"'{place}' is no whole archive: remove it and keep the runs again (rftkit report --keep)")
