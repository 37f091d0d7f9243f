"""Reasoners of all kinds: what fails costs bounded time and is counted, what was paid is not asked again."""

import json
import time

import pandas as pd
import pytest

from rftkit.common.chat_server import ChatServer
from rftkit.common.errors import UserError
from rftkit.prompts import MAX_CHARACTERS
from rftkit.sophia.reasoners import WORKED, Guarded, Problem, Server, messages
from rftkit.sophia.stages import fault_counts

PROBLEMS = [Problem(f"{number}", "What is the result?", None, f"+, 7 {number}") for number in range(3)]
GOOD = "<think> 7 plus 3 is 10 </think> <answer> 10 </answer>"


class Says:
    """A reasoner that returns, raises or does the next of some things, the last one for ever."""

    def __init__(self, *acts):
        self.acts, self.seeds = list(acts), []

    def reason(self, problems, n, seed):
        self.seeds.append(seed)
        act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
        if isinstance(act, Exception):
            raise act
        return act(problems, n) if callable(act) else [[act] * n for _ in problems]


def slow(problems, n):
    time.sleep(5)


@pytest.mark.parametrize(
    ("act", "kept", "fault"),
    [
        (GOOD, GOOD, ""),
        ("I cannot say.", "I cannot say.", "unreadable"),
        ("<answer>", "<answer>", "unreadable"),
        ("9" * (MAX_CHARACTERS + 1), None, "flooded"),
        (None, None, "failed"),
        (b"10", None, "failed"),
        (RuntimeError("broken"), None, "failed"),
        (slow, None, "failed"),
        (lambda problems, n: [], None, "failed"),
        (lambda problems, n: [[GOOD]] * 3, None, "failed"),
        (lambda problems, n: 4, None, "failed"),
    ],
)
def test_what_a_reasoner_can_do_wrong_is_counted(act, kept, fault):
    guarded, began = Guarded(Says(act), seconds=0.3), time.perf_counter()
    given = guarded.reason(PROBLEMS, 2, 0)
    assert given == [[(kept, fault)] * 2] * 3
    counted = fault_counts(pd.DataFrame([one._asdict() for own in given for one in own]))
    assert counted == {"asked": 6, "failed": 0, "flooded": 0, "unreadable": 0} | ({fault: 6} if fault else {})
    assert time.perf_counter() - began < 2


def test_a_reasoner_that_always_fails_is_given_up():
    guarded = Guarded(Says(ValueError("no"), GOOD, ValueError("no")))
    for _ in range(4):
        guarded.reason(PROBLEMS, 1, 0)
    with pytest.raises(UserError, match="failed 3 times in a row: ValueError: no"):
        guarded.reason(PROBLEMS, 1, 0)


def test_a_users_mistake_is_told_at_once():
    with pytest.raises(UserError, match="the key"):
        Guarded(Says(UserError("the key"))).reason(PROBLEMS, 1, 0)


class Client(ChatServer):
    """A server that answers with how often it was asked; every third question fails."""

    def _post(self, content):
        self.sent = [*getattr(self, "sent", []), content]
        if len(self.sent) % 3 == 0:
            return 400, b""
        reply = {"choices": [{"message": {"content": f"<answer> {len(self.sent)} </answer>"}}]}
        return 200, json.dumps(reply).encode()


def test_each_reasoning_is_a_request_and_none_is_paid_twice(tmp_path):
    def server():
        return Client("http://nowhere.invalid/v1", "big", record=tmp_path / "replies.jsonl", at_once=1)

    first = server()
    said = Server(first).reason([*PROBLEMS, PROBLEMS[0]], 2, 5)
    assert len(set(first.sent)) == len(first.sent) == 6 and said[0] == said[3]
    assert [text is None for own in said[:3] for text in own].count(True) == 2
    again = server()
    more = Server(again).reason(PROBLEMS, 2, 5)
    assert len(again.sent) == 2 and again.usage.replayed == 4  # only what failed is asked anew
    assert all(old in (None, new) for a, b in zip(said, more, strict=False) for old, new in zip(a, b, strict=True))


def test_a_conversation_has_no_picture_and_one_worked_example():
    asked = messages(Problem("0", "What colour?", ("red", "blue"), "red ?, blue red", "rows"))
    assert [m["role"] for m in asked] == ["system", "user", "assistant", "user"] and asked[2]["content"] == WORKED[1]
    assert asked[3]["content"] == (
        "Question: What colour?\nChoices: red, blue\nDescription, read row by row: red ?, blue red"
    )
    assert all(isinstance(m["content"], str) for m in asked)
