"""A door to stock TRL, experimental: the same deals under `GRPOTrainer(environment_factory=...)`.

    rows = trl_rows("ezpoints", 64)
    GRPOTrainer(model, args=args, train_dataset=rows, environment_factory=lambda: TRLWorld("ezpoints"))

TRL's environments are tools that are called within one conversation, with one reward an episode: no picture a step, no
value head, no thoughts to clone. The model's chat template must allow tools: Qwen3-VL's does, Qwen2-VL's does not.
"""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from rftkit.gtr.replies import AIMS
from rftkit.gtr.rules import State, deal, game_named, play


def trl_rows(dataset: str, count: int, first_seed: int = 0) -> Dataset:
    """TRL's columns: the prompt, and the seed of the deal that `TRLWorld.reset` is told."""
    game = game_named(dataset)
    text = f"{AIMS[dataset]} Call act with one of {' '.join(game.actions)}, again and again, until the game is over. "
    seeds = list(range(first_seed, first_seed + count))
    return Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for _ in seeds], "seed": seeds})


class TRLWorld:
    """One environment as TRL plays it: `reset` tells the table in words, `act` is the tool, the rewards are summed."""

    def __init__(self, dataset: str, part: str = "train") -> None:
        self._game, self._part = game_named(dataset), part
        self._total, self._done = 0.0, True

    def reset(self, seed: int = 0, **row) -> str:
        self._rng = np.random.default_rng(seed)
        self._state, self._total, self._done = deal(self._game, self._rng, self._part), 0.0, False
        return _told(self._state)

    def act(self, action: str) -> str:
        """
        Take one action of the game.

        Args:
            action: One of the legal actions.

        Returns:
            What is on the table now.
        """
        if self._done:
            return "The game is over."
        if action not in self._game.actions:
            return f"'{action[:20]}' is no action: choose one of {' '.join(self._game.actions)}."
        outcome = play(self._state, action, self._rng)
        self._state, self._done = outcome.state, outcome.done
        self._total += outcome.reward
        return f"{_told(self._state)}{' The game is over.' if self._done else ''}"

    def get_reward(self) -> float:
        return self._total


def _told(state: State) -> str:
    if state.game.name == "numberline":
        return "Current number {}, target number {}.".format(*state.cards)
    formula = f" The formula so far: '{''.join(state.formula)}'." if state.game.target else ""
    dealer = f" The dealer shows {state.dealer[0]}." if state.dealer else ""
    return f"Your cards: {', '.join(map(str, state.cards))}.{dealer}{formula}"
