"""The matrix of gains: trained on one set, tested on all."""

import pandas as pd
import pytest
from test_report import some_run

from rftkit.analysis import cross_set as module
from rftkit.analysis.cross_set import (
    archived_matrices,
    gains,
    gains_elsewhere,
    matrices,
    paper_matrices,
    with_difference,
    write_matrix,
)
from rftkit.analysis.paper import paper_gains
from rftkit.evaluate import evaluate_data
from rftkit.report.figures import matrix_figure
from rftkit.run import execute
from rftkit.runs.folder import read_results
from rftkit.settings import load_settings


def mean_accuracy(model, dataset, **options):
    """Of the first 12 test items of base and new classes."""
    report = evaluate_data(model, dataset, test_items=12, max_tokens=12, progress=False, **options)["eval"]
    return sum(part["accuracy"] for part in report.values()) / 2


def test_gains_are_accuracy_after_minus_before(tmp_path):
    folder = execute(load_settings("smoke", "no_thinking_rl", learning_rate=3e-3, pass_items=0), tmp_path)
    table = gains([read_results(folder)], ["shapes", "digits"], items=12)
    assert list(table.index) == ["shapes"] and list(table.columns) == ["shapes", "digits"]
    after = mean_accuracy("nano-s", "digits", adapter=str(folder / "adapter"))
    assert table.loc["shapes", "digits"] == pytest.approx(after - mean_accuracy("nano-s", "digits"))
    assert matrix_figure({"ours": 100 * table}, "points").axes


def test_thoughts_have_the_room_of_the_run_or_of_the_set(tmp_path, monkeypatch):
    folder = execute(load_settings("smoke", "cls_rl", steps=1, pass_items=0, max_completion_tokens=50), tmp_path)
    seen, answer = [], module.answer_rows

    def spy(*args, max_tokens, **options):
        seen.append(max_tokens)
        return answer(*args, max_tokens=2, **options)

    monkeypatch.setattr(module, "answer_rows", spy)
    gains([read_results(folder)], ["shapes", "math"], items=1)
    assert set(seen) == {50, 64}
    short = execute(load_settings("smoke", "cls_rl", steps=1, pass_items=0, seed=1), tmp_path)
    seen.clear()
    gains(
        [read_results(short), read_results(folder)], ["shapes"], items=1
    )  # one room for all: a gain is no matter of the room
    assert set(seen) == {50}


def test_a_run_of_all_weights_is_loaded_as_it_was_trained(tmp_path):
    settings = load_settings("smoke", "no_thinking_rl", learning_rate=1e-4, pass_items=0, lora_rank=0)
    folder = execute(settings, tmp_path)
    gained = mean_accuracy(str(folder / "model"), "digits") - mean_accuracy("nano-s", "digits")
    assert gains([read_results(folder)], ["digits"], items=12).loc["shapes", "digits"] == pytest.approx(gained)
    assert gained


def test_a_matrix_is_written_for_the_report(tmp_path):
    table = pd.DataFrame({"shapes": [0.5, -0.04], "math": [0.1, 0.6]}, index=["shapes", "math"])
    runs = [some_run(folder=tmp_path / "run")]
    path = write_matrix(table, runs, "bases", ["shapes", "math"])
    assert path.name == "matrix-cls_rl-bases-base_to_new-shapes-math.csv"
    assert gains_elsewhere(tmp_path, "cls_rl") == pytest.approx([0.1, -0.04])
    write_matrix(table, runs, "nano-m", ["shapes"])  # of another start model
    assert len(gains_elsewhere(tmp_path, "cls_rl")) == 2 and gains_elsewhere(tmp_path, "no_thinking_rl") == []


def test_matrices_of_what_ran_are_made_and_written(tmp_path, monkeypatch):
    asked = []

    def counted(runs, sets, items):
        asked.append((runs[0].method, [run.seed for run in runs], items))
        return pd.DataFrame({"shapes": [0.5]}, index=["shapes"])

    monkeypatch.setattr(module, "gains", counted)
    five = [some_run(seed=seed, folder=tmp_path / "run") for seed in range(5)]
    found = matrices({"shapes": {"cls_rl": five, "sft": five}}, 12, "my/model")
    assert asked == [("cls_rl", [0, 1, 2], 12)] and found["CLS-RL (thinking)"].loc["shapes", "shapes"] == 50
    assert (tmp_path / "matrix-cls_rl-model-base_to_new-shapes.csv").is_file()
    assert matrices({"shapes": {"cls_rl": five}}, 0, None) == {}


@pytest.mark.parametrize("found", [archived_matrices, paper_matrices])
def test_the_difference_of_two_matrices_stands_beside_them(found):
    thinking, without, difference = with_difference(found()).values()
    assert (thinking + difference - without).abs().max().max() < 1e-9


@pytest.mark.parametrize("method", ["cls_rl", "no_thinking_rl"])
def test_the_papers_matrix_is_eleven_by_eleven(method):
    assert paper_gains(method).shape == (11, 11)
