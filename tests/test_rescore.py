"""Published predictions, in the two formats of the authors' evaluation code, by our rules."""

import json
import re

import pandas as pd
import pytest

from rftkit.cli import main
from rftkit.tools.rescore import KEYS, kinds_of, mode_of, read_predictions, rescore

THOUGHT = "<think> stripes </think> <answer> {} </answer>"


def classification(output, answer, correct, read=None):
    """An item of test_qwen2vl_b2n_base.py; `question` is the whole row that was asked."""
    asked = {"label": answer, "image": "a.jpg", "problem": "What type ...", "split": "test"}
    published = {"question": asked, "ground_truth": answer, "model_output": output}
    return published | {"extracted_answer": read or output, "correct": correct}


def cv_bench(output, correct, answer="(B)"):
    """An item of test_cvbench.py."""
    return {"question": "How many?", "options": ["2", "1", "3"], "task": "Count", "ground_truth": answer,
            "response": output, "model_answer": output, "correct": correct}  # fmt: skip


def write(tmp_path, items, whole=True):
    path = tmp_path / "base_direct.json"
    path.write_text(json.dumps({"accuracy": 50.0, "results": items} if whole else items))
    return path


def numbers(items, column):
    """By rule, the numbers of the items that have something."""
    return {rule: rows["item"][rows[column]].tolist() for rule, rows in items.groupby("rule")}


@pytest.mark.parametrize("whole", [True, False])
def test_the_published_score_is_our_lenient_rule_and_strict_differs(tmp_path, whole):
    items = [
        classification("banded", "banded", 1),
        classification("It is banded.", "banded", 1),
        classification("sea_snake or sea snake", "sea_snake", 1),
        classification("dotted", "banded", 0),
        classification("Banded", "banded", 1),
    ]
    predictions = read_predictions(write(tmp_path, items, whole))
    items = rescore(predictions, mode_of(predictions))
    assert mode_of(predictions) == "no_thinking"
    assert numbers(items, "right") == {"strict": [0, 4], "lenient": [0, 1, 2, 4], "authors": [0]}
    assert numbers(items, "theirs only") == {"strict": [1, 2], "lenient": [], "authors": [1, 2, 4]}  # case counts
    assert not items[["ours only", "read otherwise"]].any(axis=None)


def test_thoughts_are_read_in_their_tags(tmp_path):
    said = THOUGHT.format("banded")
    items = [
        classification(said, "banded", 1, "banded"),
        classification("<answer> a banded one </answer>", "banded", 0),
    ]
    predictions = read_predictions(write(tmp_path, items))
    items = rescore(predictions, mode_of(predictions))
    assert mode_of(predictions) == "thinking"
    assert numbers(items, "right")["strict"] == [0] and numbers(items, "ours only")["lenient"] == [1]
    # "a banded one" stands in the tags, the file says the whole text was read
    assert numbers(items, "read otherwise")["lenient"] == [1]


def test_options_are_named_by_letter_or_text(tmp_path):
    items = [cv_bench("B", 1), cv_bench("(B) 1", 1), cv_bench("1", 1), cv_bench("A", 0), cv_bench("3", 1, "(C)")]
    scored = rescore(read_predictions(write(tmp_path, items)), "no_thinking")
    right = numbers(scored, "right")
    assert right["choice_letter"] == [0, 1, 2, 4] and numbers(scored, "theirs only")["choice_letter"] == []
    assert right["strict"] == [2, 4]  # the text alone


def test_each_item_is_scored_by_the_rule_of_its_kind_too(tmp_path, capsys):
    items = [  # as of MATH-Vision: half of it are choices; numbers are numbers, and short lists are padded
        {"response": "B", "answer": "B", "options": ["2", "", "3"], "correct": 0},  # the letter of an empty text
        {"response": "B", "answer": "B", "options": ["2", "1", ""], "correct": 1},
        {"response": 5, "answer": 5, "options": [], "extracted_answer": 5, "correct": True},
        {"response": "x = 1/2", "answer": 0.5, "correct": False},
    ]
    scored = rescore(read_predictions(write(tmp_path, items, whole=False)), "no_thinking")
    right = numbers(scored, "right")
    assert right["choice_letter"][-1:] == [1] and right["math"][:1] == [2] and not scored["read otherwise"].any()
    assert {rule: len(rows) for rule, rows in scored.groupby("rule")} == {
        "strict": 4, "lenient": 4, "authors": 4, "choice_letter": 2, "math": 2, "by kind": 4}  # fmt: skip
    assert right["by kind"] == sorted(right["choice_letter"] + right["math"])
    assert main(["rescore", str(tmp_path / "base_direct.json"), "--mode", "no_thinking"]) == 0
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()[2:8]}
    assert (rows["strict"], rows["math"], rows["choice_letter"]) == ("4", "2", "2")


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["5", "\\frac{1}{2}", "12 years"], "math"),
        (["2012 BMW M3 Coupe", "2009 Audi"], "strict"),
        (["cat", "dog", "7"], "strict"),
    ],
)
def test_values_are_told_from_classes_by_most_right_answers(tmp_path, answers, kind):
    items = [{"response": "a", "answer": answer} for answer in answers]
    assert set(kinds_of(read_predictions(write(tmp_path, items, whole=False)))) == {kind}


def test_the_command_prints_the_table_and_where_it_differs(tmp_path, capsys):
    path = write(tmp_path, [classification("It is banded.", "banded", 1), classification("dotted", "banded", 0)])
    assert main(["rescore", str(path)]) == 0
    written = capsys.readouterr().out
    assert "2 predictions, mode no_thinking, 50.00 % right as published" in written
    rows = {line.split()[0]: line.split()[1:] for line in written.splitlines()[2:5]}
    assert rows["strict"] == ["0", "0.00", "%", "1", "1", "0", "0"]
    assert rows["lenient"] == ["1", "50.00", "%", "2", "0", "0", "0"]
    assert "strict, theirs only, item 0: 'It is banded.' for 'banded'" in written and "lenient, " not in written


def test_files_without_a_published_score_are_scored(tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"output": "cat", "answer": "cat"}\n{"output": "dog", "answer": "cat"}\n')
    assert main(["rescore", str(path), "--mode", "no_thinking"]) == 0
    assert "no published score" in capsys.readouterr().out


def test_one_line_of_json_is_one_prediction(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"output": "cat", "answer": "cat"}\n')
    (prediction,) = read_predictions(path)
    assert (prediction.output, prediction.example.answer) == ("cat", "cat")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "not valid JSON: Expecting property name enclosed in double quotes: line 1"),
        ('{"output": "a", "answer": "a"}\n{"output": "a"\n', "not valid JSON: Expecting ',' delimiter: line 3"),
        ('{"results": [{"output": "a", "answer"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("", "holds no predictions"),
        (" \n", "holds no predictions"),
        ("[]", "holds no predictions"),
        ('{"accuracy": 1}', "holds no predictions"),
        ('[{"ground_truth": "a"}]', "item 0: no text under any of model_output, response"),
        ('[{"response": "a"}]', "item 0: no text under any of ground_truth, answer, label"),
        ('[{"response": "a", "answer": null}]', "answer, label: null; write an empty text, or leave the item out"),
        (
            "output,answer\ncat,cat\n",
            "not valid JSON: Expecting value: line 1 column 1 (char 0); they must be a list, or",
        ),
        ("[3]", "item 0: no text under any of"),
        ('[{"response": "a", "ground_truth": ""}]', "item 0: the right answer is empty"),
        ('{"response": "a", "ground_truth": " "}', "item 0: the right answer is empty"),
        ('{"response": "a", "results": []}', "holds no predictions"),
        ('[{"response": "a", "answer": "a", "correct": "yes"}]', "'correct' must be 0, 1, true or false"),
        ('[{"response": "a", "answer": "a", "options": "ab"}]', "the options must be a list of texts"),
    ],
)
def test_other_files_are_one_line(tmp_path, capsys, content, line):
    path = tmp_path / "a.json"
    path.write_text(content)
    assert main(["rescore", str(path)]) == 2
    written = capsys.readouterr().err
    assert line in written and written.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("gone.json", "cannot read or write 'gone.json': No such file"),
        (".", "cannot read or write '.': Is a directory"),
        ("a.parquet", "cannot read predictions from 'a.parquet': it is not UTF-8 text; they must be JSON"),
        ("base_direct.json --mode wondering", "unknown mode 'wondering'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, options, line):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, [classification("a", "a", 1)])
    pd.DataFrame({"output": ["a"], "answer": ["a"]}).to_parquet("a.parquet")
    assert main(["rescore", *options.split()]) == 2
    written = capsys.readouterr().err
    assert line in written and written.count("\n") == 1


def test_the_help_names_every_key_and_has_an_example(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["rescore", "--help"])
    written = " ".join(capsys.readouterr().out.split())
    assert {key for keys in KEYS.values() for key in keys} <= set(re.findall(r"\w+", written))
    path = tmp_path / "example.json"
    path.write_text(re.search(r'\{"output".*?\}', written)[0])
    assert main(["rescore", str(path)]) == 0 and "1 predictions, mode no_thinking, 100.00 %" in capsys.readouterr().out
