"""What an agent says is read by a real JSON parser; what is awkward or hostile is an illegal action, and fast."""

import json
import time

import numpy as np
import pytest

from rftkit.gtr.replies import (
    Reply,
    action_of,
    asked,
    conversation,
    named_action,
    read,
    thought_tokens,
    written,
)
from rftkit.gtr.rules import GAMES, State
from rftkit.gtr.thoughts import correct, judge, no_way

LINE, EASY, CARDS, JACK = GAMES.values()
STATES = {
    "line": State(LINE, (1, 3)),
    "easy": State(EASY, (2, 10), ("2", "Q"), ("2", "+")),
    "cards": State(CARDS, (3, 3, 8, 8), ("3", "3", "8", "8"), ("8", "/")),
    "hopeless": State(CARDS, (1, 1, 1, 1), ("A",) * 4),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_prompt_tells_rules_actions_and_the_formula():
    text = asked(STATES["cards"])
    assert "equals 24" in text and '"cards", "formula", "thoughts", "action"' in text and text.endswith(": 8/")
    assert "formula" not in asked(STATES["line"]) and asked(STATES["line"]).endswith("one of - +.")
    assert [block["type"] for block in conversation(STATES["line"])[0]["content"]] == ["image", "text"]


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_what_is_written_is_read_back_and_true(state, rng):
    reply = correct(state, rng)
    text = written(state.game, reply)
    assert read(state.game, text) == reply and named_action(state.game, text) == reply.action
    assert judge(state, reply) == (True, True)


def test_a_reply_is_plain_json():
    text = written(CARDS, Reply(("10", "K"), "(", 'say "so"', "("))
    assert json.loads(text) == {"cards": [10, "K"], "formula": "(", "thoughts": 'say "so"', "action": "("}


def cards_reply(**fields):
    return json.dumps({"cards": [3, 3, 8, 8], "formula": "", "thoughts": "", "action": "8"} | fields)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (cards_reply(), "8"), (cards_reply(action=8), "8"), (cards_reply(action="10"), "10"),
        (cards_reply(action=" = "), "="), (cards_reply(action="++"), "+"), (cards_reply(action="1 or 2"), None),
        (cards_reply(action="11"), None), (cards_reply(action=""), None), (cards_reply(action="10+"), None),
        (cards_reply(action=None), None), (cards_reply(thoughts='"action": "7"'), "8"),
        (cards_reply(thoughts="3", action=["8"]), "8"), ("[8]", None), ("8", None),
        ('{"thoughts": "cut off", "action": "8', "8"), ('{"thoughts": "8"', None),
        ('said "action": "3", then "action": "8"}', "8"), ('{"action": 1, "action": 2}', "2"), ("", None),
    ],
)  # fmt: skip
def test_one_legal_action_must_be_named(text, action):
    assert named_action(CARDS, text) == action


def test_words_are_actions_too():
    assert named_action(JACK, '{"thoughts": "hit?", "action": "Stand"}') == "stand"
    assert named_action(JACK, '{"action": "hit or stand"}') is None
    assert named_action(JACK, '{"action": "understand"}') is None


def test_without_an_action_any_is_taken(rng):
    taken = [action_of(LINE, "nothing", rng) for _ in range(40)]
    assert {action for action, _ in taken} == {"-", "+"} and not any(legal for _, legal in taken)
    assert action_of(LINE, '{"action": "-"}', rng) == ("-", True)


@pytest.mark.parametrize(
    "text",
    [
        cards_reply()[:-1], cards_reply(cards="3, 3"), cards_reply(cards=[[3], 3]), cards_reply(formula={"a": 1}),
        cards_reply(thoughts=[]), '{"cards": [1], "thoughts": "", "action": ""}', "[]", "null", cards_reply() + "}",
    ],
)  # fmt: skip
def test_broken_replies_are_none(text):
    assert read(CARDS, text) is None


HOSTILE = {
    "a long formula": cards_reply(formula="8/(3-" * 2000, action="nothing"),
    "deep brackets": "[" * 100_000,
    "deep objects": '{"action":' * 50_000,
    "huge number": '{"cards": [], "formula": "", "thoughts": "", "action": ' + "9" * 100_000 + "}",
    "infinity": cards_reply(cards=[float("inf"), float("nan")], action=float("inf")),
    "division by zero": cards_reply(thoughts="8/(3-3) gives 24", action="8/0"),
    "code": cards_reply(action="__import__('os').system('true')", thoughts="exec('1')"),
    "broken text": b'{"action": "\xff\xfe\x80"'.decode(errors="replace"),
    "half a surrogate": '{"cards": [], "formula": "\\ud800", "thoughts": "\\udfff", "action": "\\ud83d"}',
    "no text": "\0" * 5000,
    "many keys": '"action":' * 20_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_replies_are_illegal_actions_fast(text, rng):
    began = time.perf_counter()
    reply = read(CARDS, text)
    assert named_action(CARDS, text) is None and action_of(CARDS, text, rng)[1] is False
    if reply is not None:
        assert judge(STATES["cards"], reply) == (False, False)
        written(CARDS, reply).encode()
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    ("state", "thought", "right"),
    [
        ("line", "1 is below 3, so up", True), ("line", "from 1 go up to 3", True),
        ("line", "3 is below 1, so up", False),
        ("line", "1 is below 3, so down", False), ("line", "1 is below 3, so up or down", False),
        ("line", "I make a move", False), ("line", "1 3 upwards", False),
        ("easy", "2+10 gives 12, next 10", True), ("easy", "2+10 gives 12, next =", False),
        ("easy", "10+2 gives 12, next 10", False), ("easy", "I think of 2+10.", True), ("easy", "2+10 is 12", True),
        ("cards", "8/(3-8/3) is 24, so now (", True), ("cards", "8/(3-8/3) or 8/3+8/3", False),
        ("cards", "no way to 24, so now =", False), ("cards", "24", False), ("cards", "", False),
        ("hopeless", "no way to 24, so now =", True), ("hopeless", "1+1+1+1 is 24, so now 1", False),
    ],
)  # fmt: skip
def test_a_thought_is_right_or_not(state, thought, right):
    state = STATES[state]
    fields = tuple(map(str, state.cards)), "".join(state.formula)
    assert judge(state, Reply(*fields, thought, "")) == (True, right)


def test_facts_are_the_cards_in_any_order_and_the_formula():
    state, thought = STATES["cards"], no_way(STATES["cards"])
    assert judge(state, Reply(("8", "3", "8", "3"), "8/", thought, "")).facts
    assert not judge(state, Reply(("8", "3", "8", "3"), "8", thought, "")).facts
    assert not judge(state, Reply(("8", "8", "8", "3"), "8/", thought, "")).facts
    assert not judge(STATES["line"], Reply(("3", "1"), "", "", "")).facts


@pytest.mark.parametrize(
    "text",
    [
        cards_reply(), cards_reply(thoughts='"action": "7"'), cards_reply(thoughts="déjà vu 🂡 — no"),
        '{"thoughts":"x" ,\n"action"  :"8"}', '{"action": 1, "action": 2}', '{"action": 8}',
        '{"thoughts": {"action": "3"}, "action": "8"}', "🂡" * 5 + '"action": "3',
    ],
)  # fmt: skip
def test_thought_and_action_are_told_apart_token_by_token(text, nano):
    tokenizer = nano[1].tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    count = thought_tokens(tokenizer, ids)
    before, behind = text[: text.rindex('"action"')], tokenizer.decode(ids[count:], skip_special_tokens=True)
    assert before.startswith(tokenizer.decode(ids[:count])) and len(before) + len(behind) <= len(text) + 3
    assert '"action"' in behind.replace(" ", "") and len(before) - len(tokenizer.decode(ids[:count])) <= 3


def test_a_reply_without_action_is_all_thought(nano):
    tokenizer = nano[1].tokenizer
    ids = tokenizer(cards_reply(thoughts='\\"action\\": 7')[:40], add_special_tokens=False)["input_ids"]
    assert thought_tokens(tokenizer, ids) == len(ids) and thought_tokens(tokenizer, []) == 0
