"""Evaluation apart from training: whole episodes on fixed deals, by the plain rules, without any corrector."""

from __future__ import annotations

import numpy as np
import torch

from rftkit.gtr.measures import measures
from rftkit.gtr.policy import Policy
from rftkit.gtr.rollout import Step, act
from rftkit.gtr.rules import State, deal, game_named, play
from rftkit.gtr.settings import GTRSettings

PARTS = {"points24": ("train", "test")}  # of deals that are played; of the others all
DEALS = 1_000_003  # the seed of the fixed deals


def parts_of(dataset: str) -> tuple[str, ...]:
    """The parts an environment is tested on: multisets of cards trained on, and never trained on."""
    return PARTS.get(dataset, ("all",))


def fixed_deals(dataset: str, part: str, count: int) -> list[State]:
    rng = np.random.default_rng([DEALS, *part.encode()])
    return [deal(game_named(dataset), rng, part) for _ in range(count)]


def play_out(policy: Policy, settings: GTRSettings, part: str) -> tuple[list[dict], dict[str, float]]:
    """A row for each fixed deal, and the measures of all replies; the same random numbers whoever plays.

    A row: deal, cards, solvable, success (rewards above 0 in sum), return, steps, and how many were readable, legal and
    right.
    """
    states = fixed_deals(settings.dataset, part, settings.test_episodes)
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
