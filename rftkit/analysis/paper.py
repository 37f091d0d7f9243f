"""The paper's own numbers (arXiv 2503.16188), as they stand in `data/paper`."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from rftkit.common.paths import DATA

# Where the paper has numbers for a task or a protocol: its table, the columns, and what they are called here.
COLUMNS = {
    "classification": ("base_to_new", {"base": "base", "new": "new", "h": "H"}),
    "few_shot": ("few_shot", {"Average": "all"}),
    "open_set": ("open_set_few_shot", {"Average": "all"}),
    "spatial": ("cvbench", {"overall": "CV-Bench"}),
    "math": ("math", {"mathvista_overall": "MathVista", "mathvision": "MATH-Vision"}),
    "puzzle": ("puzzle", {"puzzlevqa": "PuzzleVQA", "algopuzzlevqa": "AlgoPuzzleVQA"}),
}
AVERAGED = {"base_to_new": 11, "few_shot": 11, "open_set_few_shot": 5}  # sets whose mean is taken of a table


def gtr_tables() -> dict[str, Any]:
    """The tables of GTR, RL4VLM and SOPHIA, by name; each says where it was seen."""
    return json.loads((DATA / "paper" / "gtr_sophia_tables.json").read_text())


def paper_tables() -> dict[str, Any]:
    """All tables of the paper, by name; each says where it was seen and what was checked."""
    return json.loads((DATA / "paper" / "think_or_not_tables.json").read_text())


def paper_numbers(task: str, protocol: str | None, row: str | None) -> dict[str, float]:
    """The paper's accuracies of a method with Qwen2-VL-2B, in per cent, by column; empty where it has none.

    Classification: average over eleven sets (five without choice lists), by protocol; the others from tables 1 to 3 of
    v6.
    """
    if protocol == "new_to_base":  # the paper has no halves swapped
        return {}
    table, columns = _place(task, protocol)
    part = paper_tables()[table]
    if table not in ("few_shot", "open_set_few_shot"):
        part = part["Average over 11" if table == "base_to_new" else "Qwen2-VL-2B-Instruct"]
    return {ours: part[row][theirs] for theirs, ours in columns.items()} if row in part else {}


def rerun_numbers(task: str, protocol: str | None, row: str | None) -> dict[str, float]:
    """The accuracies of a method as another group ran it with Qwen2.5-VL-3B (Fine-R1, arXiv 2602.07605), in per cent,
    by column; empty where they have none."""
    if (task, protocol) != ("classification", "base_to_new") or not row:
        return {}
    return paper_tables()["fine_r1_rerun"].get(row.replace("Qwen2-VL-2B", "Qwen2.5-VL-3B"), {})


def paper_size_difference(task: str, protocol: str | None) -> dict[str, float]:
    """What Qwen2-VL-7B gains by thinking before the answer minus what the 2B model does (-1..1), by column; few-shot
    over four sets; empty where the paper has one size."""
    if protocol == "few_shot":
        part, small, large, columns = paper_tables()["few_shot_7b"], "2B", "7B", {"Average": "mean of four sets"}
    elif task in ("spatial", "math", "puzzle"):
        name, columns = COLUMNS[task]
        part, small, large = paper_tables()[name], "Qwen2-VL-2B-Instruct", "Qwen2-VL-7B-Instruct"
    else:
        return {}
    gains = [
        {column: part[size]["Thinking-RFT"][column] - part[size]["No-Thinking-RFT"][column] for column in columns}
        for size in (small, large)
    ]
    return {ours: (gains[1][theirs] - gains[0][theirs]) / 100 for theirs, ours in columns.items()}


def paper_sets(task: str, protocol: str | None) -> int | None:
    """Of how many sets `paper_numbers` are the mean; None: each is one set's, named by its column."""
    return AVERAGED.get(_place(task, protocol)[0])


def _place(task: str, protocol: str | None) -> tuple[str, dict[str, str]]:
    return COLUMNS[protocol if protocol in COLUMNS else task]


def paper_gains(method: str) -> pd.DataFrame:
    """The paper's matrix of a method, `cls_rl` or `no_thinking_rl`, in points of per cent (figures 4a and 4b)."""
    name = {"cls_rl": "thinking_rft_gain", "no_thinking_rl": "no_thinking_rft_gain"}[method]
    return pd.DataFrame(paper_tables()["cross_dataset"][name]).T.drop(columns="AVG")
