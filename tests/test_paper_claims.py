"""Every claim of the paper with a number, beside what runs say."""

import json

import pytest

from rftkit.paper_claims import claim_rows
from rftkit.report import write_report
from rftkit.sections import load_runs
from rftkit.tables import paper_claims_table
from tests.test_report import make_run


def rows_of(place):
    return {
        (row["claim"], row["set"].partition(" ")[0].rstrip(";")): row for row in claim_rows(load_runs(place), [place])
    }


@pytest.fixture
def runs(tmp_path):
    for seed in range(3):
        place = tmp_path / "nano"
        make_run(place / f"cls-{seed}", "cls_rl", seed, "thinking", [1, 1, 1, 0], [1, 0, 1, 0], seconds=24.0 + seed)
        make_run(place / f"no-{seed}", "no_thinking_rl", seed, "no_thinking", [1] * 4, [1] * 4, seconds=12.0)
        make_run(place / f"sft-{seed}", "sft", seed, "no_thinking", [1, 0, 0, 0], [1, 0, 0, 0], control="dpo")
    return tmp_path


def test_training_times_are_compared_seed_by_seed(runs):
    row = rows_of(runs)["Thinking before the answer takes longer to train", "shapes"]
    assert row["paper"] == pytest.approx(1587 / 94) and row["unit"] == "times"
    assert row["here"][0] == pytest.approx(25 / 12) and row["here"][1] >= 2 and row["verdict"] == "same direction"


def test_the_primary_comparisons_keep_their_verdicts(runs):
    row = rows_of(runs)["no-thinking RL beats thinking RL", "shapes"]
    assert row["paper"] == pytest.approx(0.0249) and row["here"][0] == pytest.approx(1 - 2 * 0.75 * 0.5 / 1.25)
    assert row["by"] == "p, Holm-corrected" and row["smallest"] >= 0


def test_dpo_stands_beside_the_papers(runs):
    row = rows_of(runs)["DPO with own wrong answers, minus thinking RL", "shapes"]
    assert row["paper"] == pytest.approx((51.25 - 74.41) / 100) and row["here"][0] == pytest.approx(0.25 - 0.6)


def test_what_notebooks_wrote_is_counted(runs):
    (runs / "matrix-cls_rl.csv").write_text(",math,puzzle\nmath,50.0,10.0\npuzzle,-4.0,60.0\n")
    said = [
        {"thought": "agrees", "share": 0.9, "accuracy": 0.8},
        {"thought": "disagrees", "share": 0.1, "accuracy": 0.3},
    ]
    kept = {
        "thinks": 0.9,
        "interventions": {
            "a, before training": {"own": 0, "empty": 1},
            "a, after training": {"own": 0.7, "empty": 0.2},
        },
        "agreement": {"CLS-RL (thinking)": said},
    }
    (runs / "thoughts-math-bases.json").write_text(json.dumps(kept))
    rows = rows_of(runs)
    lunch = rows["CLS-RL (thinking) gains on sets it was not trained on", "2"]
    assert lunch["set"] == "2 pairs of sets, 1 above zero" and lunch["here"] == pytest.approx((0.03,))
    thinks = rows["Adaptive-Thinking thinks in so many test answers", "math"]
    assert (thinks["paper"], thinks["here"], thinks["verdict"]) == (0, (0.9,), "opposite")
    empty = rows["A model trained to think, its thoughts emptied: the difference", "math"]
    assert empty["here"] == pytest.approx((-0.5,)) and empty["paper"] == pytest.approx(-0.03)
    odds = rows["Answers at odds with their own thoughts: accuracy, minus the average", "math"]
    assert odds["here"] == pytest.approx((0.3 - 0.75,)) and odds["verdict"] == "same direction"
    assert "| below | -45.0 |" in paper_claims_table(list(rows.values()))


def test_models_beside_the_designs_do_not_speak_of_the_papers_small_one(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f"cls-{seed}", "cls_rl", seed, "thinking", [1], [1], model="other", seconds=2.0)
        make_run(tmp_path / f"no-{seed}", "no_thinking_rl", seed, "no_thinking", [1], [1], model="other", seconds=1.0)
    assert rows_of(tmp_path) == {}


def test_the_report_has_the_table_and_its_numbers(runs):
    text, path = write_report(runs)
    assert "## Every claim of the paper with a number" in text and "16.9 times" in text
    assert len(json.loads((path.parent / "report-claims.json").read_text())) >= 3
