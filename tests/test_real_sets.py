"""The paper's real sets, each as a tiny copy in its own format: load, prompt, score, split; and what can be wrong."""

import json
from dataclasses import replace

import pytest
import real_formats as formats

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.prompts import question_text
from rftkit.rewards import score
from rftkit.run import execute, folder_of
from rftkit.runs.folder import read_results
from rftkit.settings import load_settings
from rftkit.tasks.images import open_image
from rftkit.tasks.outside.real_sets import AUTHORS, REAL_SETS
from rftkit.tasks.registry import open_set

# Set, its format, split and item; the user's text up to the suffix; completions that are right and wrong.
FORMATS = [
    ("dtd-4shot-b2n", formats.authors, "shots", 1,
     "What type of texture is in the photo?\n Please choose one from list [ banded, blotchy].",
     ["blotchy", "Blotchy"], ["banded", "B"]),
    ("sat", formats.sat, "test", 0, "Is the chair left of the table?\n (A) ", ["yes"], ["no"]),
    ("sat-15000", formats.sat_15000, "shots", 0, "Is the cup left or right of the lamp? Choose left or right.",
     ["left"], ["right", "A"]),
    ("cv-bench", formats.cv_bench, "test", 0, "How many pens are there?\n (A) 2 (B) 1 (C) 3",
     ["(C)", "C", "3", "C. 3"], ["(A)", "1", "2 or 3", "(C) 1"]),
    ("mathvista", formats.mathvista, "test", 0, "Which is larger?\n (A) larger than (B) equal to",
     ["equal to", "(B)"], ["larger than", "A"]),
    ("mathvista", formats.mathvista, "test", 1, "How long is the side? Answer in cm. Round to 1 decimal.",
     ["1.5", "1.50 cm"], ["15", "1"]),
    ("mathvision", formats.mathvision, "test", 0, "Which one?\n (A) B (B) C (C) A", ["C"], ["B", "A"]),
    ("mathvision", formats.mathvision, "test", 1, "How many squares?\n Please", ["12"], ["13", "12 or 13"]),
    ("mathvision", formats.mathvision_github, "test", 0, "Which one?\n (A) B (B) A (C) C", ["A", "(B)"], ["C"]),
    ("mathvision", formats.mathvision_github, "test", 1, "How many squares?\n Please", ["12"], ["13"]),
    ("mathvista", formats.mathvista_github, "test", 0, "Which is larger?\n (A) larger than (B) equal to",
     ["equal to", "(B)"], ["larger than", "A"]),
    ("mathvista", formats.mathvista_github, "test", 1, "How long is the side? Answer in cm. Round to 1 decimal.",
     ["1.5"], ["15"]),
    ("puzzlevqa", formats.puzzlevqa, "shots", 0,
     "What is the size of the missing circle denoted with a question mark?\n (A) small (B) medium (C) large",
     ["medium", "(B)"], ["small", "A"]),
    ("algopuzzlevqa", formats.algopuzzlevqa, "test", 0, "How many moves?\n (A) 5 (B) 3 (C) 4 (D) 2", ["3", "B"], ["A"]),
    ("algopuzzlevqa", formats.algopuzzlevqa_json, "test", 0, "How many moves?\n (A) 5 (B) 3", ["3", "B"], ["2"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "build", "split", "item", "text", "right", "wrong"), FORMATS)
def test_each_format_is_loaded_asked_and_scored(tmp_path, name, build, split, item, text, right, wrong):
    dataset = f"{name}@{build(tmp_path)}"
    example = open_set(dataset).examples(split, "test", None, 0)[item]
    asked = question_text(example, "no_thinking")
    assert asked.startswith(text) and asked.endswith("\n Please directly output the answer.")
    assert example.task == open_set(dataset).task and example.dataset == name
    assert all(open_image(image, item=example.id).mode == "RGB" for image in example.images)
    for said in right:
        assert score(said, example, "no_thinking", open_set(dataset).rule).accuracy == 1, said
        assert score(
            f"<think> so </think> <answer> {said} </answer>", example, "thinking", open_set(dataset).rule
        ).accuracy
    for said in wrong:
        assert score(said, example, "no_thinking", open_set(dataset).rule).accuracy == 0, said


def test_mathv360k_has_choices_or_a_number(tmp_path):
    found = open_set(f"mathv360k@{formats.mathv360k(tmp_path)}").examples("shots", "test", None, 0)
    chosen = next(example for example in found if example.choices)
    number = next(example for example in found if not example.choices)
    assert (chosen.question, chosen.choices, chosen.answer) == ("Find $m\\angle H$", ("97", "102", "107"), "102")
    assert (number.question, number.answer) == ("How many legs are there?", "4")
    assert score("(B)", chosen, "no_thinking", "math").accuracy and score("4", number, "no_thinking", "math").accuracy


def test_a_picture_is_in_one_split_only(tmp_path):
    dataset = f"mathv360k@{formats.mathv360k(tmp_path)}"
    parts = [open_set(dataset).examples(split, "test", None, 0) for split in ("shots", "val")]
    files = [{example.images[0] for example in part} for part in parts]
    assert all(files) and not files[0] & files[1] and sum(map(len, parts)) == 20


def test_sat_is_what_the_paper_took_one_image_first_rows_shuffled_answers(tmp_path, monkeypatch):
    dataset = f"sat@{formats.sat(tmp_path)}"
    train = [*open_set(dataset).read("shots"), *open_set(dataset).read("val")]
    assert len(train) == 30 and all(len(example.images) == 1 for example in train)  # every second row has two
    assert {example.choices.index(example.answer) for example in train} == {0, 1}
    assert [len(example.images) for example in open_set(dataset).examples("test", "test", None, 0)] == [2, 2]
    monkeypatch.setitem(REAL_SETS, "sat", replace(REAL_SETS["sat"], first_rows=10))
    assert len([*open_set(dataset).read("shots"), *open_set(dataset).read("val")]) == 5


@pytest.mark.parametrize(
    ("name", "build", "split"),
    [
        ("cv-bench", formats.cv_bench, "test"),
        ("sat", formats.sat, "shots"),
        ("sat", formats.sat, "test"),
        ("mathvision", formats.mathvision, "test"),
        ("dtd-4shot-b2n", formats.authors, "shots"),
    ],
)
def test_the_hub_and_a_folder_give_the_same_rows(tmp_path, monkeypatch, name, build, split):
    """A folder stands for the hub here: the library reads both alike, the card's list of splits included."""
    folder = build(tmp_path / "hub")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setitem(REAL_SETS, name, replace(REAL_SETS[name], where=str(folder)))
    assert open_set(f"hub:{name}").examples(split, "test", None, 0) == open_set(f"{name}@{folder}").examples(
        split, "test", None, 0
    )


def test_questions_about_one_picture_are_one_group(tmp_path):
    dataset = f"mathvista@{formats.mathvista(tmp_path)}"  # both rows have the same picture
    assert len({example.group for example in open_set(dataset).examples("test", "test", None, 0)}) == 1
    other = open_set(f"cv-bench@{formats.cv_bench(tmp_path / 'b')}").examples("test", "test", None, 0)
    assert len({example.group for example in other}) == len(other) == 4


def test_other_files_beside_the_rows_are_passed_over(tmp_path):
    folder = formats.mathvista(tmp_path)
    (folder / "source.json").write_text("{}")
    (folder / "data" / "test-00000-of-00001.parquet").write_bytes(b"the part without answers")
    assert len(open_set(f"mathvista@{folder}").examples("test", "test", None, 0)) == 2


def test_a_sample_is_drawn_by_its_seed_and_keeps_the_order(tmp_path):
    dataset = f"cv-bench@{formats.cv_bench(tmp_path)}"
    drawn = {seed: [e.id for e in open_set(dataset).examples("test", "test", 2, seed)] for seed in range(8)}
    assert (
        all(len(ids) == 2 and ids == sorted(ids) for ids in drawn.values()) and len(set(map(tuple, drawn.values()))) > 1
    )
    assert drawn[0] == [e.id for e in open_set(dataset).examples("test", "test", 2, 0)]


def test_the_authors_sets_are_taken_whole(tmp_path):
    dataset = f"cars-4shot-b2n@{formats.authors(tmp_path, 60)}"
    assert len(open_set(dataset).training("base_to_new", 4, 8, 0)) == 60 and set(open_set(dataset).splits) == {"shots"}
    assert (
        len([name for name in REAL_SETS if name.endswith(("-4shot-b2n", "-4shot-fewshot"))]) == 2 * len(AUTHORS) == 22
    )


@pytest.mark.parametrize("solution", ["blotchy", "<answer>blotchy</answer>", "<answer> blotchy </answer>\n"])
def test_solutions_stand_in_tags_or_bare(tmp_path, solution):
    problem = "What type of texture is in the photo?\n Please choose one from list [ banded, blotchy]."
    row = {"image": formats.picture(0), "problem": problem, "solution": solution}
    formats.parquet(tmp_path / "train.parquet", [row], image=formats.IMAGE)
    (example,) = open_set(f"dtd-4shot-fewshot@{tmp_path}").examples("shots", "test", None, 0)
    assert (example.answer, example.choices) == ("blotchy", ("banded", "blotchy"))


def test_a_run_trains_on_one_set_and_tests_on_another(tmp_path):
    sets = {
        "dataset": f"sat@{formats.sat(tmp_path / 'a')}",
        "eval_dataset": f"cv-bench@{formats.cv_bench(tmp_path / 'b')}",
    }
    settings = load_settings("smoke", "cls_rl", **sets, steps=1)
    assert (settings.task, settings.scoring) == ("spatial", "choice_letter")
    done = execute(settings, tmp_path / "runs")
    assert done.name.startswith("sat-to-cv-bench-cls_rl-nano-s-s0-")
    found = read_results(done)
    assert list(found.parts) == ["test"] and found.parts["test"].n == 4
    assert found.eval_dataset == settings.eval_dataset
    assert folder_of(replace(settings, eval_dataset=sets["dataset"]), tmp_path / "runs") != done
    assert main(["report", "--runs", str(tmp_path / "runs")]) == 0
    (tmp_path / "b").rename(tmp_path / "moved")
    moved = load_settings("smoke", "cls_rl", **sets | {"eval_dataset": f"cv-bench@{tmp_path / 'moved'}"}, steps=1)
    assert folder_of(moved, tmp_path / "runs") == done


def test_the_command_line_evaluates_and_checks(tmp_path, capsys):
    folder = str(formats.mathvision(tmp_path))
    command = ["evaluate", "--model", "nano-s", "--data", f"mathvision@{folder}", "--device", "cpu", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)["eval"]["test"]
    assert (found["n"], found["scoring"]) == (2, "math")
    assert main(["data", "check", "mathvision", "--root", folder]) == 0
    assert "test: 2 items, 2 answers with 1 to 1 items each" in capsys.readouterr().out


def test_data_list_names_every_set_with_its_licence_and_rule(capsys):
    assert main(["data", "list"]) == 0
    written = capsys.readouterr().out
    for name, entry in REAL_SETS.items():
        assert "-4shot-" in name or f"\n  {name:<16}{entry.task}, {entry.where} (" in written
    assert "nyu-visionx/CV-Bench (none / test; Apache-2.0; choice_letter)" in written


def test_without_choices_holds_for_tables_too(tmp_path):
    dataset = f"dtd-4shot-fewshot@{formats.authors(tmp_path)}"
    assert all(example.choices for example in open_set(dataset).training("few_shot", 4, 0, 0))
    assert all(example.choices is None for example in open_set(dataset).training("open_set", 4, 0, 0))


def test_one_set_in_two_places_is_still_one_set(tmp_path):
    with pytest.raises(UserError, match="has one split"):
        load_settings("smoke", "cls_rl", dataset="hub:puzzlevqa", eval_dataset=f"puzzlevqa@{tmp_path}")


def test_an_estimate_without_training_examples_looks_at_the_test(tmp_path, capsys):
    dataset = f"cv-bench@{formats.cv_bench(tmp_path)}"
    command = ["estimate", "--profile", "smoke", "--method", "zero_shot", "--dataset", dataset, "--no-time", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["tokens"]["completion"] == 64  # thoughts are tested too
