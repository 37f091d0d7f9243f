"""What completions are worth: tables of completions and scores, the ways to cheat among them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rftkit.common.errors import UserError
from rftkit.prompts import MODES
from rftkit.rewards import RULES, Score, agrees, reward_functions, score
from rftkit.tasks.example import Example


def label(answer):
    return Example("", (), "", answer)


CAT = label("cat")
THOUGHT = "<think> It has fur. </think> "


def accuracies(completion, example, mode):
    return tuple(int(score(completion, example, mode, rule).accuracy) for rule in ("strict", "lenient", "authors"))


@pytest.mark.parametrize(
    ("completion", "strict", "lenient", "authors"),
    [
        ("cat", 1, 1, 1),
        ("Cat", 1, 1, 0),  # the released reward without thinking is case-sensitive
        (" cat\n", 1, 1, 0),  # and does not strip
        ("cat.", 0, 1, 0),
        ("It is a cat.", 0, 1, 0),
        ("catfish", 0, 1, 0),  # a substring is enough for the paper's evaluation
        ("It is not a cat.", 0, 1, 0),
        ("dog, cat, horse, ship", 0, 1, 0),  # listing all choices
        ("dog", 0, 0, 0),
        ("ca", 0, 0, 0),
        ("", 0, 0, 0),
        (" ", 0, 0, 0),
        ("<answer> cat </answer>", 0, 1, 0),
        ("<answer> dog </answer> cat", 0, 0, 0),
        ("Please directly output the answer.", 0, 0, 0),
        ("\u0441\u0430t", 0, 0, 0),  # Cyrillic es and a
        ("\uff43\uff41\uff54", 0, 0, 0),  # full width
        ("c\u200bat", 0, 0, 0),  # zero-width space
        ("cat\u200b", 0, 1, 0),
        ("\u202etac", 0, 0, 0),  # written from right to left
        ("c\u0301at", 0, 0, 0),
        ("cat\x00", 0, 1, 0),
    ],
)
def test_accuracy_without_thinking(completion, strict, lenient, authors):
    assert accuracies(completion, CAT, "no_thinking") == (strict, lenient, authors)


@pytest.mark.parametrize(
    ("completion", "strict", "lenient", "authors"),
    [
        (THOUGHT + "<answer> cat </answer>", 1, 1, 1),
        (THOUGHT + "<answer>CAT</answer>", 1, 1, 1),
        (THOUGHT + "<answer>\ncat\n</answer>", 1, 1, 0),  # the released expression reads one line
        ("<answer> cat </answer>", 1, 1, 1),  # accuracy does not ask for the format
        ("cat", 0, 1, 1),
        (THOUGHT + "cat", 0, 1, 0),
        (THOUGHT + "<answer> cat", 0, 1, 0),  # not closed
        (THOUGHT + "<answer> a cat </answer>", 0, 1, 0),
        (THOUGHT + "<answer> dog, cat, horse </answer>", 0, 1, 0),  # listing all choices
        (THOUGHT + "<answer> dog </answer> <answer> cat </answer>", 0, 0, 0),  # one tag a choice
        (THOUGHT + "<answer> cat </answer> <answer> dog </answer>", 0, 1, 1),
        (THOUGHT + "<answer> <answer> cat </answer> </answer>", 0, 1, 0),  # nested
        ("<think> <answer> cat </answer> </think>", 0, 1, 1),  # only thought of
        ("<think> <answer> cat </answer> </think> <answer> dog </answer>", 0, 1, 1),
        ("<think> <answer> dog </answer> </think> <answer> cat </answer>", 1, 0, 0),
        (THOUGHT + "<answer></answer>", 0, 0, 0),
        (THOUGHT + "<answer> </answer> cat", 0, 0, 0),
        (THOUGHT + "<answer> ... </answer>", 0, 0, 0),
        (MODES["thinking"].suffix, 0, 0, 0),  # the tags quoted from the prompt
        (MODES["thinking"].suffix + "<answer>cat</answer>", 0, 0, 0),
        ("<ANSWER> cat </ANSWER>", 0, 1, 0),
        ("", 0, 0, 0),
    ],
)
def test_accuracy_with_thinking(completion, strict, lenient, authors):
    assert accuracies(completion, CAT, "thinking") == (strict, lenient, authors)


@pytest.mark.parametrize(
    ("completion", "strict", "lenient", "authors"),
    [
        ("<answer> cat </answer> <reason> It has fur. </reason>", 1, 1, 1),
        ("<answer> cat </answer>", 1, 1, 1),
        ("<answer> dog </answer> <reason> no, <answer> cat </answer> </reason>", 0, 0, 0),
        ("<answer> cat </answer> <reason> or <answer> dog </answer> </reason>", 1, 1, 1),
        ("<reason> It has fur. </reason> <answer> cat </answer>", 0, 1, 1),  # reasoning first is another mode
        ("<answer> dog </answer> <answer> cat </answer> <reason> </reason>", 0, 0, 0),
        ("<reason> cat </reason>", 0, 1, 0),
    ],
)
def test_accuracy_with_thinking_after_the_answer(completion, strict, lenient, authors):
    assert accuracies(completion, CAT, "think_after_answer") == (strict, lenient, authors)


@pytest.mark.parametrize(
    ("answer", "completion", "strict", "lenient"),
    [
        ("praying_mantis", "praying_mantis", 1, 1),
        ("praying_mantis", "praying mantis", 0, 1),  # the paper's evaluation reads _ as a space
        ("praying_mantis", "a Praying Mantis", 0, 1),
        ("Straße", "STRASSE", 1, 0),  # case-folded, not only lower-cased
        ("a cat ", "a cat", 1, 1),
        ("No. 7 (red)", "no. 7 (red)", 1, 1),
        ("caf\u00e9", "cafe\u0301", 1, 0),  # one letter or two, the same text
    ],
)
def test_odd_labels(answer, completion, strict, lenient):
    assert accuracies(completion, label(answer), "no_thinking")[:2] == (strict, lenient)


@pytest.mark.parametrize(
    ("answer", "strict", "lenient", "authors"),
    [
        ("2012 Ford Focus Sedan", 1, 1, 1),
        ("2012 BMW M3 Coupe", 0, 0, 1),  # math-verify reads the year on both sides
        ("2012", 0, 0, 1),
        ("2011 Ford Focus Sedan", 0, 0, 0),
    ],
)
def test_the_released_reward_takes_any_car_of_the_year(answer, strict, lenient, authors):
    completion = f"{THOUGHT}<answer> {answer} </answer>"
    assert accuracies(completion, label("2012 Ford Focus Sedan"), "thinking") == (strict, lenient, authors)


@pytest.mark.parametrize(
    ("completion", "mode", "expected"),
    [
        ("cat", "no_thinking", Score("cat", 1.0, 1.0)),
        (THOUGHT + "<answer> cat </answer>", "thinking", Score("cat", 1.0, 1.0)),
        (THOUGHT + "<answer> dog </answer>", "thinking", Score("dog", 1.0, 0.0)),
        ("<answer> cat </answer>", "thinking", Score("cat", 0.0, 1.0)),
        ("cat", "thinking", Score(None, 0.0, 0.0)),
        ("<think> a </answer> </think> <answer> cat", "thinking", Score(None, 0.0, 0.0)),
        ("<answer> cat </answer> <reason> fur </reason>", "think_after_answer", Score("cat", 1.0, 1.0)),
    ],
)
def test_a_score_is_answer_format_and_accuracy(completion, mode, expected):
    assert score(completion, CAT, mode) == expected


def test_an_unknown_rule_is_one_line_with_the_known_ones():
    with pytest.raises(UserError, match="unknown scoring rule 'loose': choose one of strict, lenient, authors"):
        score("cat", CAT, "no_thinking", "loose")


LONG = 100_000  # characters


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "unit", ["a", "cat ", "<think>", "<answer>", "</answer>", "<answer>\n", "</think><answer>", "\\boxed{", "9"]
)
def test_long_hostile_completions_are_scored_fast(unit, rule):
    completion = "<think>" + unit * (LONG // len(unit))
    score(completion, CAT, "thinking", rule)  # starts the worker of math-verify
    began = time.perf_counter()
    for _ in range(50):
        score(completion, CAT, "thinking", rule)
    assert time.perf_counter() - began < 2


PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<reason>",
    "</reason>",
    "<answer> cat </answer>",
    "cat",
    "dog",
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.sampled_from(PIECES), st.text(max_size=8)), max_size=8)
TEXTS = TEXTS.map("".join)
modes, rules = st.sampled_from(sorted(MODES)), st.sampled_from(sorted(RULES))


@given(TEXTS, st.text(), modes, rules)
def test_every_text_has_a_score_of_zeros_and_ones(completion, answer, mode, rule):
    found = score(completion, label(answer), mode, rule)
    assert {found.format, found.accuracy} <= {0.0, 1.0}


@given(TEXTS, modes)
def test_strictly_right_is_leniently_right(completion, mode):
    # With several answers they may differ: strict reads the one outside the thinking, lenient the first.
    strict, lenient, _ = accuracies(completion, CAT, mode)
    assert lenient >= strict or completion.count("<answer>") > 1


def chat(text):
    return [{"role": "assistant", "content": text}]


def blocks(text):
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


@pytest.mark.parametrize("shape", [str, chat, blocks])
def test_rewards_are_callables_of_trl(shape):
    texts = [THOUGHT + "<answer> cat </answer>", "<answer> cat </answer>", THOUGHT + "<answer> cat </answer>", "dog"]
    columns = {"answer": ["cat", "cat", "dog", "dog"], "choices": [["cat", "dog"]] * 4}
    others = {"prompts": ["?"] * 4, "completion_ids": [[1]] * 4, "image": [None] * 4, "trainer_state": None}
    rewards = reward_functions("thinking")
    assert {f.__name__: f(completions=[shape(text) for text in texts], **columns, **others) for f in rewards} == {
        "accuracy_reward": [1.0, 1.0, 0.0, 0.0],
        "format_reward": [1.0, 0.0, 1.0, 0.0],
    }


def test_without_tags_there_is_no_format_reward_and_choices_may_be_missing():
    (accuracy,) = reward_functions("no_thinking")
    assert accuracy(completions=["cat", "dog"], answer=["cat", "cat"]) == [1.0, 0.0]


@given(st.lists(TEXTS, max_size=4), modes, st.sampled_from(["strict", "lenient"]))
def test_rewards_are_the_scores(completions, mode, rule):
    scores = [score(completion, CAT, mode, rule) for completion in completions]
    columns = {"completions": completions, "answer": ["cat"] * len(completions)}
    rewards = [function(**columns) for function in reward_functions(mode, rule)]
    assert rewards == [[s.accuracy for s in scores], [s.format for s in scores]][: len(rewards)]


LETTERED = Example("", (), "Which?", "red star", ("blue star", "red star", "green heart"), "spatial")
NUMBERED = Example("", (), "", "12", None, "math")
MANY = Example("", (), "Which?", "thing 7", tuple(f"thing {n}" for n in range(40)))  # more than there are letters
LOWER = Example("", (), "Which is nearer?", "star", ("star", "cross"), steps=("the star is lower", "the cross is not"))


@pytest.mark.parametrize(
    ("example", "mode", "text", "expected"),
    [
        (NUMBERED, "thinking", "<think> 7 plus 5 is 12 </think> <answer> 12 </answer>", True),
        (NUMBERED, "thinking", "<think> 7 plus 5 is 13 </think> <answer> 12 </answer>", False),
        (NUMBERED, "thinking", "<think> 7 plus 5 is 13 </think> <answer> 13 </answer>", True),  # wrong, but consistent
        (NUMBERED, "thinking", "<think> </think> <answer> 12 </answer>", None),
        (NUMBERED, "thinking", "<answer> 12 </answer>", None),
        (NUMBERED, "thinking", "<think> 12 </think> 12", None),
        (NUMBERED, "no_thinking", "12", None),
        (NUMBERED, "think_after_answer", "<answer> 12 </answer> <reason> 7 plus 5 is 12 </reason>", True),
        (LETTERED, "thinking", "<think> blue star far, red star near </think> <answer> red star </answer>", True),
        (LETTERED, "thinking", "<think> red star far, blue star near </think> <answer> red star </answer>", False),
        (LETTERED, "thinking", "<think> it is near </think> <answer> red star </answer>", None),
        (LETTERED, "thinking", "<think> red star near </think> <answer> B </answer>", True),
        (LETTERED, "thinking", "<think> it is (A) </think> <answer> (b) red star </answer>", False),
        (LETTERED, "thinking", "<think> red stars, blue starfish </think> <answer> red star </answer>", None),
        (NUMBERED, "thinking", "<think> 7 plus 5 is 12 </think> <answer> 12.0 </answer>", True),
        (MANY, "thinking", "<think> thing 31, then (h) </think> <answer> thing 7 </answer>", True),
        # Even what is true does not end at the answer.
        (LOWER, "thinking", "<think> the star is lower, the cross is not </think> <answer> star </answer>", None),
    ],
)
def test_whether_thought_and_answer_agree(example, mode, text, expected):
    assert agrees(text, example, mode) is expected


@given(TEXTS, modes)
def test_no_text_breaks_the_comparison_of_thought_and_answer(text, mode):
    assert agrees(text, LETTERED, mode) in (True, False, None)
