"""Complete runs of the methods beside the study's (GTR, SOPHIA): from their folders, or small out of an archive.

An archive has `METHOD.parquet` with a run a row and `METHOD-TABLE.parquet` with the rows of a table of all runs, by the
number of the run's row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from rftkit.common.errors import UserError
from rftkit.runs.folder import CONFIG, result_file, write_table

RUN = "run"  # the column that says whose row of an archive's table it is


def _ends(states: pd.DataFrame) -> pd.DataFrame:
    """Before the first update and after the last, without texts."""
    ends = states["update"].isin((states["update"].min(), states["update"].max()))
    return states.loc[ends].drop(columns=["text", "action"], errors="ignore")


def _without_texts(answers: pd.DataFrame) -> pd.DataFrame:
    return answers.drop(columns=["completion", "answer", "caption"], errors="ignore")


TABLES: dict[str, dict[str, Callable[[pd.DataFrame], pd.DataFrame] | None]] = {  # and what an archive has of them
    "gtr": {"metrics.csv": None, "fixed.csv": None, "episodes.parquet": None, "states.parquet": _ends},
    "sophia": {"predictions.parquet": _without_texts, "seen.parquet": _without_texts},
}


@dataclass(frozen=True, eq=False)
class ArmRun:
    """A complete run: its settings, its results (`METHOD.json`) and its tables by name (`TABLES`)."""

    settings: dict[str, Any]
    results: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    source: Path

    @property
    def place(self) -> tuple[str, str, str | None]:
        return tuple(self.settings[name] for name in ("profile", "dataset", "arm"))

    @property
    def pair(self) -> tuple[str, int]:
        """Start model and seed."""
        return self.settings["model"], self.settings["seed"]


def arm_runs(method: str, places: Iterable[Path]) -> list[ArmRun]:
    """Complete runs of a method under some folders, archived ones first, then the oldest; none of a selection."""
    made: dict[Path, float] = {}
    archived: list[ArmRun] = []
    for place in places:
        if (place / f"{method}.parquet").is_file():
            archived += _read_archive(method, place)
        else:
            found = (path for path in place.rglob(result_file(method)) if "selection" not in path.parts)
            made |= {path.parent.resolve(): path.stat().st_mtime for path in found}
    return archived + [arm_run(method, folder) for folder in sorted(made, key=made.get)]


def arm_run(method: str, folder: Path) -> ArmRun:
    """A complete run; UserError if a file of it is truncated, or missing."""
    try:
        settings = yaml.safe_load((folder / CONFIG).read_text())
        results = json.loads((folder / result_file(method)).read_text())
        tables = {Path(name).stem: _table(folder / name) for name in TABLES[method]}
        return ArmRun(dict(settings), dict(results), tables, folder)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:  # pyarrow's own are among them
        raise UserError(f"'{folder}' is not what a run writes: remove it and start the run again") from error


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def _read_archive(method: str, place: Path) -> list[ArmRun]:
    try:
        rows = pd.read_parquet(place / f"{method}.parquet")
        tables = {Path(name).stem: pd.read_parquet(_file(place, method, Path(name).stem)) for name in TABLES[method]}

        def of_run(number: int) -> dict[str, pd.DataFrame]:
            parts = {stem: table[table[RUN] == number] for stem, table in tables.items()}
            return {stem: part.drop(columns=RUN).reset_index(drop=True) for stem, part in parts.items()}

        return [
            ArmRun(json.loads(row.settings), json.loads(row.results), of_run(number), place)
            for number, row in enumerate(rows.itertuples())
        ]
    except (OSError, ValueError, LookupError, AttributeError) as error:
        raise UserError(f"'{place}' is no archive that can be read: take it from where it was made again") from error


def _file(place: Path, method: str, stem: str) -> Path:
    return place / f"{method}-{stem}.parquet"


def archive_arm_runs(method: str, runs: Sequence[ArmRun], out: Path) -> None:
    """Archive runs in the folder `out`; UserError if it holds some that are not among these."""
    if (out / f"{method}.parquet").is_file():
        kept = {(run.place, run.pair) for run in _read_archive(method, out)}
        if lost := kept - {(run.place, run.pair) for run in runs}:
            raise UserError(f"--keep: {len(lost)} of the runs in '{out}' are not among these: name it with --runs too")
    out.mkdir(parents=True, exist_ok=True)
    for name, small in TABLES[method].items():
        stem = Path(name).stem
        tables = [run.tables[stem].assign(**{RUN: number}) for number, run in enumerate(runs)]
        whole = pd.concat(map(small, tables) if small else tables, ignore_index=True)
        write_table(_file(out, method, stem), whole.to_dict("records"))
    rows = [{"settings": json.dumps(run.settings), "results": json.dumps(run.results)} for run in runs]
    write_table(out / f"{method}.parquet", rows)
