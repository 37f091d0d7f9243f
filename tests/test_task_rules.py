"""The rules of other tasks: choices by letter or text, numbers by value, and math-verify behind them."""

import os
import signal
import threading
import time

import pytest

from rftkit.common.mathematics import math_verify as math_equal_module
from rftkit.common.mathematics.math_verify import math_equal
from rftkit.rewards import score
from rftkit.tasks.example import Example


@pytest.mark.parametrize(
    ("gold", "text", "equal"),
    [
        ("1/2", "0.5", True),
        ("$\\frac{1}{2}$", "$0.5$", True),
        ("$\\frac{1}{2}$", "the answer is $\\frac{2}{4}$", True),
        ("$x^2 + 2x + 1$", "$(x + 1)^2$", True),
        ("3", "3.0", True),
        ("3", "4", False),
        ("cat", "cat", False),  # no number in it: nothing to compare
        ("", "", False),
        ('"]\n', '\\"\n["', False),
        ("3", "\ud800", False),
    ],
)
def test_mathematical_equality(gold, text, equal):
    assert math_equal(gold, text) == equal


@pytest.fixture(autouse=True)
def nothing_asked_before():
    math_equal_module._ask.cache_clear()


@pytest.mark.parametrize("hostile", ["$9^{9^{9^{9}}}$", "$100000000!$", "$" + "(" * 90 + "1" + ")" * 90 + "$"])
def test_hostile_mathematics_is_unequal_after_a_second_and_the_next_call_works(hostile):
    assert math_equal("1", "1")
    began = time.perf_counter()
    assert not math_equal("1", hostile)
    assert time.perf_counter() - began < 5  # a second of work, on a busy machine too
    assert math_equal("1/2", "0.5")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_busy_machine_changes_no_answer():
    assert math_equal("1/2", "0.5")
    worker = math_equal_module._worker.process.pid
    os.kill(worker, signal.SIGSTOP)
    later = threading.Timer(1.0, os.kill, (worker, signal.SIGCONT))
    later.start()
    assert math_equal("1/2", "0.5", seconds=0.2)
    assert not later.is_alive()


def test_mathematical_equality_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(math_equal("1/2", "0.5")))
    thread.start()
    thread.join()
    assert found == [True]


def test_a_worker_that_died_is_replaced_before_the_next_answer():
    assert math_equal("1/2", "0.5")
    math_equal_module._worker.process.kill()
    math_equal_module._worker.process.wait()
    assert math_equal("1/4", "0.25")


def test_what_was_asked_is_not_asked_again(monkeypatch):
    asked, ask = [], math_equal_module._Worker.ask
    monkeypatch.setattr(math_equal_module._Worker, "ask", lambda *pair: asked.append(pair[1:3]) or ask(*pair))
    assert [math_equal("1/2", text) for text in ("0.5", "0.4", "0.5", "0.4")] == [True, False, True, False]
    assert asked == [("1/2", "0.5"), ("1/2", "0.4")]


LETTERED = Example("", (), "Which?", "red star", ("blue star", "red star", "green heart"), "spatial")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("red star", True),
        (" Red Star ", True),
        ("B", True),
        ("(b)", True),
        ("B. red star", True),
        ("(B) red star", True),
        ("B: RED STAR", True),
        ("A", False),
        ("(A) red star", False),  # letter and text disagree
        ("B blue star", False),
        ("B, C", False),
        ("B or A", False),
        ("(A)(B)", False),
        ("D", False),
        ("", False),
        ("the red star", False),
        ("A red star", False),  # an article, no letter
        ("B red star", False),
        ("<answer> red star", False),
        ("blue star red star", False),
        ("Б", False),
        ("B" * 100_000, False),
    ],
)
def test_a_choice_is_named_by_letter_or_text(text, right):
    assert score(text, LETTERED, "no_thinking", "choice_letter").accuracy == right


def test_a_choice_that_looks_like_a_letter_is_that_choice():
    example = Example("", (), "Which letter?", "A", ("B", "A"), "puzzle")
    assert score("A", example, "no_thinking", "choice_letter").accuracy == 1
    assert score("B", example, "no_thinking", "choice_letter").accuracy == 0
    assert score("(B) A", example, "no_thinking", "choice_letter").accuracy == 1


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("12", True),
        (" 12.0 ", True),
        ("$12$", True),
        ("x = 12", True),
        ("12 degrees", True),
        ("24/2", True),
        (r"\boxed{12}", True),
        (r"\frac{24}{2}", True),
        ("13", False),
        ("-12", False),
        ("112", False),
        ("11, 12", False),  # a list of guesses
        ("13 or 12", False),
        ("11,12", False),
        ("7 + 5", False),  # unsolved
        ("7 + 5 = 12", False),
        ("The answer is 12.", False),  # not as asked
        ("<answer> 12", False),
        ("12 red stars", False),
        ("twelve", False),
        ("", False),
        ("1" * 100_000, False),
    ],
)
def test_a_number_is_equal_by_value_and_stands_alone(text, right):
    assert score(text, Example("", (), "", "12", None, "math"), "no_thinking", "math").accuracy == right


def test_thousands_may_have_commas():
    assert score("1,200", Example("", (), "", "1200", None, "math"), "no_thinking", "math").accuracy == 1


@pytest.mark.parametrize("rule", ["choice_letter", "math"])
@pytest.mark.parametrize(
    ("mode", "text", "right"),
    [
        ("thinking", "<think> 7 </think> <answer> 12 </answer>", 1),
        ("thinking", "<think> 7 <answer> 12", 0),
        ("thinking", "12", 0),
        ("thinking", "<think> <answer> 12 </answer> </think> <answer> 13 </answer>", 0),
        ("think_after_answer", "<answer> 12 </answer> <reason> 7 </reason>", 1),
        ("think_after_answer", "<answer> 12 <reason> 7 </reason>", 0),
        ("adaptive", "<answer> 12 </answer>", 1),
        ("adaptive", "12", 0),
    ],
)
def test_rules_of_other_tasks_read_the_answer_as_strictly(rule, mode, text, right):
    example = Example("", (), "", "12", ("12", "13"), "math")
    assert score(text, example, mode, rule).accuracy == right
