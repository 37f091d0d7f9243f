"""What is true of a state: the exact corrector's sentences, and whether what an agent says is so."""

from __future__ import annotations

import re
from typing import NamedTuple

from numpy.random import Generator

from rftkit.gtr.formulas import Formula, tokens_of, value
from rftkit.gtr.replies import Reply
from rftkit.gtr.rules import State, pick

WORDED = re.compile(r"[\d(][-+*/()\d]*")  # a formula, or a number, within a sentence
NEXT = re.compile(r"(?:next|so now) (\S+)$")
GIVES = (" gives {}, next {}", " is {}, so now {}")
WAYS = ("up", "down")


def plan_thought(state: State, plan: Formula, rng: Generator) -> tuple[str, str]:
    """A thought that states a plan, and the action that comes next in it."""
    done = len(state.formula)
    following = plan[done] if done < len(plan) else "="
    return "".join(plan) + pick(rng, GIVES).format(state.game.target, following), following


def line_thought(current: int, target: int, up: bool, rng: Generator) -> tuple[str, str]:
    """A thought about two numbers that leads up or down, whether or not that is right, and its action."""
    way = WAYS[0] if up else WAYS[1]
    place = "below" if current < target else "above"
    text = pick(rng, (f"{current} is {place} {target}, so {way}", f"from {current} go {way} to {target}"))
    return text, "+" if up else "-"


def no_way(state: State) -> str:
    return f"no way to {state.game.target}, so now ="


def correct(state: State, rng: Generator) -> Reply:
    """The fields and the thought that are true of a state, with the action that follows: of plans the shortest."""
    if state.game.name == "numberline":
        current, target = state.cards
        thought, action = line_thought(current, target, current < target, rng)
    elif plans := state.plans():
        thought, action = plan_thought(state, plans[0], rng)
    else:
        thought, action = no_way(state), "="
    return Reply(tuple(map(str, state.cards)), "".join(state.formula), thought, action)


class Verdict(NamedTuple):
    """What is true of a reply: the fields that say what is on the table, and the thought."""

    facts: bool
    thought: bool


def judge(state: State, reply: Reply) -> Verdict:
    """Whether a reply's fields are as the table is, and whether its thought is right about it.

    A thought is right if each whole plan it states is a solution that goes on from the formula, and it states one, or
    says that there is none where there is none; the next token it names must be the plan's. NumberLine: the two numbers
    in their order and the right way alone.
    """
    cards = list(map(str, state.cards))
    if state.game.name == "numberline":
        return Verdict(list(reply.seen) == cards, _right_way(state, reply.thoughts))
    facts = sorted(reply.seen) == sorted(cards) and reply.formula == "".join(state.formula)
    return Verdict(facts, _right_plan(state, reply.thoughts))


def _right_way(state: State, thought: str) -> bool:
    current, target = state.cards
    said = [way for way in WAYS if re.search(rf"\b{way}\b", thought)]
    return re.findall(r"\d+", thought) == [str(current), str(target)] and said == [WAYS[current > target]]


def _right_plan(state: State, thought: str) -> bool:
    stated = [tokens_of(text) for text in WORDED.findall(thought)]
    plans = [plan for plan in stated if plan and sum(map(str.isdigit, plan)) > 1]
    if not plans:
        return thought == no_way(state) and state.is_hopeless
    following = NEXT.search(thought)
    return all(_goes_on(state, plan, following and following[1]) for plan in plans)


def _goes_on(state: State, plan: Formula, following: str | None) -> bool:
    used = sorted(int(token) for token in plan if token.isdigit())
    done = len(state.formula)
    return (
        used == sorted(state.cards)
        and value(plan) == state.game.target
        and plan[:done] == state.formula
        and following in (None, (*plan, "=")[done])
    )
