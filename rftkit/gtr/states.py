"""States as play may reach them, right and wrong: what thoughts are measured on, and what a start model is shown."""

from __future__ import annotations

from dataclasses import replace

from numpy.random import Generator

from rftkit.gtr.formulas import Formula
from rftkit.gtr.rules import BLANK, Game, State, deal, pick


def some_state(game: Game, rng: Generator, part: str = "all") -> State:
    """A deal, and the beginning of a plan: half of the time a right one, if there is one."""
    state = deal(game, rng, part)
    if not game.target:
        return state
    plans = state.plans()
    plan = pick(rng, plans) if plans and rng.random() < 0.5 else some_plan(state, rng)
    formula = plan[: rng.integers(len(plan) + 1)]
    return replace(state, formula=(*formula, pick(rng, (BLANK, *game.signs))) if rng.random() < 0.1 else formula)


def some_plan(state: State, rng: Generator) -> Formula:
    """A formula over the cards, of any value, that goes on from the formula so far as well as it can."""
    left = state.left
    rng.shuffle(left)
    plan = list(state.formula)
    if not plan and state.game.name == "points24" and rng.random() < 0.5:
        plan.append("(")
    while left:
        if plan and (plan[-1].isdigit() or plan[-1] == ")"):
            is_open = plan.count("(") > plan.count(")")
            if is_open and plan[-1].isdigit() and plan[-2:-1] != ["("] and rng.random() < 0.8:
                plan.append(")")
            plan.append(pick(rng, state.game.signs))
        plan.append(left.pop())
    return (*plan, *[")"] * max(0, plan.count("(") - plan.count(")")))[: state.game.longest]
