"""Statistics against hand-computed numbers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rftkit.common.statistics import (
    bootstrap,
    estimates,
    harmonic_mean,
    holm,
    interval,
    proportion,
    resample,
    two_sided,
    wilson,
)


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (0, 0, 0, 1),
        (8, 10, 0.490162, 0.943318),
        (50, 100, 0.403832, 0.596168),
        (0, 10, 0, 0.277533),  # z^2 / (n + z^2)
        (10, 10, 0.722467, 1),
        (1, 1, 0.206549, 1),
    ],
)
def test_wilson_by_hand(correct, n, low, high):
    assert wilson(correct, n) == pytest.approx((low, high), abs=1e-6)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_proportion_and_stays_between_zero_and_one(pair):
    correct, n = pair
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1


@pytest.mark.parametrize("n", [1, 3, 10, 300, 1000])
def test_wilson_of_none_or_all_right_ends_at_zero_or_one_exactly(n):
    assert wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1


def test_wilson_narrows_with_more_items():
    widths = [high - low for low, high in (wilson(n // 2, n) for n in (10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    ("base", "new", "h"),
    [(0.5, 0.5, 0.5), (0.6, 0.3, 0.4), (1, 1, 1), (0, 0.9, 0), (0.9, 0, 0), (0, 0, 0), (0.6210, 0.6627, 0.641173)],
)
def test_harmonic_mean_by_hand(base, new, h):
    assert harmonic_mean(base, new) == pytest.approx(h, abs=1e-6)


def test_constant_data_have_an_interval_without_width():
    assert interval(bootstrap(np.ones((3, 20)), np.arange(20))) == (1, 1)


def test_proportion_of_nothing_is_unknown():
    assert proportion(0, 0) == {"n": 0, "correct": 0, "accuracy": 0.0, "ci_low": 0.0, "ci_high": 1.0}


def test_the_bootstrap_has_the_standard_error_of_a_proportion():
    means = bootstrap(np.tile([0, 1, 1, 1], 100)[None], np.arange(400), draws=4000)
    assert means.mean() == pytest.approx(0.75, abs=0.002)
    assert means.std() == pytest.approx((0.75 * 0.25 / 400) ** 0.5, rel=0.05)


def test_clusters_of_like_items_widen_the_interval():
    correct = np.repeat(np.tile([0, 1], 10), 5)[None]  # 20 drawings, five pictures of each
    drawings, pictures = np.repeat(np.arange(20), 5), np.arange(100)
    deviations = [bootstrap(correct, groups).std() for groups in (drawings, pictures)]
    assert deviations[0] / deviations[1] == pytest.approx(5**0.5, rel=0.05)


def test_seeds_that_differ_widen_the_interval():
    alike, apart = np.array([[0, 1] * 50, [1, 0] * 50]), np.array([[0] * 100, [1] * 100])
    assert bootstrap(apart, np.arange(100)).std() > 5 * bootstrap(alike, np.arange(100)).std()


def test_base_models_that_differ_widen_the_interval_more_than_their_seeds_do():
    correct = np.array([[0] * 100] * 5 + [[1] * 100] * 5)
    one_level, two_levels = (bootstrap(correct, np.arange(100), bases) for bases in (None, [0] * 5 + [1] * 5))
    assert set(two_levels) == {0, 0.5, 1} and (two_levels == 0.5).mean() == pytest.approx(0.5, abs=0.05)
    assert one_level.std() == pytest.approx(0.5 / 10**0.5, rel=0.1)


def test_one_base_model_changes_nothing():
    correct = np.random.default_rng(0).integers(0, 2, (3, 50))
    assert np.array_equal(bootstrap(correct, np.arange(50)), bootstrap(correct, np.arange(50), ["a"] * 3))


def test_clusters_may_have_names_and_sizes_of_their_own():
    means = bootstrap(np.array([[1, 1, 1, 0]]), np.array(["a", "a", "a", "b"]), draws=500)
    assert set(np.round(means, 6)) == {0, 0.75, 1}  # b twice, one of each, a twice


def test_paired_differences_of_equal_methods_are_zero():
    first = np.random.default_rng(0).integers(0, 2, (3, 50))
    assert interval(bootstrap(first - first, np.arange(50))) == (0, 0)


def answers(seeds, **splits):
    """Answers (0 or 1) to the items of some splits, the same with each seed, a drawing an item."""
    rows = [("nano-s", seed, split, f"{split}{item}", f"{split}{item}", right) for seed in range(seeds)
            for split, right_of in splits.items() for item, right in enumerate(right_of)]  # fmt: skip
    return pd.DataFrame(rows, columns=["base", "seed", "split", "id", "group", "correct"])


def test_none_or_all_right_has_wilsons_interval():
    share = 16 / (16 + 1.959964**2)  # by hand: n / (n + z^2) = 0.8064
    found = estimates(answers(3, base=[0] * 16, new=[1] * 16))  # three seeds, but sixteen items
    assert found["base"] == pytest.approx((0, 0, 1 - share)) and found["new"] == pytest.approx((1, share, 1))
    assert found["h"] == pytest.approx((0, 0, 2 * (1 - share) / (2 - share)))  # H of (0, share) and of (1 - share, 1)
    parts = estimates(answers(1, **{"level 1": [0] * 16, "level 2": [0] * 16}))
    assert parts["mean"] == pytest.approx((0, 0, 1 - share))


def test_items_of_one_drawing_are_one_trial_of_wilsons():
    table = answers(1, all=[1] * 16).assign(group="one drawing")
    assert estimates(table)["all"] == pytest.approx((1, 1 / (1 + 1.959964**2), 1))


def test_elsewhere_intervals_are_the_bootstraps():
    table = answers(2, base=[0, 1] * 8, new=[1] * 16)
    found, drawn = estimates(table), resample(table)
    assert found["base"][1:] == interval(drawn["base"][1]) and found["h"][1:] == interval(drawn["h"][1])


def test_the_bootstrap_depends_on_its_seed_alone():
    correct, groups = np.random.default_rng(0).integers(0, 2, (3, 50)), np.arange(50)
    assert np.array_equal(bootstrap(correct, groups, stream=1), bootstrap(correct, groups, stream=1))
    assert not np.array_equal(bootstrap(correct, groups, stream=1), bootstrap(correct, groups, stream=2))


@pytest.mark.parametrize(
    ("values", "corrected"),
    [
        ([], []),
        ([0.02], [0.02]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # by hand: 3 x 0.01, then 2 x 0.03, then no less than before
        ([0.9, 0.8], [1.0, 1.0]),
    ],
)
def test_holm(values, corrected):
    assert holm(values) == pytest.approx(corrected)


def test_two_sided_p_values():
    assert two_sided(np.arange(1, 100)) == pytest.approx(2 / 100)  # no draw beyond zero
    assert two_sided(np.array([-1, 1] * 50)) == 1.0
    assert two_sided(np.zeros(10)) == 1.0
