"""Every claim of the paper with a number, beside what runs say."""

import json

import numpy as np
import pandas as pd
import pytest
from test_report import make_run

from rftkit.analysis.paper_claims import claim_rows
from rftkit.common.errors import UserError
from rftkit.common.statistics import bootstrap
from rftkit.report.pages import write_report
from rftkit.report.tables import markdown, paper_claims_table
from rftkit.runs.collect import load_runs


def rows_of(place):
    """Rows by claim and set; none twice."""
    rows = claim_rows(load_runs(place), [place])
    found = {(row.claim, "; ".join(filter(None, (row.place, *row.paper)))): row for row in rows}
    assert len(found) == len(rows)
    return found


def paper(row):
    """The paper's number."""
    (number,) = row.paper.values()
    return number


@pytest.fixture
def runs(tmp_path):
    for seed in range(3):
        place = tmp_path / "nano"
        make_run(place / f"cls-{seed}", "cls_rl", seed, "thinking", [1, 1, 1, 0], [1, 0, 1, 0], seconds=24.0 + seed)
        make_run(place / f"no-{seed}", "no_thinking_rl", seed, "no_thinking", [1] * 4, [1] * 4, seconds=12.0)
        make_run(place / f"sft-{seed}", "sft", seed, "no_thinking", [1, 0, 0, 0], [1, 0, 0, 0], control="dpo")
    return tmp_path


def test_training_times_are_compared_seed_by_seed(runs):
    row = rows_of(runs)["Thinking takes longer to train", "shapes; ImageNet, few-shot"]
    assert paper(row) == pytest.approx(1587 / 94) and row.unit == "times"
    assert row.difference[0] == pytest.approx(25 / 12) and row.difference[1] >= 2 and row.verdict == "same direction"


def test_the_primary_comparisons_keep_their_verdicts(runs):
    row = rows_of(runs)["no-thinking RL beats thinking RL", "shapes (H); mean of 11 sets"]
    assert paper(row) == pytest.approx(0.0249) and row.difference[0] == pytest.approx(1 - 2 * 0.75 * 0.5 / 1.25)
    assert row.by == "p, Holm-corrected" and row.verdict == "same direction" and len(row.runs) == 3


def test_dpo_stands_beside_the_papers(runs):
    row = rows_of(runs)["DPO with own wrong answers, minus thinking RL", "shapes (H); aircraft, few-shot"]
    assert paper(row) == pytest.approx((51.25 - 74.41) / 100) and row.difference[0] == pytest.approx(0.25 - 0.6)


def thoughts(place, **changed):
    found = {
        "profile": "nano",
        "dataset": "math",
        "runs": [["nano-s", seed] for seed in range(3)],
        "thinks": 0.9,
        "emptied": -0.5,
        "at_odds": -0.45,
        "tables": {},
    }
    place.write_text(json.dumps(found | changed))


def test_what_notebooks_wrote_is_counted(runs):
    place = runs / "nano"
    (place / "matrix-cls_rl-bases-base_to_new-math-puzzle.csv").write_text(",math,puzzle\nmath,50,10\npuzzle,-4,60\n")
    (place / "matrix-no_thinking_rl.csv").write_text(",math,puzzle\nmath,50,1\npuzzle,1,60\n")
    (place / "matrix-cls_rl-nano-m-base_to_new-math-puzzle.csv").write_text(",math,puzzle\nmath,50,90\npuzzle,90,60\n")
    thoughts(place / "thoughts-math-bases.json")
    thoughts(place / "thoughts-math-nano-m.json", runs=[["nano-m", 0]])
    rows = rows_of(runs)
    pairs = "2 pairs of sets, {} above zero; 110"
    assert rows["CLS-RL (thinking) gains on sets not trained on", pairs.format(1)].difference == pytest.approx((0.03,))
    assert rows["No-Thinking-RL gains on sets not trained on", pairs.format(2)].difference == pytest.approx((0.01,))
    turned = rows["Without thinking more is gained there", "the same pairs"]
    assert turned.difference == pytest.approx((-0.02,)) and turned.verdict == "other side" and paper(turned) > 0
    thinks = rows["Adaptive-Thinking thinks in so many test answers", "math; MathVista"]
    assert (paper(thinks), thinks.difference, thinks.verdict) == (0, (0.9,), "other side")
    empty = rows["A model trained to think, its thoughts emptied: the difference", "math; MathVision"]
    assert empty.difference == (-0.5,) and paper(empty) == pytest.approx((15.79 - 16.45) / 100)
    odds = rows["Answers at odds with their own thoughts: accuracy, minus the average", "math; figure 2"]
    assert odds.difference == (-0.45,) and odds.verdict == "same side"
    assert "| below | -45.0 |" in markdown(paper_claims_table(list(rows.values())))


def test_too_few_seeds_of_thoughts_say_so_and_other_files_are_one_line(runs):
    place = runs / "nano" / "thoughts-puzzle-bases.json"
    thoughts(place, dataset="puzzle", runs=[["nano-s", 0]])
    found = [row for (_, where), row in rows_of(runs).items() if where.startswith("puzzle")]
    assert found and {row.verdict for row in found} == {"too few seeds"}
    place.write_text("{}")
    with pytest.raises(UserError, match="is not what notebook 06 writes"):
        rows_of(runs)


def drawn(place, method, mode, parts, model, seed, dataset="puzzle", rule="choice_letter"):
    """A run on a drawn set: its answers (0 or 1) by part."""
    make_run(place, method, seed, mode, [], [], model=model, dataset=dataset, task=dataset, scoring=rule)
    rows = [{"split": part, "id": f"{dataset}-test-kind-1-{part}{n}", "group": f"{part}{n}", rule: float(r)}
            for part, right in parts.items() for n, r in enumerate(right)]  # fmt: skip
    pd.DataFrame(rows).assign(mode=mode).to_parquet(place / "predictions.parquet")


def test_each_column_of_the_paper_stands_beside_its_part(tmp_path):
    for seed in range(8):
        for method, mode, right in (("cls_rl", "thinking", 1), ("no_thinking_rl", "no_thinking", 0)):
            parts = {"patterns": [right] * 4, "untrained kinds": [1] * 4}
            drawn(tmp_path / f"{method}{seed}", method, mode, parts, "nano-s", seed)
    rows = rows_of(tmp_path)
    claim = "Thinking before the answer beats not thinking"
    patterns, untrained = (
        rows[claim, "puzzle (patterns); PuzzleVQA"],
        rows[claim, "puzzle (untrained kinds); AlgoPuzzleVQA"],
    )
    assert patterns.difference[0] == 1 and patterns.verdict == "opposite" and paper(patterns) == pytest.approx(-0.1835)
    assert untrained.difference[0] == 0 and untrained.verdict == "undecided"


def test_whatever_has_an_interval_says_what_could_have_been_seen(runs):
    rows = rows_of(runs)
    assert {row.by for row in rows.values()} == {"p, Holm-corrected", "95 % interval, uncorrected"}
    assert all(row.smallest >= 0 and row.runs for row in rows.values())
    ratios = np.array([24, 25, 26]) / 12
    draws = bootstrap(ratios[:, None], np.zeros(1), ["model"] * 3)
    times = rows["Thinking takes longer to train", "shapes; ImageNet, few-shot"]
    assert times.smallest == pytest.approx((1.959964 + 0.841621) * draws.std())  # of 5 % and 80 %
    assert f"| {times.smallest:.1f} times |" in markdown(paper_claims_table([times]))


def test_sets_on_which_sft_is_ahead_are_counted(tmp_path):
    for dataset, right in (("shapes", 1), ("digits", 0)):
        for seed in range(3):
            place = tmp_path / f"{dataset}{seed}"
            make_run(place / "sft", "sft", seed, "no_thinking", [right, 1], [1, 1], dataset=dataset)
            make_run(place / "no", "no_thinking_rl", seed, "no_thinking", [1 - right, 1], [1, 1], dataset=dataset)
    ((_, row),) = [(key, row) for key, row in rows_of(tmp_path).items() if "is ahead" in key[0]]
    assert (
        row.difference == (0.5,) and row.paper == pytest.approx({"11": 2 / 11}) and row.place == "2 classification sets"
    )


def test_a_larger_model_stands_beside_the_papers(tmp_path):
    for model, right in (("nano-s", 0), ("nano-m", 1)):
        for seed in range(3):
            place = tmp_path / f"{model}{seed}"
            drawn(place / "cls", "cls_rl", "thinking", {"level 1": [right] * 4}, model, seed, "math", "math")
            drawn(place / "no", "no_thinking_rl", "no_thinking", {"level 1": [0] * 4}, model, seed, "math", "math")
    row = rows_of(tmp_path)["Larger models profit more from thinking", "math (level 1); MathVista, 7B minus 2B"]
    assert row.difference[0] == 1 and paper(row) == pytest.approx(0.094) and row.verdict == "same direction"


def test_models_beside_the_designs_do_not_speak_of_the_papers_small_one(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f"cls-{seed}", "cls_rl", seed, "thinking", [1], [1], model="other", seconds=2.0)
        make_run(tmp_path / f"no-{seed}", "no_thinking_rl", seed, "no_thinking", [1], [1], model="other", seconds=1.0)
    assert rows_of(tmp_path) == {}


def test_the_report_has_the_table_and_its_numbers(runs):
    text, path = write_report(runs)
    assert "## Claims of the paper with a number" in text and "16.9 times" in text
    assert len(json.loads((path.parent / "report-claims.json").read_text())) >= 3
