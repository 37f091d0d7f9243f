"""Trained on one set, tested on all: the paper's "free lunch" matrix (section 4.3, figure 4)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
from tqdm.auto import tqdm

from rftkit.evaluate import evaluate_data
from rftkit.paths import DATA
from rftkit.settings import METHODS, Settings, room_for_thoughts


def gains(folders: Sequence[Path], sets: Sequence[str], items: int) -> pd.DataFrame:
    """Points of accuracy (-1..1) that runs gained over their untrained model, in their own mode.

    Args:
        folders: runs with an adapter, one a training set.
        sets: bundled sets to test on, each by its own rule; accuracy is the mean of a set's parts.
        items: test items a part.

    Returns:
        a row for each set trained on, a column for each set tested on.
    """
    rows, before = {}, {}
    for folder in tqdm(folders, desc="matrix"):
        settings = _settings_of(folder)
        trained = {name: _accuracy(settings, name, items, folder / "adapter") for name in sets}
        for name in sets:
            key = settings.model, METHODS[settings.method].mode, name
            if key not in before:
                before[key] = _accuracy(settings, name, items, None)
            rows.setdefault(settings.dataset, {})[name] = trained[name] - before[key]
    return pd.DataFrame(rows).T.reindex(columns=list(sets))


def _settings_of(folder: Path) -> Settings:
    return Settings(**yaml.safe_load((folder / "config.yaml").read_text()))


def _accuracy(settings: Settings, dataset: str, items: int, adapter: Path | None) -> float:
    mode = METHODS[settings.method].mode
    room = max(settings.max_completion_tokens, room_for_thoughts(dataset))
    found = evaluate_data(
        settings.model,
        dataset,
        adapter=adapter and str(adapter),
        mode=mode,
        limit=items,
        max_tokens=settings.max_answer_tokens if mode == "no_thinking" else room,
        max_pixels=settings.max_pixels,
        quantize=settings.quantize,
        device=settings.device,
        progress=False,
    )["eval"]
    return sum(part["accuracy"] for part in found.values()) / len(found)


def paper_gains(method: str) -> pd.DataFrame:
    """The paper's matrix of a method, `cls_rl` or `no_thinking_rl`, in points of per cent (figures 4a and 4b)."""
    table = json.loads((DATA / "paper" / "think_or_not_tables.json").read_text())["cross_dataset"]
    rows = table[{"cls_rl": "thinking_rft_gain", "no_thinking_rl": "no_thinking_rft_gain"}[method]]
    return pd.DataFrame(rows).T.drop(columns="AVG")
