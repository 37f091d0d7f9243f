"""Trained on one set, tested on all: the paper's "free lunch" matrix (section 4.3, figure 4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean

import pandas as pd
from tqdm.auto import tqdm

from rftkit.analysis.paper import paper_gains
from rftkit.common.paths import LOGS
from rftkit.evaluate import answer_rows, asked_parts
from rftkit.run import generation_options, load_run
from rftkit.runs.collect import Methods
from rftkit.runs.folder import read_settings
from rftkit.runs.results import Run
from rftkit.settings import METHODS, Settings, room_for_thoughts
from rftkit.tasks.example import Example
from rftkit.tasks.registry import bundled_sets, open_set

RL = ("cls_rl", "no_thinking_rl")  # methods whose matrices are shown: with thinking, and without


def gains(runs: Sequence[Run], sets: Sequence[str], items: int) -> pd.DataFrame:
    """Points of accuracy (-1..1) that runs gained over their untrained model, in their own mode.

    Args:
        runs: of a method that trains; of several of one training set the mean counts. The longest completion that one
            of them may write is that of all, and of the untrained.
        sets: bundled sets to test on, each by its own rule; accuracy is the mean of a set's parts.
        items: test items a part, at most: no more than the runs themselves were tested on.

    Returns:
        a row for each set trained on, a column for each set tested on.
    """
    every = {run.folder: read_settings(run.folder) for run in runs}
    items = min((items, *(settings.test_items or items for settings in every.values())))
    tests = {name: list(asked_parts(open_set(name), None, items).values()) for name in sets}
    room = max((settings.max_completion_tokens for settings in every.values()), default=0)
    gained, before = defaultdict(list), {}
    for folder, settings in tqdm(every.items(), desc="matrix"):
        if settings.model not in before:
            before[settings.model] = _accuracies(settings, tests, None, room)
        gained[settings.dataset].append(_accuracies(settings, tests, folder, room) - before[settings.model])
    return pd.DataFrame({trained: pd.concat(of, axis=1).mean(axis=1) for trained, of in gained.items()}).T


def write_matrix(table: pd.DataFrame, runs: Sequence[Run], model: str, sets: Sequence[str]) -> Path:
    """Write the matrix of a method's runs beside them, for `gains_elsewhere`, and so for a report.

    Args:
        model: how their start models are called.
        sets: what they are trained on.
    """
    path = runs[0].folder.parent / f"matrix-{'-'.join((runs[0].method, model, runs[0].protocol, *sets))}.csv"
    (100 * table).round(1).to_csv(path)
    return path


def gains_elsewhere(folder: Path, method: str) -> list[float]:
    """What runs of the design's start models gained on sets that they were not trained on (-1..1), by the matrices in a
    folder."""
    found = []
    for path in sorted(folder.glob(f"matrix-{method}*.csv")):
        if path.stem == f"matrix-{method}" or path.stem.startswith(f"matrix-{method}-bases-base_to_new-"):
            by_pair = pd.read_csv(path, index_col=0).stack() / 100  # by set trained on and set tested on
            found += [gain for (trained, tested), gain in by_pair.items() if trained != tested]
    return found


def _accuracies(settings: Settings, tests: dict[str, list[list[Example]]], run: Path | None, room: int) -> pd.Series:
    """Accuracy (0-1) on each set; without a run, of the untrained model."""
    network, processor = load_run(settings, run)
    mode, found = METHODS[settings.method].mode, {}
    for name, parts in tests.items():
        data, options = open_set(name), generation_options(settings, mode)
        if mode != "no_thinking":
            options["max_tokens"] = max(room, room_for_thoughts(data.task))
        together = [example for part in parts for example in part]  # fewer and larger batches
        answers = answer_rows(network, processor, together, mode, rules=[data.rule], progress=name, **options)
        right = iter([row[data.rule] for row in answers])
        found[name] = fmean(fmean(islice(right, len(part))) for part in parts)
    return pd.Series(found)


def matrices(results: dict[str, Methods], items: int, model: str | None) -> dict[str, pd.DataFrame]:
    """`gains` of RL with and without thinking in points of per cent, by the method's title; none without items or runs.

    Of each set that was trained on the first three runs. Written beside them (`write_matrix`).

    Args:
        results: the runs of each set by method.
        items: test items a part, at most.
        model: what all runs start from, if it is not the profile's.
    """
    found = {}
    for method in RL if items else ():
        runs = [run for methods in results.values() for run in methods.get(method, [])[:3]]
        if runs:
            table = gains(runs, list(bundled_sets()), items)
            write_matrix(table, runs, Path(model or "bases").name, list(results))
            found[METHODS[method].title] = 100 * table
    return found


def archived_matrices() -> dict[str, pd.DataFrame]:
    """The matrices of the archived study in points of per cent, by the method's title."""
    return {METHODS[name].title: pd.read_csv(LOGS / "sets" / f"matrix-{name}.csv", index_col=0) for name in RL}


def paper_matrices() -> dict[str, pd.DataFrame]:
    """The paper's matrices in points of per cent, by the method's title."""
    return {METHODS[name].title: paper_gains(name) for name in RL}


def with_difference(by_method: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The matrices of RL with and without thinking, and the second minus the first."""
    thinking, without = by_method.values()
    return by_method | {"without minus with": without - thinking}
