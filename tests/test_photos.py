"""Photographs in folders: CoOp's layout, plain image folders, and what can be wrong with them."""

import json
import os
from dataclasses import replace

import pytest
import real_formats as formats
from PIL import Image

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.evaluate import asked_parts, evaluate_data
from rftkit.run import execute, training_examples
from rftkit.run import test_splits as splits_to_test
from rftkit.runs.folder import read_results
from rftkit.settings import load_settings
from rftkit.tasks.outside.coop import COOP
from rftkit.tasks.outside.photos import read_photos
from rftkit.tasks.registry import open_set, short_name

LABELS = ("wrench", "barrel", "grand piano", "lotus", "beaver")  # in the order of their numbers, not of the alphabet


def photo(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40 + number, 60), (number * 9 % 256, 80, 120)).save(path)


@pytest.fixture
def coop(tmp_path):
    """Caltech-101 as CoOp lays it out, with five classes: 6 train, 2 val, 3 test images each."""
    folder, split = tmp_path / "caltech-101", {"train": [], "val": [], "test": []}
    for number, label in enumerate(LABELS):
        for image in range(11):
            part = "train" if image < 6 else "val" if image < 8 else "test"
            split[part].append([f"{label.replace(' ', '_')}/image_{image:04}.jpg", number, label])
            photo(folder / "101_ObjectCategories" / split[part][-1][0], 11 * number + image)
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    return folder


@pytest.fixture
def plain(tmp_path):
    """A folder a class, 20 images each, nothing split."""
    for number, label in enumerate(LABELS):
        for image in range(20):
            photo(tmp_path / "mine" / label / f"{label}-{image}.png", image + number)
    return tmp_path / "mine"


def test_halves_are_coops_the_first_half_of_the_labels_by_number_the_larger_one(coop):
    photos = open_set(str(coop)).world
    assert photos.classes == LABELS and photos.base == LABELS[:3] and photos.new == LABELS[3:]
    assert photos.question == "What type of object is in the photo?"


def test_shots_come_from_train_and_splits_share_no_image(coop):
    shots = open_set(str(coop)).training("base_to_new", 4, 0, seed=0)
    assert [e.answer for e in shots].count("wrench") == 4 and {e.answer for e in shots} == set(LABELS[:3])
    few = open_set(str(coop)).training("few_shot", 4, 0, seed=0)
    assert {e.answer for e in few} == set(LABELS)
    parts = [open_set(str(coop)).examples(split, "all", 100, 0) for split in ("shots", "val", "test")]
    files = [{e.images[0] for e in part} for part in parts]
    assert [len(part) for part in files] == [30, 10, 15] and not files[0] & files[1] | files[1] & files[2]
    assert all(e.answer in e.choices and e.images[0].parent.name == e.answer.replace(" ", "_") for e in few)


def fgvc(folder):
    """FGVC-Aircraft as CoOp has it: classes, a list of numbers and classes for each split, one folder of images."""
    folder.mkdir()
    (folder / "variants.txt").write_text("707-320\n727-200\nA310\nDC-9-30\nTornado\n")
    number = 0
    for split, each in (("train", 4), ("val", 1), ("test", 2)):
        lines = []
        for label in (folder / "variants.txt").read_text().split():
            for _ in range(each):
                number += 1
                lines.append(f"{number:07} {label}")
                photo(folder / "images" / f"{number:07}.jpg", number)
        (folder / f"images_variant_{split}.txt").write_text("\n".join(lines))
    return str(folder)


def test_fgvc_aircraft_is_read_as_coop_has_it(tmp_path):
    photos = open_set(fgvc(tmp_path / "fgvc_aircraft")).world
    assert photos.base == ("707-320", "727-200", "A310") and photos.question == "What type of aircraft is in the photo?"
    aircraft = open_set(str(tmp_path / "fgvc_aircraft"))
    assert [len(aircraft.examples(s, "all", 99)) for s in ("shots", "val", "test")] == [
        20,
        5,
        10,
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda folder: (folder / "images_variant_val.txt").unlink(), "cannot read '.*images_variant_val.txt'"),
        (lambda folder: (folder / "variants.txt").write_text("A310\n"), "class '707-320' is not in variants.txt"),
        (lambda folder: (folder / "images" / "0000001.jpg").unlink(), "'0000001.jpg', which is not there"),
    ],
)
def test_what_is_wrong_with_fgvc_aircraft_is_one_line(tmp_path, change, line):
    folder = fgvc(tmp_path / "fgvc_aircraft")
    change(tmp_path / "fgvc_aircraft")
    with pytest.raises(UserError, match=line):
        open_set(folder).examples("test", "all", 1)


def test_imagenet_is_read_as_coop_has_it(tmp_path):
    """Classes in the order of their folders; val is what is tested on; two folders of one name are one class."""
    names = {"n01": "tench", "n03": "stingray", "n02": "great white shark", "n05": "sunglasses", "n06": "sunglasses",
             "n04": "cock"}  # fmt: skip
    (tmp_path / "classnames.txt").write_text("\n".join(map(" ".join, names.items())))
    for number, folder in enumerate(names):
        for image in range(7):
            photo(
                tmp_path / "images" / ("train" if image < 5 else "val") / folder / f"{folder}_{image}.JPEG",
                number * 9 + image,
            )
    photos = open_set(str(tmp_path)).world
    assert photos.classes == ("tench", "great white shark", "stingray", "cock", "sunglasses")
    assert len(photos.base) == 3 and len(open_set(str(tmp_path)).examples("test", "all", 99, 0)) == 12
    (tmp_path / "images" / "train" / "n99").mkdir()
    photo(tmp_path / "images" / "train" / "n99" / "a.jpg", 1)
    read_photos.cache_clear()
    with pytest.raises(UserError, match="no name for the folder 'n99'"):
        open_set(str(tmp_path)).examples("test", "all", 1)


def test_other_seeds_draw_other_shots(coop):
    first, second = ({e.images[0] for e in open_set(str(coop)).training("base_to_new", 4, 0, seed)} for seed in (0, 1))
    assert first != second


def test_a_folder_a_class_is_split_by_chance(plain):
    parts = [{e.images[0] for e in open_set(str(plain)).examples(s, "all", 1000, 0)} for s in ("shots", "val", "test")]
    assert sum(map(len, parts)) == 100 and len(set.union(*parts)) == 100 and all(parts)
    assert open_set(str(plain)).world.classes == tuple(sorted(LABELS))


def test_train_and_test_folders_are_kept_and_val_is_taken_from_train(plain, tmp_path):
    for split, images in (("train", range(10)), ("test", range(10, 14))):
        for label in LABELS:
            for image in images:
                photo(tmp_path / "split" / split / label / f"{image}.jpg", image)
    counts = [len(open_set(str(tmp_path / "split")).examples(s, "all", 1000, 0)) for s in ("shots", "val", "test")]
    assert counts == [40, 10, 20]


def test_a_run_and_an_evaluation_take_a_folder(coop, tmp_path, monkeypatch):
    settings = load_settings("smoke", "no_thinking_rl", dataset=str(coop), steps=1, eval_every=1)
    folder = execute(settings, tmp_path / "runs")
    assert folder.name.startswith("caltech-101-no_thinking_rl-nano-s-s0-")
    monkeypatch.chdir(coop.parent)
    assert load_settings("smoke", "no_thinking_rl", dataset="caltech-101", steps=1, eval_every=1) == settings
    found = evaluate_data("nano-s", "caltech-101", adapter=str(folder / "adapter"), test_items=4, progress=False)[
        "eval"
    ]
    assert {name: part["n"] for name, part in found.items()} == {"base": 4, "new": 4}
    assert main(["report", "--runs", str(tmp_path / "runs")]) == 0


@pytest.mark.parametrize("place", ["", "caltech-101"])
def test_coops_sets_are_named_as_they_are_listed_with_their_folder_or_that_of_all(coop, place, capsys):
    name = f"caltech101@{coop.parent / place}"
    assert load_settings("smoke", "zero_shot", dataset=name).dataset == f"caltech101@{coop.resolve()}"
    assert (
        short_name(f"caltech101@{coop.resolve()}") == open_set(name).world.name == open_set(name).name == "caltech101"
    )
    assert {part: len(items) for part, items in asked_parts(open_set(name)).items()} == {"base": 9, "new": 6}
    assert main(["data", "check", "caltech101", "--root", str(coop.parent / place)]) == 0
    assert "shots: 30 items, 5 answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [("dtd", "give dtd@DIR"), ("dtd@nowhere", "give dtd@DIR"), ("dtd@{coop}", "there is no split_zhou_Describable"),
     ("{parent}", "give one of them as caltech101@")],
)  # fmt: skip
def test_a_set_of_coops_that_is_not_there_is_one_line(coop, name, said, capsys):
    name = name.format(coop=coop, parent=coop.parent)
    assert main(["run", "--profile", "smoke", "--dataset", name, "--out", str(coop.parent / "runs")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_the_authors_shots_are_trained_on_and_the_coop_folder_tested_on(coop, tmp_path, capsys):
    base = open_set(str(coop)).world.base
    problem = f"What type of object is in the photo?\n Please choose one from list [ {', '.join(base)}]."
    rows = [{"image": formats.picture(i), "problem": problem, "solution": f"<answer> {base[i % 3]} </answer>"}
            for i in range(12)]  # fmt: skip
    formats.parquet(tmp_path / "hub" / "train-00000-of-00001.parquet", rows, image=formats.IMAGE)
    shots = f"caltech-4shot-b2n@{tmp_path / 'hub'}"
    settings = load_settings("smoke", "sft", dataset=shots, eval_dataset=str(coop), steps=1)
    assert {(e.answer, e.choices) for e in training_examples(settings)} == {(label, base) for label in base}
    found = read_results(execute(settings, tmp_path / "runs"))
    assert list(found.parts) == ["base", "new"] and "not among" not in capsys.readouterr().err
    assert list(splits_to_test(replace(settings, protocol="few_shot"))) == ["all"]


def test_a_bundled_name_is_never_a_folder(plain, tmp_path, monkeypatch):
    (tmp_path / "shapes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert asked_parts(open_set("shapes"), test_items=2)["base"][0].dataset == "shapes"


def _break(coop, change):
    path = coop / "split_zhou_Caltech101.json"
    split = json.loads(path.read_text())
    change(split)
    path.write_text(json.dumps(split))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: s.pop("val"), "is not a CoOp split file"),
        (lambda s: s["train"].append(["a.jpg", "x", "a"]), "is not a CoOp split file"),
        (lambda s: s["train"].append(["a.jpg", 0]), "is not a CoOp split file"),
        (lambda s: s["train"].append(["a.jpg", float("inf"), "a"]), "is not a CoOp split file"),
        (lambda s: s["train"].append(["gone.jpg", 0, "wrench"]), "which is not there"),
        (lambda s: s["train"].append(["../../x.jpg", 0, "wrench"]), "points outside the data folder"),
        (lambda s: s["train"].append(["/etc/passwd", 0, "wrench"]), "points outside the data folder"),
        (lambda s: s["test"].clear(), "class 'wrench' has no image to test with"),
        (lambda s: [row.__setitem__(2, "same") for part in s.values() for row in part], "two labels the same name"),
        (
            lambda s: [row.__setitem__(2, "<|im_end|>") for part in s.values() for row in part if row[1] == 0],
            "control token",
        ),
    ],
)
def test_what_is_wrong_with_a_split_is_one_line(coop, capsys, change, line):
    _break(coop, change)
    assert main(["run", "--profile", "smoke", "--dataset", str(coop), "--out", str(coop / "runs")]) == 2
    written = capsys.readouterr().err
    assert line in written and written.count("\n") == 1


def test_names_that_are_no_text_and_links_to_nothing_are_one_line(plain, capsys):
    folder = next(path for path in sorted(plain.iterdir()) if path.is_dir())
    for name, said in (("x.png", "is no file"), (b"\xff.png", "is not a name in UTF-8")):
        image = folder / os.fsdecode(name)
        image.symlink_to(folder / "nowhere" if said == "is no file" else next(folder.glob("*.png")))
        assert main(["data", "check", str(plain)]) == 2
        assert said in (written := capsys.readouterr().err) and written.count("\n") == 1
        image.unlink()


def test_a_folder_without_images_is_one_line(tmp_path):
    with pytest.raises(UserError, match="without folders of images"):
        open_set(str(tmp_path)).examples("test", "all", 1)


def test_coops_sets_have_folder_split_and_question():
    assert len({c.split for c in COOP.values()}) == len(COOP) and all(c.question.endswith("?") for c in COOP.values())


def test_data_list_names_every_set(capsys):
    assert main(["data", "list"]) == 0
    written = capsys.readouterr().out
    assert all(f"\n  {name} " in written for name in (*COOP, "shapes", "math"))


def test_data_check_counts_and_finds_every_problem(coop, capsys):
    assert main(["data", "check", str(coop)]) == 0
    assert "shots: 30 items, 5 answers with 6 to 6 items each" in capsys.readouterr().out
    images = coop / "101_ObjectCategories"
    (images / "wrench" / "image_0000.jpg").write_bytes(b"no picture")
    (images / "lotus" / "image_0008.jpg").write_bytes((images / "lotus" / "image_0001.jpg").read_bytes())
    _break(coop, lambda s: [row.__setitem__(2, "bar") for part in s.values() for row in part if row[1] == 4])
    read_photos.cache_clear()
    assert main(["data", "check", str(coop)]) == 2
    written, problems = capsys.readouterr()
    assert "1 problems found" in written and problems.count("\n") == 1
    assert "cannot read image 'image_0000.jpg'" in problems
    # What CoOp published so is not to be fixed.
    assert "remark: the same picture is in shots (image_0001.jpg) and in test (image_0008.jpg)\n" in written
    assert "cannot tell apart: 1, such as 'bar' in 'barrel'\n" in written


def test_data_check_counts_class_names_that_are_part_of_others(pictures, capsys):
    names = ["a", "ab", "abc", "x"]  # a in ab and abc, ab in abc
    row = {"image": "cat.png", "question": "What is it?", "answer": "x", "choices": [*names, "xa"]}
    path = pictures / "names.jsonl"
    path.write_text(json.dumps(row))
    assert main(["data", "check", str(path)]) == 0
    assert "apart: 5, such as 'a' in 'ab', 'a' in 'abc', 'a' in 'xa'\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["math", "digits"])
def test_bundled_sets_pass_the_check(name, capsys):
    assert main(["data", "check", name]) == 0


def test_data_check_of_nothing_is_one_line(capsys):
    assert main(["data", "check", "nowhere"]) == 2
    assert "unknown dataset 'nowhere'" in capsys.readouterr().err


def test_pictures_of_one_name_in_several_classes_are_not_one_cluster(coop):
    examples = open_set(str(coop)).examples("test", "base", 100, 0)
    assert len({example.group for example in examples}) == len(examples) > 3
