"""Folders of photographs as people have them: what is read of them, what is told of, and what is refused in a line."""

import json
import random
import shutil
import unicodedata
from collections import Counter
from contextlib import suppress

import pytest
from PIL import Image

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.evaluate import asked_parts
from rftkit.run import execute, training_examples
from rftkit.runs.folder import read_results
from rftkit.settings import load_settings
from rftkit.tasks.outside.photos import read_photos
from rftkit.tasks.registry import open_set

made = 0


def photos(folder, count, suffix="png"):
    """Pictures that are like no others."""
    global made
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(count):
        made += 1
        noise = random.Random(made).randbytes(20 * 20 * 3)
        Image.frombytes("RGB", (20, 20), noise).save(folder / f"{made}.{suffix}")
    return folder


def classes(folder, *labels, each=10):
    for label in labels:
        photos(folder / label, each)
    return folder


def counts(name):
    """Pictures by split and class."""
    data, found = open_set(str(name)), {}
    for split in data.splits:
        with suppress(UserError):  # nothing is held out
            found[split] = dict(Counter(item.answer for item in data.examples(split, "all", None)))
    return found


def check(folder, capsys):
    """The exit status of `rftkit data check`, what it printed, and its problems."""
    status = main(["data", "check", str(folder)])
    written = capsys.readouterr()
    return status, written.out, [line for line in written.err.splitlines() if line.startswith("problem: ")]


@pytest.mark.parametrize("number", [2, 3])
def test_two_or_three_classes_are_trained_and_tested_on_together(tmp_path, number, capsys):
    folder = str(classes(tmp_path / "pets", *("cat", "dog", "hen")[:number]))
    settings = load_settings("smoke", "sft", dataset=folder, steps=1, eval_every=1, pass_items=0)
    assert settings.protocol == "few_shot" and len(training_examples(settings)) == 4 * number
    assert list(read_results(execute(settings, tmp_path / "runs")).parts) == ["all"]
    assert {part: len(items) for part, items in asked_parts(open_set(folder)).items()} == {"all": 3 * number}
    assert main(["data", "check", folder]) == 0
    capsys.readouterr()
    assert main(["run", "--profile", "smoke", "--dataset", folder, "--protocol", "base_to_new"]) == 2
    written = capsys.readouterr().err
    assert f"has {number} classes; base-to-new needs 4 or more: give --protocol few_shot" in written
    assert written.count("\n") == 1


def test_one_class_is_nothing_to_choose_from(tmp_path):
    with pytest.raises(UserError, match="has one class, 'cat': two or more are needed"):
        open_set(str(classes(tmp_path, "cat"))).examples("test", "all", None)


@pytest.mark.parametrize(
    ("each", "train", "val", "test"),
    [(2, 1, 0, 1), (3, 2, 0, 1), (4, 2, 1, 1), (5, 3, 1, 1), (10, 5, 2, 3), (20, 10, 4, 6)],
)
def test_a_split_by_chance_gives_every_class_its_share(tmp_path, each, train, val, test):
    found = counts(classes(tmp_path, "cat", "dog", each=each))
    assert found["shots"] == {"cat": train, "dog": train} and found["test"] == {"cat": test, "dog": test}
    assert found.get("val") == ({"cat": val, "dog": val} if val else None)


def test_too_few_different_pictures_are_one_line(tmp_path):
    classes(tmp_path, "cat", "dog", each=5)
    (copied,) = photos(tmp_path / "hen", 1).iterdir()
    for number in range(5):
        shutil.copy(copied, tmp_path / "hen" / f"copy {number}.png")
    with pytest.raises(UserError, match="class 'hen' has no image to test with .*with different pictures"):
        open_set(str(tmp_path)).examples("test", "all", None)


@pytest.mark.parametrize("names", [("train", "val", "test"), ("train", "valid", "test"), ("Training", "dev", "testing"),
                                   ("train", "validation", "TEST")])  # fmt: skip
def test_folders_for_splits_are_known_by_their_usual_names(tmp_path, names):
    for name, each in zip(names, (6, 2, 3), strict=True):
        classes(tmp_path / name, "cat", "dog", each=each)
    assert counts(tmp_path) == {
        "shots": {"cat": 6, "dog": 6},
        "val": {"cat": 2, "dog": 2},
        "test": {"cat": 3, "dog": 3},
    }


def test_without_a_test_folder_val_is_tested_on_and_some_of_train_held_out(tmp_path):
    classes(tmp_path / "train", "cat", "dog", each=10)
    classes(tmp_path / "val", "cat", "dog", each=3)
    found = {split: sum(labels.values()) for split, labels in counts(tmp_path).items()}
    assert found == {"shots": 16, "val": 4, "test": 6}


def test_test_alone_will_do_to_evaluate_and_train_alone_to_train(tmp_path, capsys):
    classes(tmp_path / "a" / "test", "cat", "dog", "hen", "fox", each=3)
    classes(tmp_path / "b" / "train", "cat", "dog", "hen", "fox", each=5)
    tested, trained = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["evaluate", "--model", "nano-s", "--data", tested]) == 0
    assert capsys.readouterr().out.count("of 6)") == 2
    assert load_settings("smoke", "sft", dataset=trained, eval_dataset=tested).eval_dataset == tested
    for command, said in (
        (["run", "--profile", "smoke", "--dataset", tested], "has a test split only: train on another set"),
        (["run", "--profile", "smoke", "--dataset", trained], "has no test split: give the set to test on"),
        (["evaluate", "--model", "nano-s", "--data", trained], "has no photographs for 'test'"),
    ):
        assert main(command) == 2
        written = capsys.readouterr().err
        assert said in written and written.count("\n") == 1


def test_a_class_may_be_called_train(tmp_path):
    assert set(counts(classes(tmp_path, "train", "plane", "test"))["test"]) == {"train", "plane", "test"}


def test_two_folders_for_one_split_are_one_line(tmp_path):
    for name in ("train", "val", "valid", "test"):
        classes(tmp_path / name, "cat", "dog", each=3)
    with pytest.raises(UserError, match="has two folders for val, 'val' and 'valid'"):
        open_set(str(tmp_path)).examples("test", "all", None)


def test_hidden_files_and_what_programs_leave_are_no_classes_and_no_pictures(tmp_path, capsys):
    classes(tmp_path, "cat", "dog", ".ipynb_checkpoints", "__MACOSX", "@eaDir")
    photos(tmp_path / "cat" / ".ipynb_checkpoints", 1)
    for name in ("._1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "cat" / name).write_bytes(b"\0\5\x16\7")
    assert counts(tmp_path)["shots"] == {"cat": 5, "dog": 5}
    assert "remark" not in check(tmp_path, capsys)[1]


@pytest.mark.parametrize("suffix", ["gif", "tif", "tiff", "jfif", "JPG", "webp", "bmp", "jp2", "avif", "ppm", "PNG"])
def test_whatever_pillow_reads_is_a_picture(tmp_path, suffix, capsys):
    photos(tmp_path / "cat", 4, suffix)
    photos(tmp_path / "dog", 4, suffix)
    assert counts(tmp_path)["shots"] == {"cat": 2, "dog": 2}
    assert check(tmp_path, capsys)[0] == 0


def test_what_is_passed_over_is_counted_and_classes_that_vanish_are_named(tmp_path, capsys):
    classes(tmp_path, "cat", "dog", "fox", "hen", each=4)
    for number in range(12):
        (tmp_path / "cat" / f"{number}.HEIC").write_bytes(b"heic")
    photos(tmp_path / "dog" / "puppies" / "small", 3, "jpg")
    photos(tmp_path / "owl" / "snowy", 2)
    (tmp_path / "empty").mkdir()
    photos(tmp_path, 1)
    line = "files passed over: 12 .heic, 3 .jpg in subfolders, 1 .png beside the classes, 2 .png in subfolders; "
    line += "folders without a picture of their own: 'empty', 'owl'"
    status, _, problems = check(tmp_path, capsys)
    assert status == 2 and problems == [f"problem: {line}"]
    assert main(["evaluate", "--model", "nano-s", "--data", str(tmp_path)]) == 0
    assert f"{tmp_path.name}: {line}\n" in capsys.readouterr().err


def test_texts_beside_pictures_are_a_remark(tmp_path, capsys):
    classes(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "notes.txt").write_text("cats")
    assert check(tmp_path, capsys)[0] == 0


def test_a_folder_around_the_folder_of_classes_says_which_to_give(tmp_path):
    classes(tmp_path / "archive" / "pets", "cat", "dog", each=3)
    with pytest.raises(UserError, match="no folders of images; give one in it that has, such as '.*archive/pets'$"):
        open_set(str(tmp_path / "archive")).examples("test", "all", None)


def test_links_are_followed_and_those_that_lead_nowhere_or_back_are_told_of(tmp_path, capsys):
    classes(tmp_path / "pets", "cat", "dog")
    (tmp_path / "pets" / "hen").symlink_to(photos(tmp_path / "elsewhere", 10))
    assert counts(tmp_path / "pets")["test"] == {"cat": 3, "dog": 3, "hen": 3}
    (tmp_path / "pets" / "owl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "pets" / "cat" / "again").symlink_to(tmp_path / "pets")
    read_photos.cache_clear()
    _, _, problems = check(tmp_path / "pets", capsys)
    assert problems == ["problem: folders without a picture of their own: 'owl'"]


@pytest.mark.parametrize(
    ("beside", "found"),
    [("train", "problem: folders passed over beside those of the splits: 'hen'"),
     ("test", "problem: files passed over: 6 .png in subfolders; folders without a picture of their own: 'test'")],
)  # fmt: skip
def test_classes_beside_folders_for_splits_are_told_of(tmp_path, beside, found, capsys):
    classes(tmp_path / beside, "cat", "dog", each=3)
    classes(tmp_path, "hen", "owl")
    shutil.rmtree(tmp_path / "owl") if beside == "train" else None
    assert check(tmp_path, capsys)[2] == [found]


@pytest.mark.parametrize("one, other", [("Cat", "cat"), ("cat", "cat "), ("Straße", "STRASSE")])
def test_classes_that_no_rule_can_tell_apart_are_one_line(tmp_path, one, other):
    classes(tmp_path, one, other, "dog", each=3)
    with pytest.raises(UserError, match="no rule can tell the classes '.*' and '.*' apart: rename one"):
        open_set(str(tmp_path)).examples("test", "all", None)


def test_class_names_with_commas_are_a_remark(tmp_path, capsys):
    status, written, _ = check(classes(tmp_path, "salt, pepper", "dog"), capsys)
    assert (
        status == 0 and "remark: class names with a comma in them" in written and "such as 'salt, pepper'\n" in written
    )


def test_one_class_in_two_unicode_forms_is_one_class(tmp_path):
    forms = [unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD")]
    for split, form in zip(("train", "test"), forms, strict=True):
        classes(tmp_path / split, form, "dog", each=4)
    assert counts(tmp_path)["test"] == {"Käfer": 4, "dog": 4}


def test_a_split_file_of_another_editor_and_another_disk_is_read(tmp_path):
    """With a byte order mark, names in one Unicode form in the file and in another on the disk."""
    composed, apart = "Käfer", unicodedata.normalize("NFD", "Käfer")
    (old,) = photos(tmp_path / apart, 1).iterdir()
    old.rename(old.with_name("é.png"))
    rows = [[f"{composed}/e\u0301.png", 0, apart], [f"{composed}/é.png", 1, "dog"]]
    split = {"train": rows, "val": rows, "test": rows}
    (tmp_path / "split_zhou_Mine.json").write_text(json.dumps(split), encoding="utf-8-sig")
    assert counts(tmp_path)["test"] == {composed: 1, "dog": 1}
