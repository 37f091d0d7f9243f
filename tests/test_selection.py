"""The choice of steps and rates: a run that diverges is no end of it, and a changed rule looks anew."""

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import yaml

from rftkit.common.errors import UserError
from rftkit.settings import METHODS, read_claims
from rftkit.tools import select as selection


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """`rftkit select` for SFT on the smallest of grids, in this process; what it chose and all points."""
    monkeypatch.setattr(selection, "METHODS", {"sft": METHODS["sft"]})
    monkeypatch.setattr(selection, "pool", lambda **_: ThreadPoolExecutor(1))

    def choose(items, *rates):
        rule = {"seed": 100, "items": items, "learning_rates": rates, "steps": 2, "every": 1}
        monkeypatch.setattr(selection, "read_claims", lambda: read_claims() | {"selection": rule})
        chosen = yaml.safe_load(selection.select("smoke", "shapes", tmp_path))
        return chosen["methods"], pd.read_csv(tmp_path / "selection-shapes.csv")

    return choose


def test_a_run_that_diverges_is_the_worst_and_the_others_are_chosen_among(choose, capsys):
    chosen, points = choose(2, 1e30, 1e-3)
    assert chosen["sft"]["learning_rate"] == 1e-3
    diverged = points[points["learning_rate"] == 1e30]
    assert sorted(diverged["step"]) == [1, 1, 2, 2] and (diverged[["n", "strict", "lenient"]] == 0).all(axis=None)
    said = [line for line in capsys.readouterr().err.splitlines() if "diverged" in line]
    assert len(said) == 1
    assert "sft with learning rate 1e+30 diverged and counts as the worst: training stopped: " in said[0]


def test_a_method_that_diverges_with_every_rate_is_said(choose, tmp_path):
    with pytest.raises(UserError, match="every run of sft diverged"):
        choose(2, 1e30)
    assert (tmp_path / "selection-shapes.csv").is_file()


def test_a_curve_of_other_held_out_items_is_not_found_again(choose):
    for items in (2, 4):
        assert set(choose(items, 1e-3)[1]["n"]) == {items}
