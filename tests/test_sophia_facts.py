"""Captions, the exact-rule reasoner, and what is false in captions and thoughts, beside scenes."""

import pandas as pd
import pytest

from rftkit.common.errors import UserError
from rftkit.rewards import score
from rftkit.sophia.captions import USUAL, drawn_task, items, true_caption
from rftkit.sophia.hallucination import abstains, by_length, caption_facts, thought_facts, thoughts_table
from rftkit.sophia.reasoners import Problem
from rftkit.sophia.rule import Rule, says_enough
from rftkit.tasks.registry import DRAWN

QUESTIONS = ("What is the result?", "In the bar chart, what is red plus blue?", "What is the perimeter?",
             "What colour belongs where the question mark is?")  # fmt: skip
EXACT = Rule(copy_slip=0, step_slip=0)


@pytest.fixture(scope="module", params=[("math", "columns"), ("math", "rows"), ("puzzle", "rows")], ids="-".join)
def drawn(request):
    task, prompt = request.param
    return items(DRAWN[task], "val", "all", 60), prompt


def problem_of(item, prompt, caption=None):
    caption = true_caption(item.scene, prompt) if caption is None else caption
    return Problem(item.example.id, item.example.question, item.example.choices, caption, prompt)


def is_right(item, text):
    return score(text, item.example, "thinking", DRAWN[item.example.task].rule).accuracy == 1


def bar_item():
    return next(item for item in items(DRAWN["math"], "val", "level 2", 12) if item.kind == "bars")


def test_items_are_the_sets_own_examples():
    task = DRAWN["math"]
    own = [item.example for item in items(task, "shots", "all", 30, 3)]
    assert [e.id for e in own] == [e.id for e in task.examples("shots", "all", 30, 3)]
    assert own[7].images[0].tobytes() == task.examples("shots", "all", 30, 3)[7].images[0].tobytes()
    with pytest.raises(UserError, match="choose one of math, puzzle"):
        drawn_task("spatial")


def test_on_true_captions_the_rule_is_right_and_asserts_nothing_false(drawn):
    its, prompt = drawn
    texts = [own for (own,) in EXACT.reason([problem_of(item, prompt) for item in its], 1, 0)]
    right = [is_right(item, text) for item, text in zip(its, texts, strict=True)]
    assert sum(right) >= 59  # a pattern of four colours, one of them seen once, has two readings
    for item, text, fine in zip(its, texts, right, strict=True):
        facts = caption_facts(item, prompt, true_caption(item.scene, prompt))
        assert (facts.whole, facts.false, facts.invented, facts.words_right) == (True, 0, 0, 1.0)
        assert facts.suffices == fine
        assert thought_facts(item, text).false == 0 or not fine


def test_the_rule_reads_nothing_but_the_caption(drawn):
    its, prompt = drawn
    other = true_caption(its[-1].scene, prompt)
    for item in its[:20]:
        said = EXACT.reason([problem_of(item, prompt, other)], 1, 0)
        assert said == EXACT.reason([problem_of(item, prompt, other)], 1, 0)
        assert all(char not in said[0][0] for char in "{}")
    swapped = [problem_of(item, prompt, true_caption(its[n - 12].scene, prompt)) for n, item in enumerate(its)]
    right = [is_right(item, text) for item, (text,) in zip(its, EXACT.reason(swapped, 1, 0), strict=True)]
    assert sum(right) < 30  # of another picture of the same kind


@pytest.mark.parametrize(
    ("question", "caption", "thought", "answer"),
    [
        ("What is the result?", "+ -, 7 8 3", "7 plus 8 is 15, 15 minus 3 is 12", "12"),
        ("In the bar chart, what is red plus blue?", "4 red, 5 pink, 9 blue, 1 cyan", "4 plus 9 is 13", "13"),
        ("What is the perimeter?", "3, 4 5", "3 plus 4 is 7, 7 plus 5 is 12", "12"),
        ("What is the angle of the triangle that is marked x, in degrees?", "30 x, 70",
         "180 minus 30 is 150, 150 minus 70 is 80", "80"),
    ],
)  # fmt: skip
def test_the_rules_words(question, caption, thought, answer):
    text = f"<think> {thought} </think> <answer> {answer} </answer>"
    assert EXACT.reason([Problem("a", question, None, caption)], 2, 0) == [[text, text]]
    assert says_enough(Problem("a", question, None, caption)) == answer


@pytest.mark.parametrize("caption", ["", "red, blue", "7", "?", ",,,", "9" * 5000, "é + -"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_caption_that_does_not_tell_leaves_a_guess(question, caption):
    choices = ("red", "blue") if "colour" in question else None
    problem = Problem("a", question, choices, caption, "rows")
    assert says_enough(problem) is None
    (text,) = EXACT.reason([problem], 1, 0)[0]
    assert score(text, items(DRAWN["math"], "val", "all", 1)[0].example, "thinking", "math").parsed is not None


def test_slips_come_as_often_as_they_are_said_to():
    item = bar_item()
    (texts,) = Rule().reason([problem_of(item, "columns")], 1500, 1)
    wrong = 1 - sum(is_right(item, text) for text in texts) / len(texts)
    assert 0.07 < wrong < 0.12  # 7 % of the steps and those of 5 % miscopied that are asked for
    assert Rule().reason([problem_of(item, "columns")], 5, 1)[0] == texts[:5]


def test_false_statements_of_a_caption_by_hand():
    item = bar_item()
    true = true_caption(item.scene, "columns").replace(",", " ,").split()
    wrong = ["17" if place == 0 else word for place, word in enumerate(true)]  # no bar is so high
    facts = caption_facts(item, "columns", " ".join(wrong))
    assert (facts.whole, facts.said, facts.false, facts.invented) == (False, 8, 1, 1)
    assert facts.words_right == 7 / 8
    shuffled = caption_facts(item, "columns", ", ".join(reversed(" ".join(true).split(" , "))))
    assert shuffled.invented == 0 and shuffled.false > 0
    nothing = caption_facts(item, "columns", "")
    assert (nothing.said, nothing.false, nothing.words_right, nothing.suffices) == (0, 0, 0.0, False)


def test_false_statements_of_a_thought_by_hand():
    item = bar_item()
    numbers = [int(word) for word, _, _ in item.scene.marks if word.isdecimal()]
    a, b = numbers[:2]

    def facts(thought):
        return thought_facts(item, f"<think> {thought} </think> <answer> 1 </answer>")

    true = facts(f"{a} plus {b} is {a + b}")
    assert (true.asserted, true.invented, true.steps, true.wrong_steps) == (2, 0, 1, 0)
    assert facts(f"{a} plus {b} is {a + b + 1}").wrong_steps == 1
    assert facts(f"77 plus {b} is {77 + b}").invented == 1
    chain = facts(f"{a} plus {b} is {a + b}, {a + b} plus 55 is {a + b + 55}")
    assert (chain.asserted, chain.invented) == (3, 1)
    own = facts(", ".join(item.example.steps))
    assert own.right_numbers is True and own.false == 0
    assert facts("").right_numbers is None
    assert facts(f"{'9' * 5000} plus 1 is 2").steps == 0


@pytest.mark.parametrize(
    ("completion", "gives_none"),
    [
        ("<think> </think> <answer> 4 </answer>", False),
        ("<think> it is hard to see </think> <answer> red </answer>", True),
        ("It is hard to tell.", True),
        ("<think> 3 plus 1 is 4 </think> <answer> </answer>", True),
    ],
)
def test_abstention(completion, gives_none):
    assert abstains(completion) is gives_none


def test_errors_against_length():
    rows = pd.DataFrame({"tokens": [1, 2, 3, 4], "right": [1, 1, 0, 0], "false": [0, 0, 1, 3]})
    parts = by_length(rows, "right", 2)
    assert parts.to_dict("list") == {"shortest": [1, 3], "longest": [2, 4], "n": [2, 2], "accuracy": [1.0, 0.0],
                                     "false": [0.0, 2.0]}  # fmt: skip
    assert len(by_length(rows.assign(tokens=5), "right")) == 1


def test_answers_are_held_against_their_scenes():
    its = items(DRAWN["math"], "test", "level 1", 4)
    answers = [{"completion": f"<think> {', '.join(i.example.steps)} </think> <answer> 1 </answer>", "tokens": 9}
               for i in its]  # fmt: skip
    assert thoughts_table(its, answers)["false"].tolist() == [0] * 4
    assert set(USUAL) == {"math", "puzzle"}
