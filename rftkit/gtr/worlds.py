"""The environments as gymnasium knows them, one by one and in a batch, and the pictures they show.

`gymnasium.make("rftkit/Points24-v0")` and `gymnasium.make_vec("rftkit/Points24-v0", num_envs=64)` after this is
imported. An action is the number of one of the game's `actions`.
"""

from __future__ import annotations

import random
from functools import lru_cache

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from PIL import Image

from rftkit.common.errors import UserError
from rftkit.gtr.rules import BLANK, GAMES, PARTS, State, deal, game_named, play
from rftkit.tasks.drawn.scenes import CELL, Sketch

SHOWN = 12  # tokens of a formula: four columns, the three lower rows
Mark = tuple[str, int, int]  # what is written, its column and its row of four


def marks(state: State) -> list[Mark]:
    """What stands in a picture and where: cards above, the formula's last tokens below."""
    if state.game.name == "numberline":
        current, target = state.cards
        return [(str(target), 1, 0), (str(current), 1, 2)]
    if state.game.name == "blackjack":
        cards = [(face, place % 4, 1 + place // 4) for place, face in enumerate(state.faces[:SHOWN])]
        return [(str(state.dealer[0]), 0, 0), ("?", 1, 0), *cards]
    cards = [(face, column, 0) for column, face in enumerate(state.faces)]
    tokens = enumerate(state.formula[-SHOWN:])
    return cards + [(token, place % 4, 1 + place // 4) for place, token in tokens if token != BLANK]


def picture(state: State, side: int) -> Image.Image:
    """What the agent sees of a state, `side` x `side` pixels."""
    return _drawn(tuple(marks(state)), state.look, side)


@lru_cache(maxsize=4096)
def _drawn(written: tuple[Mark, ...], look: int, side: int) -> Image.Image:
    sketch = Sketch(random.Random(look))
    for text, column, row in written:
        sketch.write((CELL * (column + 0.5), CELL * (row + 0.5)), text)
    return sketch.image.resize((side, side), Image.Resampling.BILINEAR)


def observation_space(side: int) -> spaces.Box:
    return spaces.Box(0, 255, (side, side, 3), np.uint8)


def told(state: State) -> dict:
    """A state's `info`: what an agent is told in words, and what only a corrector knows."""
    return {"cards": state.cards, "formula": "".join(state.formula), "turn": state.turn, "state": state}


class CardWorld(gymnasium.Env):
    """One environment.

    Args:
        game: a name of `rules.GAMES`.
        part: which multisets of Points24 are dealt: `all`, `train` or `test`.
        side: of the picture, pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(self, game: str, part: str = "all", side: int = 300, render_mode: str | None = None) -> None:
        self.game, self.part, self.side, self.render_mode = game_named(game), _known(part), side, render_mode
        self.observation_space = observation_space(side)
        self.action_space = spaces.Discrete(len(self.game.actions))

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.state = deal(self.game, self.np_random, self.part)
        return self.render(), told(self.state)

    def step(self, action: int):
        outcome = play(self.state, self.game.actions[int(action)], self.np_random)
        self.state = outcome.state
        return self.render(), outcome.reward, outcome.terminated, outcome.truncated, told(self.state)

    def render(self) -> np.ndarray:
        return np.array(picture(self.state, self.side))


class CardTable(VectorEnv):
    """A batch of environments that are stepped in one call; an episode that ends is followed by a new one at once.

    `early_stop` is GTR's: an episode that cannot be won any more, or has any negative reward, ends there with -1.
    """

    metadata = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self, game: str, num_envs: int = 1, part: str = "all", side: int = 300, early_stop: bool = False, **_
    ) -> None:
        self.game, self.num_envs, self.part, self.side = game_named(game), num_envs, _known(part), side
        self.early_stop = early_stop
        self.single_observation_space = observation_space(side)
        self.single_action_space = spaces.Discrete(len(self.game.actions))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.states: list[State] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.states = [deal(self.game, self.np_random, self.part) for _ in range(self.num_envs)]
        return self._pictures(), {"state": self.states}

    def step(self, actions):
        """Observations, rewards, terminated, truncated [num_envs] each, and in `info` the states before new deals."""
        rewards, terminated, truncated = self.play([self.game.actions[int(action)] for action in actions])
        return self._pictures(), rewards, terminated, truncated, {"final_state": self.finals, "state": self.states}

    def play(self, actions: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `step`, by the actions' names and without pictures: rewards, terminated, truncated."""
        outcomes = [play(state, action, self.np_random) for state, action in zip(self.states, actions, strict=True)]
        if self.early_stop:
            outcomes = [stopped_early(outcome) for outcome in outcomes]
        self.finals = [outcome.state for outcome in outcomes]
        self.states = [deal(self.game, self.np_random, self.part) if o.done else o.state for o in outcomes]
        _, rewards, terminated, truncated = zip(*outcomes, strict=True)
        return np.array(rewards), np.array(terminated), np.array(truncated)

    def _pictures(self) -> np.ndarray:
        return np.stack([np.asarray(picture(state, self.side)) for state in self.states])


def stopped_early(outcome):
    """An outcome by GTR's early stop: what has a negative reward or cannot be won any more ends with -1."""
    won = outcome.done and outcome.reward > 0
    if won or (outcome.reward >= 0 and not outcome.state.is_hopeless):
        return outcome
    return outcome._replace(reward=-1.0, terminated=True)


def _known(part: str) -> str:
    if part not in PARTS:
        raise UserError(f"unknown part '{part}' of an environment: choose one of {', '.join(PARTS)}")
    return part


for _game in GAMES.values():
    gymnasium.register(
        f"rftkit/{_game.title}-v0",
        entry_point=CardWorld,
        vector_entry_point=CardTable,
        kwargs={"game": _game.name},
    )
