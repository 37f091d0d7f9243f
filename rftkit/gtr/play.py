"""Episodes apart from training, by the plain rules and without any corrector: on fixed deals, one to look at, and
single replies written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from rftkit.gtr.measures import measures
from rftkit.gtr.policy import Policy
from rftkit.gtr.replies import named_action, read, written
from rftkit.gtr.rollout import Step, act
from rftkit.gtr.rules import State, deal, game_named, play
from rftkit.gtr.settings import GTRSettings
from rftkit.gtr.thoughts import correct, judge

PARTS = {"points24": ("train", "test")}  # of deals that are played; of the others all
DEALS = 1_000_003  # the seed of the fixed deals; the next is that of deals which settings are chosen by


def parts_of(dataset: str) -> tuple[str, ...]:
    """The parts an environment is tested on: multisets of cards trained on, and never trained on."""
    return PARTS.get(dataset, ("all",))


def fixed_deals(dataset: str, part: str, count: int, held_out: bool = False) -> list[State]:
    rng = np.random.default_rng([DEALS + held_out, *part.encode()])
    return [deal(game_named(dataset), rng, part) for _ in range(count)]


def play_out(policy: Policy, settings: GTRSettings, part: str) -> tuple[list[dict], dict[str, float]]:
    """A row for each fixed deal, and the measures of all replies; the same random numbers whoever plays.

    A row: deal, cards, solvable, success (rewards above 0 in sum), return, steps, and how many were readable, legal and
    right.
    """
    states = fixed_deals(settings.dataset, part, settings.test_episodes, settings.held_out)
    rows = [
        {"split": part, "id": number, "cards": " ".join(map(str, state.cards)), "solvable": not state.is_hopeless,
         "return": 0.0, "steps": 0, "json": 0, "legal": 0, "facts": 0, "thought": 0}
        for number, state in enumerate(states)
    ]  # fmt: skip
    running, every = list(range(len(states))), []
    rng = np.random.default_rng([DEALS, 1])
    with torch.random.fork_rng():
        torch.manual_seed(DEALS)
        while running:
            steps = act(policy, [states[number] for number in running], settings, rng)
            every += steps
            running = [n for n, step in zip(running, steps, strict=True) if not _took(states, rows[n], n, step, rng)]
    for row in rows:
        row["success"] = row["return"] > 0
    return rows, measures(policy, every)


def _took(states: list[State], row: dict, number: int, step: Step, rng) -> bool:
    """Take a step of a deal; whether it has ended."""
    outcome = play(step.state, step.action, rng)
    states[number] = outcome.state
    row["return"] += outcome.reward
    row["steps"] += 1
    row["json"] += step.parsed is not None
    row["legal"] += step.legal
    row["facts"] += step.verdict.facts
    row["thought"] += step.verdict.thought
    return outcome.done


def episode(policy: Policy, settings: GTRSettings, state: State) -> list[Step]:
    """The steps of one episode from a state on, each with its reward; the same each time."""
    steps, done, rng = [], False, np.random.default_rng(DEALS)
    with torch.random.fork_rng():
        torch.manual_seed(DEALS)
        while not done:
            (step,) = act(policy, [state], settings, rng)
            outcome = play(state, step.action, rng)
            step.reward, step.done, state, done = outcome.reward, outcome.done, outcome.state, outcome.done
            steps.append(step)
    return steps


def by_hand(state: State, texts: Sequence[str]) -> pd.DataFrame:
    """Replies to a state as the environment and the exact corrector see them: the action they name (none: a random one
    is played), its reward, what is true of them, and what is cloned in their place."""
    rows, rng = [], np.random.default_rng(0)
    for text in texts:
        reply, action = read(state.game, text), named_action(state.game, text)
        verdict = judge(state, reply) if reply else None
        row = {"reply": text, "valid JSON": reply is not None, "legal action": action}
        row["reward"] = play(state, action, rng).reward if action else None
        row |= {"true facts": verdict and verdict.facts, "right thought": verdict and verdict.thought}
        asked = reply and not all(verdict)
        rows.append(row | {"corrected": written(state.game, correct(state, rng)) if asked else None})
    return pd.DataFrame(rows)
