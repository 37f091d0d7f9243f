"""Prompts word for word, and which completions are well formed and what they answer, as tables."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rftkit.common.errors import UserError
from rftkit.prompts import (
    MAX_CHARACTERS,
    MODES,
    completion_text,
    conversation,
    get_mode,
    is_well_formed,
    parse_answer,
    question_text,
    target_completion,
)
from rftkit.tasks.example import Example

RULES = ("strict", "lenient", "authors")
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<reason>", "</reason>")
# Text as a model under pressure writes it: tags in any order, labels, white space, anything.
TEXTS = st.lists(st.one_of(st.sampled_from([*TAGS, "cat", " ", "\n"]), st.text(max_size=8))).map("".join)
PLAIN = st.lists(st.sampled_from(["cat", " ", "\n", *TAGS]), max_size=3).map("".join)
# Nearly well formed: each part is there or not, and something stands between.
NEARLY = {
    mode: st.tuples(
        *(st.tuples(st.sampled_from([part, part, ""]), PLAIN)
          for tag in MODES[mode].tags for part in (f"<{tag}>", f"</{tag}>"))
    ).map(lambda parts: "".join("".join(part) for part in parts))
    for mode in ("thinking", "think_after_answer")
}  # fmt: skip
MODE_AND_RULE = (st.sampled_from(sorted(MODES)), st.sampled_from(RULES))
CAT = Example("1", (Image.new("RGB", (4, 4)),), "What type of object is in the photo?", "cat", ("dog", "cat"))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        (
            "thinking",
            "Please output the thinking process in <think> </think> and final answer in <answer> </answer> tags.",
        ),
        ("no_thinking", "Please directly output the answer."),
        (
            "think_after_answer",
            "Please first output the answer in <answer> </answer> tags and then output a brief reasoning process in "
            "<reason> </reason> tags.",
        ),
    ],
)
def test_suffixes_are_the_papers(mode, suffix):
    assert get_mode(mode).suffix == suffix


def test_an_unknown_mode_is_one_line_with_the_known_ones():
    with pytest.raises(UserError, match="unknown mode 'think': choose one of thinking, no_thinking, think_after"):
        get_mode("think")


def test_the_question_lists_the_choices_and_ends_with_the_suffix():
    assert question_text(CAT, "no_thinking") == (
        "What type of object is in the photo?\n Please choose one from list [ dog, cat].\n"
        " Please directly output the answer."
    )


def test_choices_of_other_tasks_have_letters():
    example = Example("1", (), "Which is nearer?", "red star", ("red star", "blue heart"), task="spatial")
    assert question_text(example, "no_thinking") == (
        "Which is nearer?\n (A) red star (B) blue heart\n Please directly output the answer."
    )


def test_without_choices_the_suffix_follows_the_question():
    assert question_text(Example("1", (), "How many?", "3"), "no_thinking") == (
        "How many?\n Please directly output the answer."
    )


def test_a_conversation_is_one_user_turn_with_images_before_text():
    two = Example("1", (Image.new("RGB", (4, 4)),) * 2, "Same?", "yes")
    (turn,) = conversation(two, "thinking")
    assert turn["role"] == "user"
    assert turn["content"] == [
        {"type": "image"},
        {"type": "image"},
        {"type": "text", "text": question_text(two, "thinking")},
    ]


@pytest.mark.parametrize("mode", MODES)
def test_neither_answer_nor_source_reaches_the_model(mode):
    secret = Example("id-7", (), "What?", "tiger", ("lion", "puma"), dataset="zoo", split="test", group="drawing-9")
    text = str(conversation(secret, mode))
    assert not any(word in text for word in ("id-7", "tiger", "zoo", "drawing-9"))


@pytest.mark.parametrize(
    ("mode", "target"),
    [
        ("no_thinking", "cat"),
        ("thinking", "<answer> cat </answer>"),
        ("think_after_answer", "<answer> cat </answer>"),
    ],
)
def test_what_sft_trains_towards(mode, target):
    assert target_completion("cat", mode) == target


def message(content):
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("cat", "cat"),
        ("", ""),
        ([], ""),
        ([message("cat")], "cat"),
        ([message("ca"), message("t")], "cat"),
        ([message(None)], ""),
        ([{"role": "assistant"}], ""),
        ([message([{"type": "text", "text": "ca"}, {"type": "text", "text": "t"}])], "cat"),
        ([message([{"type": "image"}, {"type": "text", "text": "cat"}])], "cat"),
        ([message([{"type": "text", "text": None}])], ""),
        ("a" * 100_000, "a" * MAX_CHARACTERS),
        ([message("a" * 100_000)], "a" * MAX_CHARACTERS),
    ],
)
def test_the_text_of_a_completion_in_both_shapes_of_trl(completion, text):
    assert completion_text(completion) == text


@pytest.mark.parametrize(
    ("mode", "text", "strict", "authors"),
    [
        ("no_thinking", "cat", True, True),  # no tags, no format
        ("no_thinking", "<think>", True, True),
        ("thinking", "<think>a</think><answer>b</answer>", True, True),
        ("thinking", "<think>\na\n</think>\n\n<answer>\nb\n</answer>", True, True),
        ("thinking", "<think></think><answer></answer>", True, True),
        ("thinking", " <think>a</think> <answer>b</answer>\n", True, False),
        ("thinking", "<think>a</think><answer>b</answer><answer>c</answer>", False, True),
        ("thinking", "<think><think>a</think></think><answer>b</answer>", False, True),
        ("thinking", "<think><think>a</think><answer>b</answer>", False, True),
        ("thinking", "<think>a</think><think>a</think><answer>b</answer>", False, True),
        ("thinking", "<think>say <answer> </answer></think><answer>b</answer>", False, True),
        ("thinking", "<think>a</answer></think><answer>b", False, False),  # closed before it was opened
        ("thinking", "<think><answer>b</answer></think>", False, False),
        ("thinking", "<answer>b</answer><think>a</think>", False, False),
        ("thinking", "<think>a</think> so <answer>b</answer>", False, False),
        ("thinking", "<think>a</think><answer>b</answer> done", False, False),
        ("thinking", "<think>a</think><answer>b", False, False),
        ("thinking", "<THINK>a</THINK><ANSWER>b</ANSWER>", False, False),
        ("thinking", "<answer>b</answer>", False, False),
        ("thinking", "", False, False),
        ("think_after_answer", "<answer>b</answer><reason>a</reason>", True, True),
        ("think_after_answer", "<answer>b</answer>\n<reason>a</reason>", True, True),
        ("think_after_answer", "<answer>b</answer>", False, False),
        ("think_after_answer", "<reason>a</reason><answer>b</answer>", False, False),
        ("think_after_answer", "<answer>b<reason>a</answer></reason>", False, False),
        ("think_after_answer", "<answer>b</reason></answer><reason>a", False, False),
        ("think_after_answer", "<think>a</think><answer>b</answer>", False, False),
        ("adaptive", "<think>a</think> <answer>b</answer>", True, True),
        ("adaptive", "<answer>b</answer>", True, True),
        ("adaptive", "<think>a <answer>b</answer>", False, False),
        ("adaptive", "a</think> <answer>b</answer>", False, False),
        ("adaptive", "<answer>b</answer><think>a</think>", False, False),
        ("adaptive", "<answer>b</answer><answer>b</answer>", False, False),
        ("adaptive", "<think>a</think>", False, False),
        ("adaptive", "b", False, False),
    ],
)
def test_well_formed(mode, text, strict, authors):
    assert is_well_formed(text, mode, "strict") == is_well_formed(text, mode, "lenient") == strict
    assert is_well_formed(text, mode, "authors") == authors


@pytest.mark.parametrize("mode", NEARLY)
@given(data=st.data())
def test_authors_format_is_the_released_expression(mode, data):
    text = data.draw(NEARLY[mode] | TEXTS)
    first, second = get_mode(mode).tags
    released = rf"<{first}>.*?</{first}>\s*<{second}>.*?</{second}>"
    assert is_well_formed(text, mode, "authors") == bool(re.fullmatch(released, text, re.DOTALL))


@pytest.mark.parametrize(
    ("mode", "text", "strict", "lenient", "authors"),
    [
        ("no_thinking", " cat\n", "cat", "cat", " cat\n"),
        ("no_thinking", "It is a cat.", "It is a cat.", "It is a cat.", "It is a cat."),
        ("no_thinking", "<answer> cat </answer>", "<answer> cat </answer>", "cat", "<answer> cat </answer>"),
        ("no_thinking", "", "", "", ""),
        ("thinking", "<think>fur</think><answer> cat </answer>", "cat", "cat", "cat"),
        ("thinking", "<answer>cat</answer>", "cat", "cat", "cat"),
        ("thinking", "<answer></answer>", "", "", ""),
        ("thinking", "<answer>\ncat\n</answer>", "cat", "cat", "<answer>\ncat\n</answer>"),
        ("thinking", "<answer>\n<answer>cat</answer>", None, "<answer>cat", "cat"),
        ("thinking", "cat", None, "cat", "cat"),
        ("thinking", "<answer>cat", None, "<answer>cat", "<answer>cat"),
        ("thinking", "cat</answer>", None, "cat</answer>", "cat</answer>"),
        ("thinking", "</answer>cat<answer>", None, "</answer>cat<answer>", "</answer>cat<answer>"),
        ("thinking", "<answer>dog</answer><answer>cat</answer>", None, "dog", "dog"),
        ("thinking", "<answer><answer>cat</answer></answer>", None, "<answer>cat", "<answer>cat"),
        ("thinking", "<think><answer>dog</answer></think><answer>cat</answer>", "cat", "dog", "dog"),
        ("thinking", "<think><answer>cat</answer></think>", None, "cat", "cat"),
        ("thinking", "<answer>cat</answer><think>fur</think>", None, "cat", "cat"),
        ("thinking", "<think>fur <answer>cat</answer>", "cat", "cat", "cat"),
        ("think_after_answer", "<answer>cat</answer><reason>fur</reason>", "cat", "cat", "cat"),
        ("think_after_answer", "<answer>cat</answer><reason>not <answer>dog</answer></reason>", "cat", "cat", "cat"),
        ("think_after_answer", "<reason>fur</reason><answer>cat</answer>", None, "cat", "cat"),
        ("think_after_answer", "<answer>cat</answer>", "cat", "cat", "cat"),
        ("adaptive", "<answer>cat</answer>", "cat", "cat", "cat"),
        ("adaptive", "<think>fur</think><answer>cat</answer>", "cat", "cat", "cat"),
        ("adaptive", "cat", None, "cat", "cat"),
    ],
)
def test_parsed_answers(mode, text, strict, lenient, authors):
    assert tuple(parse_answer(text, mode, rule) for rule in RULES) == (strict, lenient, authors)


@given(TEXTS, *MODE_AND_RULE)
def test_a_parsed_answer_is_a_part_of_the_text(text, mode, rule):
    parsed = parse_answer(text, mode, rule)
    assert parsed is None or parsed in text


@given(TEXTS, st.sampled_from(sorted(MODES)), st.sampled_from(["strict", "lenient"]))
def test_a_parsed_answer_is_stripped(text, mode, rule):
    parsed = parse_answer(text, mode, rule)
    assert parsed is None or parsed == parsed.strip()


@pytest.mark.parametrize("mode", NEARLY)
@given(data=st.data())
def test_what_is_well_formed_has_an_answer(mode, data):
    text = data.draw(NEARLY[mode])
    assert not is_well_formed(text, mode) or parse_answer(text, mode) is not None


@given(TEXTS, *MODE_AND_RULE)
def test_no_text_breaks_the_format_rule(text, mode, rule):
    assert is_well_formed(text, mode, rule) in (True, False)


@given(TEXTS, TEXTS)
def test_both_shapes_of_a_completion_are_read_alike(first, second):
    assert completion_text([message(first), message([{"type": "text", "text": second}])]) == first + second


# Any one-line text without angle brackets may be a label.
LABELS = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]))
LABELS = LABELS.map(lambda text: " ".join(text.split())).filter(bool)


@given(LABELS, *MODE_AND_RULE)
def test_what_sft_trains_towards_parses_to_the_label(label, mode, rule):
    assert parse_answer(target_completion(label, mode), mode, rule) == label


@given(LABELS, st.sampled_from(RULES))
def test_a_well_formed_completion_gives_its_label_back(label, rule):
    for mode, text in (
        ("thinking", f"<think> it is {label} </think> <answer> {label} </answer>"),
        ("think_after_answer", f"<answer> {label} </answer> <reason> it is {label} </reason>"),
    ):
        assert is_well_formed(text, mode, rule) and parse_answer(text, mode, rule) == label
