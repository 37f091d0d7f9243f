"""The rules of the four environments as plain functions of a state: deal, play, and what can still be won.

They are those of RL4VLM's gym_cards (arXiv 2405.10292), which GTR trains on, with two departures: a formula is read
exactly, where the released code evaluates joined text in floats (so that digits join, `**` works and 8/(3-8/3) fails);
and targets of NumberLine are 0 to 4, which gives the released environment's 28.4 % of random play.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import NamedTuple

from numpy.random import Generator

from rftkit.common.errors import UserError
from rftkit.gtr.formulas import Formula, solve, value

BLANK = "_"  # what an illegal number leaves in a formula
FACES = {1: "A", 11: "J", 12: "Q", 13: "K"}
LINE_END = 5
NUMBERS = tuple(str(number) for number in range(1, 11))
PARTS = ("all", "train", "test")  # of deals: a multiset of cards belongs to `train` or `test` for ever
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Game:
    """One environment: its actions, and for formulas its cards, target, signs and longest formula before `=`."""

    name: str
    title: str
    actions: tuple[str, ...]
    cards: int = 0
    target: int = 0
    signs: str = ""
    longest: int = 0


GAMES = {
    game.name: game
    for game in (
        Game("numberline", "NumberLine", ("-", "+")),
        Game("ezpoints", "EZPoints", (*NUMBERS, "+", "*", "="), 2, 12, "+*", 5),
        Game("points24", "Points24", (*NUMBERS, "+", "-", "*", "/", "(", ")", "="), 4, 24, "+-*/", 20),
        Game("blackjack", "Blackjack", ("stand", "hit")),
    )
}
HORIZON = 10  # steps of NumberLine


def game_named(name: str) -> Game:
    if name not in GAMES:
        raise UserError(f"unknown environment '{name}': choose one of {', '.join(GAMES)}")
    return GAMES[name]


@dataclass(frozen=True)
class State:
    """What is on the table.

    Args:
        cards: the cards' values; of NumberLine the current and the target number; of Blackjack the player's.
        faces: the cards as drawn.
        formula: the tokens so far.
        dealer: Blackjack's dealer's cards; the second lies face down.
        turn: steps played.
        look: the seed of what is left to chance in the picture.
    """

    game: Game
    cards: tuple[int, ...]
    faces: tuple[str, ...] = ()
    formula: Formula = ()
    dealer: tuple[int, ...] = ()
    turn: int = 0
    look: int = 0

    @property
    def left(self) -> list[str]:
        """The numbers that the formula has not used."""
        left = [str(card) for card in self.cards]
        for token in self.formula:
            if token in left:
                left.remove(token)
        return left

    def plans(self) -> tuple[Formula, ...]:
        """Solutions that the formula so far is the beginning of, the shortest first."""
        solutions = solve(self.cards, self.game.target, self.game.signs)
        return tuple(plan for plan in solutions if plan[: len(self.formula)] == self.formula)

    @property
    def is_hopeless(self) -> bool:
        """Whether a formula can no longer reach the target as one of the solutions does."""
        return bool(self.game.target) and not self.plans()


class Outcome(NamedTuple):
    state: State
    reward: float
    terminated: bool
    truncated: bool  # ended by the horizon or the length of the formula

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated


def pick(rng: Generator, options):
    """One of several things, all equally likely."""
    return options[int(rng.integers(len(options)))]


def part_of(cards: tuple[int, ...]) -> str:
    """The part that a multiset of cards belongs to, by its digest."""
    return "test" if share_of(cards) < TEST_SHARE else "train"


def share_of(cards: tuple[int, ...]) -> float:
    """A number in 0-1 that belongs to a multiset of cards, by its digest."""
    text = ",".join(str(card) for card in sorted(cards))
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def deal(game: Game, rng: Generator, part: str = "all") -> State:
    """A first state. Ranks are uniform on 1 to 13, J, Q and K count 10; EZPoints' deals always have a solution.

    Args:
        part: for Points24, of which multisets: see PARTS; the others have too few to be parted.
    """
    look = int(rng.integers(16))  # few, so that pictures come again
    if game.name == "numberline":
        while True:
            current, target = int(rng.integers(LINE_END + 1)), int(rng.integers(LINE_END))
            if current != target:
                return State(game, (current, target), look=look)
    if game.name == "blackjack":
        dealer, player = (tuple(_card(rng)[0] for _ in range(2)) for _ in range(2))
        return State(game, player, tuple(map(str, player)), dealer=dealer, look=look)
    while True:
        cards, faces = zip(*(_card(rng) for _ in range(game.cards)), strict=True)
        if game.name == "points24":
            fits = part in ("all", part_of(cards))
        else:
            fits = bool(solve(cards, game.target, game.signs))
        if fits:
            return State(game, cards, faces, look=look)


def _card(rng: Generator) -> tuple[int, str]:
    """Value and face of a card."""
    rank = int(rng.integers(1, 14))
    return min(rank, 10), FACES.get(rank, str(rank))


def play(state: State, action: str, rng: Generator) -> Outcome:
    """What an action leads to. `action` must be one of the game's; only Blackjack draws from `rng`."""
    state = replace(state, turn=state.turn + 1)
    return {"numberline": _move, "blackjack": _bet}.get(state.game.name, _write)(state, action, rng)


def _move(state: State, action: str, rng: Generator) -> Outcome:
    """NumberLine: +1 at the target, -1 for a step that comes no closer, 0 otherwise; ten steps at most."""
    current, target = state.cards
    moved = min(LINE_END, max(0, current + (1 if action == "+" else -1)))
    closer = abs(moved - target) < abs(current - target)
    reward = 1.0 if moved == target else 0.0 if closer else -1.0
    return Outcome(replace(state, cards=(moved, target)), reward, moved == target, state.turn >= HORIZON)


def _write(state: State, action: str, rng: Generator) -> Outcome:
    """Formulas: +10 for `=` behind one that uses all cards and reaches the target, else -1 for it.

    A number that is not left costs -1 and leaves a blank; signs are not checked. The length is tested before the
    action.
    """
    if len(state.formula) > state.game.longest:
        return Outcome(state, -1.0, False, True)
    if action == "=":
        right = not state.left and value(state.formula) == state.game.target
        return Outcome(state, 10.0 if right else -1.0, True, False)
    illegal = action.isdigit() and action not in state.left
    formula = (*state.formula, BLANK if illegal else action)
    return Outcome(replace(state, formula=formula), -1.0 if illegal else 0.0, False, False)


def _bet(state: State, action: str, rng: Generator) -> Outcome:
    """Blackjack from an endless deck: the dealer draws to 17; +1, 0 or -1 at the end."""
    if action == "hit":
        card, face = _card(rng)
        state = replace(state, cards=(*state.cards, card), faces=(*state.faces, face))
        bust = hand(state.cards) > 21
        return Outcome(state, -1.0 if bust else 0.0, bust, False)
    while hand(state.dealer) < 17:
        state = replace(state, dealer=(*state.dealer, _card(rng)[0]))
    player, dealer = (total if total <= 21 else 0 for total in (hand(state.cards), hand(state.dealer)))
    return Outcome(state, float((player > dealer) - (player < dealer)), True, False)


def hand(cards: tuple[int, ...]) -> int:
    """The points of a Blackjack hand; one ace counts 11 where that does not bust."""
    total = sum(cards)
    return total + 10 if 1 in cards and total <= 11 else total
