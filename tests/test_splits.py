"""No picture and no group is in two splits, and one set is split alike wherever it is stored."""

import io
import json
import random
import shutil
from dataclasses import replace

import datasets
import pytest
import real_formats as formats
from PIL import Image

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.tasks.outside.real_sets import REAL_SETS
from rftkit.tasks.outside.splits import by_chance, by_content, content, held_out
from rftkit.tasks.registry import open_set


def noise(number, suffix="PNG"):
    """The file of a picture that is like no other of another number."""
    file = io.BytesIO()
    Image.frombytes("RGB", (16, 16), random.Random(number).randbytes(16 * 16 * 3)).save(file, suffix)
    return file.getvalue()


def held(data):
    return [item.id.rpartition("-")[2] for item in data.examples("val", "all", None)]


def shown(data, split):
    """What a split has: the contents of its pictures, and its groups."""
    items = data.examples(split, "all", None)
    return {content(image) for item in items for image in item.images}, {item.group for item in items}


def puzzle(number, **more):
    return {"question": "Which?", "options": ["1", "2"], "answer": "1"} | more


def as_json(folder, pictures, rows):
    for number, picture in enumerate(pictures):
        (folder / "data" / "images").mkdir(parents=True, exist_ok=True)
        (folder / "data" / "images" / f"{number}.png").write_bytes(picture)
    rows = [row | {"image": f"images/{number}.png"} for number, row in enumerate(rows)]
    (folder / "data" / "puzzles.json").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8-sig")


def as_table(pictures, rows):
    rows = [row | {"image": {"bytes": picture, "path": None}} for picture, row in zip(pictures, rows, strict=True)]
    return formats.table(rows, image=formats.IMAGE)


def as_parquet(folder, pictures, rows):
    folder.mkdir()
    as_table(pictures, rows).to_parquet(folder / "train.parquet")


def as_saved(folder, pictures, rows):
    datasets.DatasetDict({"train": as_table(pictures, rows)}).save_to_disk(folder)


@pytest.mark.parametrize("groups", [False, True])
def test_a_set_is_split_alike_as_a_folder_as_parquet_and_from_disk(tmp_path, monkeypatch, groups):
    monkeypatch.setitem(REAL_SETS, "puzzlevqa", replace(REAL_SETS["puzzlevqa"], train="train"))
    pictures = [noise(number // 2) for number in range(60)]  # each is asked about twice
    rows = [puzzle(number) | ({"group": f"scene {number // 4}"} if groups else {}) for number in range(60)]
    found = []
    for write in (as_json, as_parquet, as_saved):
        write(tmp_path / write.__name__, pictures, rows)
        found.append(held(open_set(f"puzzlevqa@{tmp_path / write.__name__}")))
    assert found[0] == found[1] == found[2] and len(found[0]) >= 2


def jsonl(folder, rows, name="train.jsonl"):
    folder.mkdir(exist_ok=True)
    lines = []
    for number, (picture, more) in enumerate(rows):
        pictures = [picture] if isinstance(picture, bytes) else picture
        for place, one in enumerate(pictures):
            (folder / f"{number}-{place}.png").write_bytes(one)
        images = [f"{number}-{place}.png" for place in range(len(pictures))]
        lines.append(json.dumps({"image": images, "question": "?", "answer": "a"} | more))
    (folder / name).write_text("\n".join(lines), encoding="utf-8-sig")
    return open_set(str(folder))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([(noise(n // 3), {}) for n in range(90)], id="copies under other names"),
        pytest.param([(noise(n), {"group": f"patient {n // 5}"}) for n in range(90)], id="groups"),
        pytest.param([([noise(n), noise(n + 1 - n % 3)], {}) for n in range(90)], id="a second picture"),
        pytest.param([(noise(n // 2), {"group": f"{n // 6} {(n % 6 + 1) // 2}"}) for n in range(90)], id="chains"),
    ],
)
def test_no_picture_and_no_group_is_both_trained_on_and_held_out(tmp_path, rows):
    data = jsonl(tmp_path / "mine", rows)
    trained, kept = shown(data, "shots"), shown(data, "val")
    assert trained[0] and kept[0] and not trained[0] & kept[0] and not trained[1] & kept[1]
    assert len(data.examples("shots", "all", None)) + len(data.examples("val", "all", None)) == len(rows)


def test_about_a_tenth_is_held_out_and_never_all_or_of_ten_rows_nothing():
    assert 60 < sum(held_out([f"{number}"] for number in range(1000))) < 140
    for first in range(300):
        assert 0 < sum(held_out([f"{first} {number}"] for number in range(10))) < 10
    assert held_out([["one"]] * 50) == [False] * 50  # they cannot be parted
    assert held_out([[], []]) == [False, False]


def test_copies_in_a_folder_are_in_one_split_in_whichever_classes_they_are(tmp_path):
    for label in ("cat", "dog", "hen", "fox"):
        (tmp_path / label).mkdir()
        for number in range(20):
            (tmp_path / label / f"{number}.png").write_bytes(noise(f"{label} {number}"))
            (tmp_path / label / f"{number} copy.png").write_bytes(noise(f"{label} {number}"))
    for number in range(10):
        shutil.copy(tmp_path / "cat" / f"{number}.png", tmp_path / "dog" / f"cat {number}.png")
    data = open_set(str(tmp_path))
    pictures = [shown(data, split)[0] for split in ("shots", "val", "test")]
    assert not pictures[0] & pictures[1] and not pictures[0] & pictures[2] and not pictures[1] & pictures[2]
    assert sum(map(len, pictures)) == 80


def test_a_val_taken_from_train_has_no_copy_of_what_is_left(tmp_path):
    for split, count in (("train", 20), ("test", 3)):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count):
                file = noise(f"{split} {label} {number // 2}")
                (tmp_path / split / label / f"{number}.png").write_bytes(file)
    trained, kept = (shown(open_set(str(tmp_path)), split)[0] for split in ("shots", "val"))
    assert (len(trained), len(kept)) == (16, 4) and not trained & kept


def test_a_folder_that_is_renamed_is_split_as_before(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(10):
            (tmp_path / label / f"{number}.png").write_bytes(noise(f"{label} {number}"))
    pictures = {label: sorted((tmp_path / label).iterdir()) for label in ("cat", "dog")}
    before = {content(path) for path in by_content(pictures, by_chance)["val"]["cat"]}
    for path in pictures["cat"]:
        path.rename(path.with_name(f"x{hash(path.name)}.png"))
    pictures["cat"] = sorted((tmp_path / "cat").iterdir())
    assert {content(path) for path in by_content(pictures, by_chance)["val"]["cat"]} == before


def test_long_files_are_told_apart_by_length_and_ends(tmp_path):
    whole = random.Random(0).randbytes(300_000)
    for other in (whole[:-1], whole[:-1] + b"x", b"x" + whole[1:]):
        assert content(whole) != content(other)
    (tmp_path / "a").write_bytes(whole)
    assert content(tmp_path / "a") == content(whole)


def problems(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("problem: ")]


def test_a_column_that_is_missing_in_every_row_is_told_once(tmp_path, capsys):
    jsonl(tmp_path, [(noise(number), {}) for number in range(30)])
    lines = (tmp_path / "train.jsonl").read_text().replace('"answer"', '"label"')
    (tmp_path / "train.jsonl").write_text(lines)
    assert main(["data", "check", str(tmp_path)]) == 2
    (line,) = problems(capsys)
    assert "train.jsonl line 1: column 'answer' is missing" in line and line.endswith(" (and so of 29 more)")
    with pytest.raises(UserError, match="^train.jsonl line 1: column 'answer' is missing"):
        open_set(str(tmp_path)).examples("shots", "all", None)


def test_choices_that_are_the_same_are_told_once(tmp_path, capsys):
    jsonl(tmp_path, [(noise(number), {"choices": ["a", "b", "A"]}) for number in range(3)], "test.jsonl")
    assert main(["data", "check", str(tmp_path)]) == 2
    (line,) = problems(capsys)
    assert line.endswith("no rule can tell the choices 'a' and 'A' apart (and so of 2 more)")


def test_texts_are_compared_and_files_are_found_in_either_unicode_form(tmp_path):
    composed, apart = "é", "e\u0301"
    Image.new("RGB", (8, 8)).save(tmp_path / f"{apart}.png")
    row = {"image": f"{composed}.png", "question": "?", "answer": apart, "choices": [composed, "b"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (example,) = open_set(str(tmp_path / "a.jsonl")).examples("test", "test", None)
    assert example.answer == composed and example.images[0].is_file()
