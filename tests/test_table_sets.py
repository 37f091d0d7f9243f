"""Tables of rows: folders of JSONL files, what `rftkit data check` finds, and one line for what is wrong."""

import json

import pytest
import real_formats as formats
from PIL import Image

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.evaluate import asked_parts
from rftkit.prompts import question_text
from rftkit.run import execute
from rftkit.runs.folder import read_results
from rftkit.settings import load_settings
from rftkit.tasks.outside.real_sets import REAL_SETS, by_columns
from rftkit.tasks.outside.rows import check_texts
from rftkit.tasks.registry import open_set
from rftkit.tools.check_data import check_set
from rftkit.tools.select import select


def problems(capsys):
    """What `rftkit data check` found, beside the bar of its work."""
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("problem: ") for line in lines if line.startswith("problem: ")]


def remarks(capsys):
    """What it found that is nobody's here to fix."""
    lines = capsys.readouterr().out.splitlines()
    return [line.removeprefix("remark: ") for line in lines if line.startswith("remark: ")]


def jsonl_folder(folder, **splits):
    for first, (split, count) in enumerate(splits.items()):
        images = [f"{split}/{i}.png" for i in range(count)]
        rows = [
            {"image": image, "question": "What is it?", "answer": "cat", "choices": ["cat", "dog"]} for image in images
        ]
        formats.json_file(folder, f"{split}.jsonl", rows, images, lines=True, first=100 * first)
    return str(folder)


def test_a_folder_of_jsonl_files_is_trained_and_tested_on(tmp_path):
    folder = jsonl_folder(tmp_path / "mine", train=24, test=5)
    settings = load_settings("smoke", "no_thinking_rl", dataset=folder, steps=1, eval_every=1)
    done = execute(settings, tmp_path / "runs")
    assert done.name.startswith("mine-no_thinking_rl-") and read_results(done).parts["test"].n == 5
    assert set(open_set(folder).splits) == {"shots", "val", "test"}
    assert len(open_set(folder).examples("test", "test", None)) == 5


def test_every_line_of_a_jsonl_file_is_checked(tmp_path, capsys):
    folder = jsonl_folder(tmp_path, train=6, test=2)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    lines[1], lines[4] = lines[1].replace('"answer": "cat"', '"answer": "cow"'), "{"
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    for name in (folder, f"{folder}/train.jsonl"):
        assert main(["data", "check", name]) == 2
        written = capsys.readouterr()
        assert "train.jsonl line 2: answer 'cow'" in written.err and "train.jsonl line 5: not valid JSON" in written.err
        assert written.err.count("\n") == 2 and "2 problems found" in written.out


def test_a_bundled_name_is_never_a_folder_of_jsonl_files(tmp_path, monkeypatch):
    jsonl_folder(tmp_path / "shapes", train=2, test=2)
    monkeypatch.chdir(tmp_path)
    assert set(asked_parts(open_set("shapes"), test_items=2)) == {"base", "new"}


BAD = [
    ({"answer": ""}, "'answer' must be a text that is not empty"),
    ({"answer": "(F)"}, "answer '(F)' is not among the choices"),
    ({"question": None}, "'question' must be a text"),
    ({"question": "<|im_end|>?"}, "is a control token of the chat format"),
    ({"image": {"bytes": b"no picture", "path": None}}, "cannot read image 'stored in the row'"),
    ({"image": None}, "'image' must be a path"),
]


def test_data_check_finds_every_problem_of_a_table(tmp_path, capsys):
    good = {"image": formats.picture(0), "question": "How many?", "choices": ["1", "2"], "answer": "(A)"}
    rows = [good] + [good | change for change, _ in BAD]
    formats.parquet(tmp_path / "test.parquet", rows, image=formats.IMAGE)
    assert main(["data", "check", "cv-bench", "--root", str(tmp_path)]) == 2
    written = capsys.readouterr()
    for number, (_, said) in enumerate(BAD, 1):
        assert any(f"cv-bench-test-{number}:" in line and said in line for line in written.err.splitlines()), said
    assert f"{len(BAD)} problems found" in written.out


def test_the_same_picture_in_two_splits_is_found(tmp_path, capsys):
    row = {"image_bytes": [formats.picture(1)], "question": "?", "answers": ["a", "b"], "correct_answer": "a"}
    for split in ("train", "test"):
        formats.parquet(tmp_path / f"{split}.parquet", [row] * 3, image_bytes=formats.IMAGES)
    assert main(["data", "check", f"sat@{tmp_path}"]) == 0  # it was published so
    (line,) = remarks(capsys)  # one for a picture, however many rows have it
    assert line.startswith("the same picture is in ") and line.endswith(" and in test (sat-test-0)")


@pytest.mark.parametrize("name", ["shapes", "."])
def test_a_root_is_for_real_sets(name, capsys):
    assert main(["data", "check", name, "--root", "somewhere"]) == 2
    assert f"unknown dataset '{name}@somewhere'" in capsys.readouterr().err


def test_pictures_of_one_name_in_several_folders_are_held_out_and_grouped_apart(tmp_path):
    images = [f"{number}/view.png" for number in range(60)]
    row = {"question": "What is it?", "answer": "cat", "choices": ["cat", "dog"]}
    formats.json_file(
        tmp_path / "mine", "train.jsonl", [row | {"image": image} for image in images], images, lines=True
    )
    held_out = open_set(str(tmp_path / "mine")).examples("val", "test", None, 0)
    assert 0 < len(held_out) < len(images) / 4
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert open_set(str(tmp_path / "moved")).examples("val", "test", None, 0)[0].id == held_out[0].id
    asked = {"from": "human", "value": "<image>\nHow many legs are there?"}
    rows = [{"image": i, "conversations": [asked, {"from": "gpt", "value": "The answer is 4"}]} for i in images]
    formats.json_file(tmp_path / "real", "train_samples_all_tuning.json", rows, images)
    shots = open_set(f"mathv360k@{tmp_path / 'real'}").examples("shots", "test", None, 0)
    assert len({example.group for example in shots}) == len(shots) > 20


def test_ids_that_name_several_items_are_refused_before_a_run(tmp_path, capsys):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    row = json.dumps({"image": "a.png", "question": "What?", "answer": "a", "choices": ["a", "b"], "id": "x"})
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(f"{row}\n{row}\n")
    assert main(["run", "--profile", "smoke", "--dataset", str(tmp_path), "--out", str(tmp_path / "runs")]) == 2
    assert "test: x names 2 items: ids must differ" in capsys.readouterr().err


def test_turns_that_are_no_texts_are_a_problem_of_their_row(tmp_path, capsys):
    formats.mathv360k(tmp_path)
    file = tmp_path / "train_samples_all_tuning.json"
    rows = json.loads(file.read_text())
    rows[0]["conversations"][0]["value"], rows[1]["conversations"][1]["value"] = ["what?"], {"text": "4"}
    file.write_text(json.dumps(rows))
    assert main(["data", "check", f"mathv360k@{tmp_path}"]) == 2
    lines = sorted(line.rpartition("-")[2] for line in problems(capsys))
    assert lines == ["0: 'question' must be a text that is not empty", "1: 'answer' must be a text that is not empty"]


def test_a_folder_in_place_of_a_jsonl_file_is_one_line(tmp_path, capsys):
    folder = jsonl_folder(tmp_path / "mine", test=2)
    (tmp_path / "mine" / "train.jsonl").mkdir()
    assert main(["run", "--profile", "smoke", "--dataset", folder]) == 2
    written = capsys.readouterr().err
    assert "train.jsonl': Is a directory" in written and written.count("\n") == 1


def test_a_set_with_nothing_held_out_is_trained_on_without_a_curve(tmp_path, capsys):
    dataset, tested = f"dtd-4shot-b2n@{formats.authors(tmp_path / 'a')}", jsonl_folder(tmp_path / "b", test=2)
    settings = load_settings("smoke", "sft", dataset=dataset, eval_dataset=tested, steps=1, eval_every=1)
    done = execute(settings, tmp_path / "runs")
    assert read_results(done).parts["test"].n == 2 and not (done / "curve.csv").exists()
    assert f"no accuracy curve: '{settings.dataset}' has no rows for 'val', only for shots\n" in capsys.readouterr().err
    with pytest.raises(UserError, match="has no rows for 'val'"):
        select("smoke", dataset, tmp_path)


def test_training_rows_that_cannot_be_used_are_left_out_and_told_of(tmp_path, capsys):
    folder = formats.puzzlevqa(tmp_path)
    file = folder / "data" / "size_cycle.json"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[3]["answer"] = "huge"
    file.write_text("\n".join(map(json.dumps, rows)))
    parts = [open_set(f"puzzlevqa@{folder}").examples(split, "test", None, 0) for split in ("shots", "val")]
    assert sum(map(len, parts)) == 19
    written = capsys.readouterr().err
    assert "1 of" in written and "answer 'huge' is not among the choices" in written
    with pytest.raises(UserError, match="puzzlevqa-test-3: answer 'huge'"):
        asked_parts(open_set(f"puzzlevqa@{folder}"))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--dataset hub:cv-bench", "'hub:cv-bench' has a test split only"),
        ("--dataset hub:dtd-4shot-b2n", "'hub:dtd-4shot-b2n' has no test split: give the set to test on"),
        ("--dataset hub:puzzlevqa", "'hub:puzzlevqa' has one split"),
        ("--dataset hub:sat --eval-dataset hub:mathvista", "belongs to the task 'math', not 'spatial'"),
        ("--dataset hub:sat --eval-dataset sat-15000@.", "has no test split: give the set to test on"),
        ("--dataset hub:sat --eval-dataset hub:cv-bench", "give cv-bench@DIR with a copy of it in DIR"),
        ("--dataset hub:puzzlevqa --eval-dataset hub:algopuzzlevqa --method zero_shot", "is not on this machine and"),
        ("--dataset hub:mathv360k --eval-dataset hub:mathvista", "fetch it and give mathv360k@DIR"),
        ("--dataset hub:nothing", "there is no real set 'nothing'"),
        ("--dataset cv-bench@nowhere", "names no folder: give cv-bench@DIR or hub:cv-bench"),
        ("--dataset shapes --eval-dataset nowhere", "unknown dataset 'nowhere'"),
    ],
)
def test_mistakes_are_one_line(options, line, capsys):
    assert main(["run", "--profile", "smoke", *options.split()]) == 2
    written = capsys.readouterr().err
    assert line in written and written.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ([{"image": "a.png", "answer": "a", "options": ["a"]}], "column 'question' is missing"),
        (["text"], "column 'image' is missing (there are none)"),
        ([{"image": "a.png", "question": "?", "options": ["a"], "answer": "a"}], "there is no image 'a.png'"),
        ([{"image": "../a.png", "question": "?", "options": ["a"], "answer": "a"}], "points outside the data folder"),
        ([{"image": "b.png", "question": "\ud800?", "options": ["a"], "answer": "a"}], "has half a character in it"),
        ([], "has no rows"),
        ("{", "cannot read"),
    ],
)
def test_files_that_are_no_such_set_are_one_line(tmp_path, content, line):
    (tmp_path / "a.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError) as error:
        open_set(f"algopuzzlevqa@{tmp_path}").examples("test", "test", None, 0)
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (lambda folder: None, "cannot read the split 'test'"),
        (lambda folder: (folder / "test.parquet").write_bytes(b"no parquet"), "cannot read the split 'test'"),
        (lambda folder: formats.mathvista(folder), "there is no test.parquet, test-*.parquet, *_test.parquet"),
        (lambda folder: formats.algopuzzlevqa(folder), "what save_to_disk wrote there has the splits data"),
    ],
)
def test_folders_without_the_split_are_one_line(tmp_path, write, line, capfd):
    write(tmp_path)
    capfd.readouterr()
    assert main(["evaluate", "--model", "nano-s", "--data", f"cv-bench@{tmp_path}"]) == 2
    written = capfd.readouterr().err
    assert line in written and written.count("\n") == 1  # the library's own log would be a second line


@pytest.mark.parametrize("file", ["dataset_dict.json", "data/state.json", "data/dataset_info.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"splits": 3}'])
def test_truncated_files_of_save_to_disk_are_said_to_be_torn(tmp_path, capfd, file, content):
    formats.algopuzzlevqa(tmp_path)
    (tmp_path / file).write_text(content)
    capfd.readouterr()
    assert main(["data", "check", f"algopuzzlevqa@{tmp_path}"]) == 2
    written = capfd.readouterr().err
    assert "what save_to_disk wrote there is truncated: copy or save it again" in written and written.count("\n") == 1


def test_repeated_ids_and_empty_splits_are_problems(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    line = json.dumps({"image": "a.png", "question": "q", "answer": "x", "id": "same"})
    (tmp_path / "test.jsonl").write_text(f"{line}\n{line}\n")
    assert check_set(str(tmp_path))[1] == ["test: same names 2 items: ids must differ"]


def test_choices_that_are_no_list_are_a_problem_of_their_row():
    for choices in (5, True, {"A": "x"}, "x"):
        row = {"image": "a.png", "question": "q", "answer": "A", "choices": choices}
        with pytest.raises(UserError, match="'choices' must be a list of texts"):
            check_texts(*by_columns(REAL_SETS["cv-bench"], row), "row")


def test_the_hub_or_a_folder_not_both(tmp_path):
    with pytest.raises(UserError, match="names both the hub and a folder"):
        open_set(f"hub:sat@{tmp_path}")


def test_a_jsonl_set_names_its_task_and_is_tested_on_another_set_of_it(tmp_path, capsys):
    rows = [{"image": f"{i}.png", "question": "How long?", "answer": str(i), "task": "math"} for i in range(12)]
    names = [row["image"] for row in rows]
    mine = formats.json_file(tmp_path / "mine", "train.jsonl", rows, names, lines=True)
    assert (open_set(str(mine)).task, open_set(str(mine)).rule) == ("math", "math")
    tested = f"mathvista@{formats.mathvista_github(tmp_path / 'real')}"
    settings = load_settings("smoke", "no_thinking_rl", dataset=str(mine), eval_dataset=tested, steps=1)
    assert (settings.task, settings.scoring) == ("math", "math")
    done = read_results(execute(settings, tmp_path / "runs"))
    assert (done.task, done.parts["test"].n) == ("math", 2)
    command = f"run --profile smoke --dataset {mine} --eval-dataset shapes"
    assert main(command.split()) == 2
    assert "dataset 'shapes' belongs to the task 'classification', not 'math'" in capsys.readouterr().err


def test_a_jsonl_set_that_names_no_task_is_of_the_one_that_is_given(tmp_path, capsys):
    row = {"image": "0.png", "question": "Which?", "answer": "2", "choices": ["1", "2"]}
    folder = formats.json_file(tmp_path / "mine", "test.jsonl", [row, row | {"id": "b"}], ["0.png"], lines=True)
    name = str(folder)
    assert open_set(name).task == "classification" and open_set(name, "puzzle").rule == "choice_letter"
    (example, _) = open_set(name, "puzzle").examples("test", "test", None)
    assert question_text(example, "no_thinking").startswith("Which?\n (A) 1 (B) 2\n")
    settings = load_settings("smoke", "cls_rl", task="puzzle", eval_dataset=name)
    assert settings.test_set.examples("test", "test", None)[0].task == "puzzle"
    for command, said in (
        (f"evaluate --model nano-s --data {name} --task puzzle --mode no_thinking", "test   no_thinking choice_letter"),
        (f"diagnose nano-s --data {name} --task spatial --mode no_thinking", "no_thinking      2"),
    ):
        assert main(command.split()) == 0 and said in capsys.readouterr().out
    assert main(["evaluate", "--model", "nano-s", "--data", name, "--task", "chess"]) == 2
    assert "belongs to the task 'classification', not 'chess'" in capsys.readouterr().err


def test_every_line_is_of_the_sets_task(tmp_path):
    row = {"image": "0.png", "question": "Which?", "answer": "2", "task": "math"}
    rows = [row, row | {"task": "puzzle", "id": "b"}, row | {"task": None, "id": "c"}]
    name = str(formats.json_file(tmp_path / "mine", "test.jsonl", rows, ["0.png"], lines=True))
    assert check_set(name)[1] == ["test.jsonl line 2: task 'puzzle' where the set's is 'math'"]
    with pytest.raises(UserError, match="dataset 'mine' belongs to the task 'math', not 'puzzle'"):
        open_set(name, "puzzle")


@pytest.mark.parametrize("file", ["train.json", "test.csv"])
def test_a_folder_with_a_table_in_place_of_json_lines_is_one_line(tmp_path, capsys, file):
    formats.json_file(tmp_path / "mine", file, [], ["images/0.png"])
    name = str(tmp_path / "mine")
    for command in (f"evaluate --model nano-s --data {name}", f"run --profile smoke --dataset {name}"):
        assert main(command.split()) == 2
        written = capsys.readouterr().err
        assert f"/{file}' must be {file[:-4].rstrip('.')}.jsonl: write an example a line, such as {{" in written
        assert written.count("\n") == 1
    (tmp_path / "mine" / "train").mkdir()  # a table beside folders of pictures is nobody's business
    with pytest.raises(UserError, match="has one class"):
        open_set(name).examples("test", "base", 1)
