"""SOPHIA's rewards and its selection of trajectories (paper, section 3 and equation 6), on plain tables.

A table of reasonings has a row for each: `item`, `k` (which caption), `n` (which reasoning), `right` (R(y), 0 or 1),
`tokens` and `text` (None where the reasoner gave none).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Selection:
    """Which reasonings of an item are learnt from.

    Args:
        alpha: R(c) must be above it (the paper: 0.75, so 7 of 8); None: whatever the caption earned.
        right: R(y) must be 1.
        shortest: the shortest are taken; else any, at random.
        keep: at most so many of an item (the paper's Keep-n).
    """

    alpha: float | None = 0.75
    right: bool = True
    shortest: bool = True
    keep: int = 1


# The paper's selection, and its ablations (table 4). `random` leaves out all of it: R(c), R(y) and the shortest.
SELECTIONS = {
    "sophia": Selection(),
    "not_shortest": Selection(shortest=False),
    "outcome": Selection(alpha=None),
    "random": Selection(alpha=None, right=False, shortest=False),
}


def caption_rewards(reasonings: pd.DataFrame) -> pd.Series:
    """R(c) of each row's caption, 0-1: the share of its N reasonings that are right. One without a text is wrong."""
    return reasonings.groupby(["item", "k"])["right"].transform("mean")


def select(reasonings: pd.DataFrame, by: Selection, seed: int = 0) -> pd.DataFrame:
    """The rows that are learnt from, in the order of items. The order of the given rows does not matter.

    Of equals the earlier caption is taken, then the earlier reasoning. A text counts once an item. Without `shortest`
    the seed draws. Rows without a text are never taken.
    """
    table = reasonings.sort_values(["item", "k", "n"], ignore_index=True)
    table["r_caption"] = caption_rewards(table)
    draw = np.random.default_rng(seed).random(len(table))
    table = table.assign(_rank=table["tokens"] if by.shortest else draw)[table["text"].notna()]
    if by.right:
        table = table[table["right"] == 1]
    if by.alpha is not None:
        table = table[table["r_caption"] > by.alpha]
    table = table.sort_values(["item", "_rank", "k", "n"]).drop_duplicates(["item", "text"])
    return table.groupby("item").head(by.keep).drop(columns="_rank").reset_index(drop=True)
