"""Trained on one set, tested on all: the paper's "free lunch" matrix (section 4.3, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd
from tqdm.auto import tqdm

from rftkit.evaluate import answer_rows, asked_parts
from rftkit.run import generation_options, load_run
from rftkit.runs.folder import read_settings
from rftkit.settings import METHODS, Settings, room_for_thoughts
from rftkit.tasks.example import Example
from rftkit.tasks.registry import open_set


def gains(folders: Sequence[Path], sets: Sequence[str], items: int) -> pd.DataFrame:
    """Points of accuracy (-1..1) that runs gained over their untrained model, in their own mode.

    Args:
        folders: trained runs; of several of one training set the mean counts. The longest completion that one of them
            may write is that of all, and of the untrained.
        sets: bundled sets to test on, each by its own rule; accuracy is the mean of a set's parts.
        items: test items a part, at most: no more than the runs themselves were tested on.

    Returns:
        a row for each set trained on, a column for each set tested on.
    """
    rows, before, every = [], {}, {folder: read_settings(folder) for folder in folders}
    items = min((items, *(settings.test_items for settings in every.values())))
    tests = {name: list(asked_parts(open_set(name), None, items).values()) for name in sets}
    room = max((settings.max_completion_tokens for settings in every.values()), default=0)
    for folder, settings in tqdm(every.items(), desc="matrix"):
        untrained = settings.model, METHODS[settings.method].mode
        if untrained not in before:
            before[untrained] = _accuracies(settings, tests, None, room)
        trained = _accuracies(settings, tests, folder, room)
        rows.append({"trained": settings.dataset} | {name: trained[name] - before[untrained][name] for name in sets})
    return pd.DataFrame(rows).groupby("trained", sort=False).mean().rename_axis(None)


def _accuracies(
    settings: Settings, tests: dict[str, list[list[Example]]], run: Path | None, room: int
) -> dict[str, float]:
    network, processor = load_run(settings, run)
    mode, found = METHODS[settings.method].mode, {}
    for name, parts in tests.items():
        options, rule = generation_options(settings, mode), open_set(name).rule
        if mode != "no_thinking":
            options["max_tokens"] = max(room, room_for_thoughts(open_set(name).task))
        together = [example for part in parts for example in part]  # fewer and larger batches
        rows = iter(answer_rows(network, processor, together, mode, rules=[rule], **options))
        found[name] = fmean(fmean(next(rows)[rule] for _ in part) for part in parts)
    return found
