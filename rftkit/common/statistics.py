"""All statistics of the kit: Wilson intervals for one run, a clustered paired bootstrap over runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from rftkit.common.errors import UserError

Z = 1.959964  # two-sided 95 %


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a proportion (0-1); (0, 1) without items."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = correct / n, Z * Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # rounding must not cut p off


def proportion(correct: int, n: int) -> dict[str, float]:
    """n, correct, accuracy (0-1; 0 without items) and its 95 % Wilson interval."""
    low, high = wilson(correct, n)
    return {"n": n, "correct": correct, "accuracy": correct / n if n else 0.0, "ci_low": low, "ci_high": high}


def harmonic_mean(base: float, new: float) -> float:
    """H of base and new accuracy (0-1); 0 if one of them is."""
    return 2 * base * new / (base + new) if base > 0 and new > 0 else 0.0


def bootstrap(
    correct: np.ndarray, groups: np.ndarray, bases: Sequence | None = None, draws: int = 2000, stream: int = 0
) -> np.ndarray:
    """Bootstrap means of a runs x items table, resampling pre-trained models, their seeds, and clusters of items.

    Args:
        correct: [runs, items] of 0 or 1 (or, for a paired comparison, differences of two methods).
        groups: [items], the cluster of each item, such as the drawing it was made from.
        bases: [runs], the pre-trained model that each run began with; None: the same.
        stream: which random items are drawn. The seeds drawn are the same in every call, and with equal streams so are
            the items: draws of several methods can be subtracted pairwise.

    Returns:
        [draws] means; their 2.5 and 97.5 percentiles are the interval.
    """
    _, cluster = np.unique(groups, return_inverse=True)
    count = cluster.max() + 1
    sums = np.stack([np.bincount(cluster, row, count) for row in np.asarray(correct, float)])  # [runs, clusters]
    sizes = np.bincount(cluster, minlength=count)
    _, base = np.unique(np.zeros(len(sums)) if bases is None else bases, return_inverse=True)
    # Counting how often each cluster was drawn is cheaper than copying the drawn columns.
    weight = _cluster_counts(count, draws, stream)
    runs = _run_counts(tuple(base), draws)
    return (runs @ sums * weight).sum(1) / (runs.sum(1) * (weight @ sizes))


@lru_cache(maxsize=4)
def _cluster_counts(count: int, draws: int, stream: int) -> np.ndarray:
    """How often each of `count` clusters of items is in each draw [draws, count]."""
    drawn = np.random.default_rng([1, stream]).integers(count, size=(draws, count))
    drawn += count * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count).astype(np.int32)


@lru_cache(maxsize=32)
def _run_counts(base: tuple[int, ...], draws: int) -> np.ndarray:
    """How often each run is in each draw [draws, runs], given the number of its pre-trained model."""
    rng = np.random.default_rng(0)
    seeds_of = [np.flatnonzero(np.array(base) == number) for number in range(max(base) + 1)]
    counts = []
    for _ in range(draws):  # models with replacement, and of each its seeds
        models = rng.integers(len(seeds_of), size=len(seeds_of)) if len(seeds_of) > 1 else [0]
        rows = [rng.choice(seeds_of[model], len(seeds_of[model])) for model in models]
        counts.append(np.bincount(np.concatenate(rows), minlength=len(base)))
    return np.stack(counts)


def interval(means: np.ndarray) -> tuple[float, float]:
    """The central 95 % of bootstrap means."""
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def two_sided(draws: np.ndarray) -> float:
    """Two-sided bootstrap p-value of a difference: how often its draws fall on the other side of zero, doubled."""
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(draws) + 1)))


def holm(values: list[float]) -> list[float]:
    """Holm's correction of p-values for how many there are, in their order (Holm, 1979)."""
    corrected, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = least
    return corrected


def resample(answers: pd.DataFrame) -> dict[str, tuple[float, np.ndarray]]:
    """Mean accuracy and its bootstrap draws on each split; of base and new halves also `h`, of other parts `mean`.

    Args:
        answers: columns base, seed, split, id, group and correct (0 or 1).
    """
    found = {}
    for stream, (split, part) in enumerate(answers.groupby("split", sort=False)):
        wide = part.pivot(index=["base", "seed"], columns="id", values="correct")
        if wide.isna().any(axis=None):
            raise UserError("these runs were tested on different items and cannot be pooled: report them apart")
        groups = part.drop_duplicates("id").set_index("id").loc[wide.columns, "group"].to_numpy()
        bases = wide.index.get_level_values("base")
        found[split] = (float(wide.to_numpy().mean()), bootstrap(wide.to_numpy(), groups, bases, stream=stream))
    if "base" in found and "new" in found:
        (base, base_draws), (new, new_draws) = found["base"], found["new"]
        draws = 2 * base_draws * new_draws / np.maximum(base_draws + new_draws, 1e-12)
        found["h"] = (harmonic_mean(base, new), draws)
    elif len(found) > 1:
        means, draws = zip(*found.values(), strict=True)
        found["mean"] = (float(np.mean(means)), np.mean(draws, axis=0))
    return found


def estimates(answers: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Means of `resample` with their 95 % bootstrap intervals.

    Where all answers to a split are right, or all wrong, each draw is the same, and an interval without width would
    say that nothing is left to doubt. Wilson's stands there, of as many trials as there are clusters of items: neither
    further seeds nor further items of one drawing are new trials. H and mean are so only where they are stuck too.
    """
    found = {name: (mean, *interval(draws)) for name, (mean, draws) in resample(answers).items()}
    splits = list(answers["split"].unique())
    for split, n in answers.groupby("split")["group"].nunique().items():
        if (mean := found[split][0]) in (0, 1):
            found[split] = (mean, *wilson(int(mean) * n, n))
    for name, together in (("h", harmonic_mean), ("mean", lambda *parts: float(np.mean(parts)))):
        if name in found and found[name][0] in (0, 1):  # as stuck as its parts: put together from their ends
            means, lows, highs = zip(*(found[split] for split in splits), strict=True)
            found[name] = (together(*means), together(*lows), together(*highs))
    return found
