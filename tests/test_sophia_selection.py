"""SOPHIA's rewards and selection, beside cases worked out by hand and a plain reading of the paper's equation 6."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rftkit.sophia.selection import SELECTIONS, Selection, caption_rewards, select


def table(*rows):
    return pd.DataFrame(rows, columns=["item", "k", "n", "right", "tokens", "text"])


def chosen(reasonings, by, seed=0):
    return [tuple(row) for row in select(reasonings, by, seed)[["item", "k", "n"]].to_numpy().tolist()]


# Two captions with N = 4: the first earns 3/4, the second 4/4. Its shortest is the third one's equal.
ONE = table(
    (0, 0, 0, 1, 5, "a"), (0, 0, 1, 0, 2, "b"), (0, 0, 2, 1, 9, "c"), (0, 0, 3, 1, 9, "d"),
    (0, 1, 0, 1, 8, "e"), (0, 1, 1, 1, 7, "f"), (0, 1, 2, 1, 7, "g"), (0, 1, 3, 1, 12, "h"),
)  # fmt: skip


def test_a_caption_earns_the_share_of_its_reasonings_that_are_right():
    assert caption_rewards(ONE).tolist() == [0.75] * 4 + [1.0] * 4


@pytest.mark.parametrize(
    ("by", "kept"),
    [
        (SELECTIONS["sophia"], [(0, 1, 1)]),  # 3/4 is not above 0.75; of the two with 7 tokens the earlier
        (Selection(keep=2), [(0, 1, 1), (0, 1, 2)]),
        (Selection(keep=8), [(0, 1, 1), (0, 1, 2), (0, 1, 0), (0, 1, 3)]),
        (Selection(alpha=0.5), [(0, 0, 0)]),
        (Selection(alpha=0.5, keep=2), [(0, 0, 0), (0, 1, 1)]),
        (Selection(alpha=1.0), []),  # nothing is above 1
        (SELECTIONS["outcome"], [(0, 0, 0)]),
        (Selection(alpha=None, right=False), [(0, 0, 1)]),  # the shortest of all is wrong
    ],
)
def test_selection_by_hand(by, kept):
    assert chosen(ONE, by) == kept


def test_with_eight_reasonings_seven_must_be_right():
    def item(number, right):
        return [(number, 0, n, int(n < right), 9, f"{n}") for n in range(8)]

    assert chosen(table(*item(0, 6), *item(1, 7), *item(2, 8)), SELECTIONS["sophia"]) == [(1, 0, 0), (2, 0, 0)]


def test_a_text_counts_once_and_none_is_never_taken():
    same = table((0, 0, 0, 1, 5, "a"), (0, 0, 1, 1, 5, "a"), (0, 0, 2, 1, 6, "b"), (1, 0, 0, 0, 0, None))
    assert chosen(same, Selection(keep=8)) == [(0, 0, 0), (0, 0, 2)]
    assert chosen(same, SELECTIONS["random"])[-1][0] == 0


def test_a_missing_reasoning_counts_as_wrong():
    gaps = table((0, 0, 0, 1, 5, "a"), (0, 0, 1, 1, 5, "b"), (0, 0, 2, 1, 5, "c"), (0, 0, 3, 0, 0, None))
    assert caption_rewards(gaps).tolist() == [0.75] * 4 and chosen(gaps, SELECTIONS["sophia"]) == []


def test_random_takes_wrong_ones_too_and_another_seed_others():
    drawn = [chosen(ONE, SELECTIONS["random"], seed)[0] for seed in range(40)]
    assert len(set(drawn)) > 6 and (0, 0, 1) in drawn
    assert chosen(ONE, SELECTIONS["random"], 7) == [drawn[7]]


def by_the_book(rows, by):
    """Equation 6 read aloud, for the ones that do not draw."""
    kept = []
    for item in sorted({row[0] for row in rows}):
        fit = []
        for row in rows:
            own = [other[3] for other in rows if other[:2] == row[:2]]
            above = by.alpha is None or sum(own) / len(own) > by.alpha
            if row[0] == item and row[5] is not None and above and (row[3] == 1 or not by.right):
                fit.append(row)
        seen, best = set(), []
        for row in sorted(fit, key=lambda row: (row[4], row[1], row[2])):
            if row[5] not in seen:
                seen.add(row[5])
                best.append(row[:3])
        kept += best[: by.keep]
    return kept


REASONINGS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.integers(0, 1), st.integers(1, 4),
              st.sampled_from([None, "a", "b", "c"])),
    min_size=1, max_size=24, unique_by=lambda row: row[:3],
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(REASONINGS, st.sampled_from([None, 0.0, 0.5, 0.75]), st.booleans(), st.sampled_from([1, 2, 8]))
def test_selection_is_the_papers(rows, alpha, right, keep):
    rows = [row if row[5] is not None else (*row[:3], 0, *row[4:]) for row in rows]
    by = Selection(alpha, right, True, keep)
    assert chosen(table(*rows), by) == chosen(table(*reversed(rows)), by) == by_the_book(rows, by)
    drawn = Selection(alpha, right, False, keep)
    taken, every = select(table(*rows), drawn, 3), by_the_book(rows, Selection(alpha, right, True, 99))
    texts = {row[:3]: row[5] for row in rows}
    assert len(taken) == len(by_the_book(rows, by)) and set(taken["text"]) <= {texts[place] for place in every}
