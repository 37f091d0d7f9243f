"""How a model answers, by habit."""

import json

import pytest

from rftkit.cli import main
from rftkit.tasks.example import Example
from rftkit.tools.diagnose import HABITS, diagnose, habit

ITEM = Example("a", (), "", "star", ("star", "ring"), "classification")
SUM = Example("b", (), "", "12", None, "math")


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("Star", "no_thinking", "exact"),
        ("The picture shows a star.", "no_thinking", "prose"),
        ("ring", "no_thinking", "wrong"),
        ("The picture shows a thing.", "no_thinking", "vague"),
        ("<think> a </think> <answer> star </answer>", "thinking", "exact"),
        ("<think> a <answer> star", "thinking", "broken tags"),
        ("star", "thinking", "broken tags"),
        ("<think> a </think> <answer> a star </answer>", "thinking", "prose"),
        ("<think> a </think> <answer> ring </answer>", "thinking", "wrong"),
        ("<answer> star </answer>", "adaptive", "exact"),
        ("<think> x <answer> star </answer>", "thinking", "broken tags"),
        ("<think> a star </think> <answer> ring </answer>", "thinking", "wrong"),
        ("starlight", "no_thinking", "vague"),
    ],
)
def test_habits(text, mode, expected):
    assert habit(text, ITEM, mode, "strict") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12", "exact"), ("It is 12.", "prose"), ("13", "wrong"), ("312", "wrong"), ("hard to tell", "vague")],
)
def test_habits_of_numbers(text, expected):
    assert habit(text, SUM, "no_thinking", "math") == expected


def test_a_wrong_letter_is_a_wrong_answer():
    lettered = Example("c", (), "", "star", ("star", "ring"), "spatial")
    assert habit("B", lettered, "no_thinking", "choice_letter") == "wrong"
    assert habit("A", lettered, "no_thinking", "choice_letter") == "exact"


def test_shares_add_up_and_have_samples():
    for found in diagnose("nano-s", "shapes", test_items=16, max_tokens=40, device="cpu"):
        assert found.n == 32 and sum(found.shares.values()) == pytest.approx(1)
        assert {name for name in HABITS if found.shares[name]} == set(found.samples)


def test_the_command_prints_a_table_or_json(capsys):
    command = ["diagnose", "nano-s", "--data", "shapes", "--mode", "no_thinking", "--test-items", "8"]
    assert main(command) == 0
    header, row, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["items", "exact", "broken", "tags", "prose", "wrong", "vague"]
    assert row.split()[:2] == ["no_thinking", "16"] and row.count("%") == 5
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["n"] == 16


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--mode think", "unknown mode 'think'"),
        ("--batch 0", "--batch must be"),
        ("--max-tokens 0", "--max-tokens must"),
    ],
)
def test_mistakes_are_one_line(options, line, capsys):
    assert main(["diagnose", "nano-s", *options.split()]) == 2
    assert line in capsys.readouterr().err
