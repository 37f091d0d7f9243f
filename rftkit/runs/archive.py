"""Runs kept small: what a report needs of many run folders, in three files that can be committed or handed in.

`runs.jsonl` has the `results.json` of a run a line (its measures as rows of `MEASURE`), `items.csv` the test items of
each list of them, `answers.csv` what was right: a run, part, mode and rule a row, an item a bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rftkit.common.errors import UserError
from rftkit.common.statistics import proportion
from rftkit.rewards import RULES
from rftkit.runs.folder import answers_of, checked_results, write_atomically

RUNS, ITEMS, ANSWERS = "runs.jsonl", "items.csv", "answers.csv"
MEASURE = ("split", "mode", "measure", "n", "correct")  # what the rest of a measure follows from


def is_archive(place: Path) -> bool:
    return (place / RUNS).is_file()


def write_archive(runs: Iterable[dict[str, Any]], out: Path) -> None:
    """Keep runs (as of `sections.load_runs`) in the folder `out`; UserError if it holds others, or something else."""
    runs = list(runs)
    if out.exists() and not is_archive(out) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--keep: '{out}' holds something else: name a new folder")
    if is_archive(out) and (lost := {_name(run) for run in kept_results(out)} - {_name(run) for run in runs}):
        raise UserError(f"--keep: {len(lost)} of the runs in '{out}' are not among these: name it with --runs too")
    lines, rows, lists = [], [], {}
    for number, run in enumerate(runs):
        short = {"measures": [[measure[key] for key in MEASURE] for measure in run["measures"]]}
        lines.append(json.dumps({k: v for k, v in (run | short).items() if k not in ("folder", "answers")}))
        table = answers_of(run)
        for (split, mode), part in table.groupby(["split", "mode"], sort=False):
            items = lists.setdefault(tuple(zip(part["id"], part["group"], strict=True)), len(lists))
            for rule in _rules(part):
                bits = np.packbits(part[rule].to_numpy().astype(bool)).tobytes().hex()
                rows.append((number, split, mode, rule, items, bits))
    out.mkdir(parents=True, exist_ok=True)
    listed = [(number, *item) for items, number in lists.items() for item in items]
    contents = {
        ITEMS: pd.DataFrame(listed, columns=["items", "id", "group"]).to_csv(index=False),
        ANSWERS: pd.DataFrame(rows, columns=["run", "split", "mode", "rule", "items", "right"]).to_csv(index=False),
        RUNS: "\n".join(lines) + "\n",
    }
    for name, content in contents.items():
        write_atomically(out / f"{name}.new", content)
    for name in contents:  # they belong together: no time passes between them
        (out / f"{name}.new").replace(out / name)


def _name(run: dict[str, Any]) -> tuple:
    """What tells runs apart in a report."""
    known = ("profile", "dataset", "eval_dataset", "protocol", "method", "control", "model", "seed")
    return tuple(run.get(key) for key in known)


def _rules(part: pd.DataFrame) -> list[str]:
    """Scores that every row has: accuracy by each rule, and by likelihood."""
    return [name for name in (*RULES, "likelihood") if name in part and part[name].isin((0, 1)).all()]


def kept_results(place: Path) -> list[dict[str, Any]]:
    """What is in `results.json` of the runs of an archive; UserError if it is torn."""
    try:
        runs = [json.loads(line) for line in (place / RUNS).read_text().splitlines()]
        for run in runs:
            rows = [dict(zip(MEASURE, row, strict=True)) for row in run["measures"]]
            run["measures"] = [row | proportion(row["correct"], row["n"]) for row in rows]
        return [checked_results(run, place / RUNS) for run in runs]
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError, UserError) as error:
        raise _torn(place) from error


def read_archive(place: Path) -> list[dict[str, Any]]:
    """The runs of an archive as `sections.load_runs` has them, each with its `answers`; UserError if it is torn."""
    runs = kept_results(place)
    try:
        items = pd.read_csv(place / ITEMS, dtype=str, keep_default_na=False)
        rows = pd.read_csv(place / ANSWERS, dtype={"right": str, "items": str}, keep_default_na=False)
        whole = rows["rule"].isin((*RULES, "likelihood")).all() and set(rows["run"]) == set(range(len(runs)))
        whole = whole and not rows.duplicated(["run", "split", "mode", "rule"]).any()
        whole = whole and not items.duplicated(["items", "id"]).any()
        lists = dict(iter(items.groupby("items")))
        for number, part in rows.groupby("run") if whole else ():
            runs[number]["answers"] = _answers(part, lists)
        whole = whole and all(map(_is_counted, runs))
    except (OSError, ValueError, LookupError, TypeError):
        whole = False
    if not whole:
        raise _torn(place)
    return runs


def _torn(place: Path) -> UserError:
    return UserError(f"'{place}' is no whole archive: remove it and keep the runs again (rftkit report --keep)")


def _is_counted(run: dict[str, Any]) -> bool:
    """Whether a run's answers are those that its measures count, by each rule; by likelihood where they are kept."""
    parts = {key: part.dropna(axis=1) for key, part in run["answers"].groupby(["split", "mode"])}
    counted = {(m["split"], m["mode"], m["measure"]): (m["n"], m["correct"]) for m in run["measures"]}
    found = {
        (*key, rule): (len(part), part[rule].sum())
        for key, part in parts.items()
        for rule in part.columns.intersection([*RULES, "likelihood"])
    }
    return found == {key: of for key, of in counted.items() if key[2] in RULES or key in found}


def _answers(rows: pd.DataFrame, lists: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """An item and mode a row, as a run folder's predictions have them, without texts."""
    tables = []
    for (split, mode, items), part in rows.groupby(["split", "mode", "items"], sort=False):
        table = lists[items][["id", "group"]].assign(split=split, mode=mode)
        for rule, right in zip(part["rule"], part["right"], strict=True):
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(right), np.uint8))
            if not len(table) <= len(bits) < len(table) + 8:
                raise ValueError(f"{len(bits)} bits for {len(table)} items")
            table[rule] = bits[: len(table)].astype(float)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
