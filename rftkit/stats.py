"""All statistics of the kit: Wilson intervals for one run, a clustered paired bootstrap over runs."""

from __future__ import annotations

import math

import numpy as np

Z = 1.959964  # two-sided 95 %


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a proportion (0-1); (0, 1) without items."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = correct / n, Z * Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # rounding must not cut p off


def harmonic_mean(base: float, new: float) -> float:
    """H of base and new accuracy (0-1); 0 if one of them is."""
    return 2 * base * new / (base + new) if base > 0 and new > 0 else 0.0


def bootstrap(correct: np.ndarray, groups: np.ndarray, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Bootstrap means of a seeds x items table, resampling seeds and clusters of items.

    Args:
        correct: [seeds, items] of 0 or 1 (or, for a paired comparison, differences of two methods).
        groups: [items], the cluster of each item, such as the drawing it was made from.

    Returns:
        [draws] means; their 2.5 and 97.5 percentiles are the interval.
    """
    rng = np.random.default_rng(seed)
    _, cluster = np.unique(groups, return_inverse=True)
    count = cluster.max() + 1
    sums = np.stack([np.bincount(cluster, row, count) for row in np.asarray(correct, float)])  # [seeds, clusters]
    sizes = np.bincount(cluster, minlength=count)
    seeds = len(sums)
    means = np.empty(draws)
    for draw in range(draws):
        rows, columns = rng.integers(seeds, size=seeds), rng.integers(count, size=count)
        # Counting how often each cluster was drawn is cheaper than copying the drawn columns.
        weight = np.bincount(columns, minlength=count)
        means[draw] = (sums[rows] @ weight).mean() / (sizes @ weight)
    return means


def interval(means: np.ndarray) -> tuple[float, float]:
    """The central 95 % of bootstrap means."""
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
