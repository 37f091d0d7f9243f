"""What is asked of a set: all of it in its own class weights, or a plain sample that is told of."""

import json
from collections import Counter
from io import BytesIO

import pytest
from PIL import Image

from rftkit.cli import main
from rftkit.evaluate import asked_parts, evaluate_data
from rftkit.run import execute
from rftkit.run import test_splits as splits_to_test
from rftkit.settings import load_profile, load_settings
from rftkit.study.chapters import dealt, parts_of
from rftkit.tasks.registry import open_set

# Caltech-101 by CoOp's split: 50 base classes with 1,549 test pictures, four of them large, and 50 new ones with 916.
LARGE = {"face": 130, "leopard": 60, "motorbike": 239, "airplane": 240}
BASE, NEW = 1549, 916


def spread(total, labels):
    return {label: total // len(labels) + (number < total % len(labels)) for number, label in enumerate(labels)}


@pytest.fixture(scope="module")
def caltech(tmp_path_factory):
    """Its layout and counts; every picture is the same small one, also the four of a class to train and choose with."""
    folder = tmp_path_factory.mktemp("sets") / "caltech-101"
    tests = LARGE | spread(BASE - sum(LARGE.values()), [f"base {n}" for n in range(46)])
    tests |= spread(NEW, [f"new {n}" for n in range(50)])
    picture = BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "JPEG")
    split = {"train": [], "val": [], "test": []}
    for number, (label, count) in enumerate(tests.items()):
        place = folder / "101_ObjectCategories" / label.replace(" ", "_")
        place.mkdir(parents=True)
        for image in range(count + 4):
            (place / f"image_{image:04}.jpg").write_bytes(picture.getvalue())
            part = "train" if image < 3 else "val" if image < 4 else "test"
            split[part].append([f"{place.name}/image_{image:04}.jpg", number, label])
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split), encoding="utf-8-sig")
    return str(folder)


@pytest.mark.parametrize("profile", ["gpu-2b", "gpu-7b", "nano"])
def test_a_run_asks_every_test_picture_of_caltech(caltech, profile):
    tests = splits_to_test(load_settings(profile, "cls_rl", dataset=caltech))
    assert {part: len(items) for part, items in tests.items()} == {"base": BASE, "new": NEW}
    assert len({item.id for items in tests.values() for item in items}) == BASE + NEW
    counts = Counter(item.answer for item in tests["base"])
    assert {label: counts[label] for label in LARGE} == LARGE


def test_an_evaluation_asks_every_test_picture_too(caltech):
    assert {part: len(items) for part, items in asked_parts(open_set(caltech)).items()} == {"base": BASE, "new": NEW}


def test_a_cap_is_a_plain_sample_with_the_questions_of_the_whole(caltech):
    data = open_set(caltech)
    whole = {item.id: item for item in data.examples("test", "base", None, seed=3)}
    some = data.examples("test", "base", 600, seed=3)
    assert len(some) == 600 and all(whole[item.id] == item for item in some)
    assert [item.id for item in data.examples("test", "base", 50, seed=3)] == [item.id for item in some[:50]]
    assert data.examples("test", "base", 50, seed=4) != some[:50]
    counts = Counter(item.answer for item in some)  # 93 airplanes are expected, with a deviation of 7; balanced are 12
    assert 65 < counts["airplane"] < 121 and 0.38 < sum(counts[label] for label in LARGE) / 600 < 0.48


def test_a_run_says_how_many_it_asks_of_how_many_and_its_results_do(caltech, tmp_path, capsys):
    command = ["run", "--profile", "smoke", "--method", "zero_shot", "--dataset", caltech, "--test-items", "4"]
    assert main([*command, "--pass-items", "0", "--out", str(tmp_path)]) == 0
    said = "caltech-101: a plain sample of the test items is asked: 4 of 1,549 (base), 4 of 916 (new)\n"
    written = capsys.readouterr()
    assert written.err.count(said) == 1
    results = json.loads(next(tmp_path.rglob("results.json")).read_text())
    assert results["test_items"] == {"base": {"asked": 4, "of": BASE}, "new": {"asked": 4, "of": NEW}}
    assert main(["evaluate", "--model", "nano-s", "--data", caltech, "--test-items", "4", "--json"]) == 0
    written = capsys.readouterr()
    assert written.err.count(said) == 1
    assert {part: (row["n"], row["of"]) for part, row in json.loads(written.out)["eval"].items()} == {
        "base": (4, BASE),
        "new": (4, NEW),
    }


def jsonl(folder, count):
    row = {"image": "a.png", "question": "?", "choices": ["a", "b"]}
    rows = [row | {"answer": "ab"[number >= count // 2]} for number in range(count)]
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize("name", ["", "test.jsonl"])
def test_of_a_table_too_a_cap_is_a_plain_sample_and_without_one_all_is_asked(tmp_path, name, capsys):
    jsonl(tmp_path, 40)
    data = str(tmp_path / name)
    assert len(asked_parts(open_set(data))["test"]) == 40
    answers = Counter(item.answer for item in asked_parts(open_set(data), test_items=20)["test"])
    assert min(answers["a"], answers["b"]) > 3  # the first half of the file has one answer
    evaluate_data("nano-s", data, test_items=20, progress=False)
    assert ": a plain sample of the test items is asked: 20 of 40 (test)\n" in capsys.readouterr().err
    evaluate_data("nano-s", data, test_items=40, progress=False)
    assert "sample" not in capsys.readouterr().err


def test_drawn_sets_are_asked_as_before_500_by_the_study_and_a_thousand_by_default(tmp_path, capsys):
    assert load_settings("nano", "cls_rl").test_items == 500
    assert load_settings("nano", "cls_rl", task="math").test_items == 500
    assert len(asked_parts(open_set("shapes"))["base"]) == 1000
    execute(load_settings("smoke", "zero_shot", test_items=2, pass_items=0), tmp_path)
    assert "test items" not in capsys.readouterr().err


def test_a_folder_called_as_a_bundled_set_is_asked_whole(tmp_path):
    (tmp_path / "shapes").mkdir()
    jsonl(tmp_path / "shapes", 2)
    assert load_settings("nano", "zero_shot", dataset=f"{tmp_path}/shapes").test_items is None


def test_a_study_takes_the_same_flag(tmp_path, capsys):
    command = ["study", "--profile", "smoke", "--only", "01", "--out", str(tmp_path), "--dry-run", "--test-items"]
    assert main([*command, "3"]) == 0
    profile = str(tmp_path / "smoke" / "smoke.yaml")
    (part,) = parts_of(dealt(profile, ("01",), [0], [], None), profile, None, tmp_path)
    assert {run.test_items for run in part.runs.values()} == {3} and part.parameters["profile"] == profile
    assert load_profile(profile) == load_profile("smoke") | {"test_items": 3, "model": ["nano-s"]}
    assert main([*command, "0"]) == 2
    assert "--test-items must be at least 1, not 0" in capsys.readouterr().err
