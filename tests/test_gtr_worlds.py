"""GTR's environments: formulas read exactly, every solution, the rules, and what random play comes to."""

import time
import warnings
from collections import Counter
from fractions import Fraction
from itertools import combinations_with_replacement, permutations, product

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rftkit.common.errors import UserError
from rftkit.common.statistics import wilson
from rftkit.gtr.formulas import solve, tokens_of, value
from rftkit.gtr.rules import BLANK, GAMES, PARTS, State, deal, game_named, hand, pick, play
from rftkit.gtr.worlds import CardTable, marks, picture


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("2+3*4", 14), ("(2+3)*4", 20), ("8/(3-8/3)", 24), ("10-2-3", 5), ("8/4/2", 1), ("((7))", 7), ("1/3", "1/3"),
        ("5/(2-2)", None), ("2**3", None), ("6//2", None), ("(2+3", None), ("2+3)", None), ("2+", None), ("*2", None),
        ("-3+27", None), ("", None), ("()", None), ("2(3)", None),
    ],
)  # fmt: skip
def test_a_formula_has_its_exact_value(text, result):
    assert value(tokens_of(text)) == (None if result is None else Fraction(result))


def test_digits_side_by_side_are_no_number():
    assert value(("2", "4", "*", "1", "*", "1")) is None and value(("24", "*", "1")) == 24


HOSTILE = ["(" * 10_000, "9" * 10_000, "1+" * 5_000 + "1", "9*" * 40 + "9", "__import__('os')", "1e9", "٣+1", "2 + x"]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_hostile_formulas_have_no_value_fast(text):
    began = time.perf_counter()
    tokens = tokens_of(text)
    assert (None if tokens is None else value(tokens)) is None
    assert time.perf_counter() - began < 0.1


def every_formula(numbers):
    """All formulas over numbers in their order, brackets around each step; slow and plain."""
    if len(numbers) == 1:
        yield (str(numbers[0]),)
    for cut in range(1, len(numbers)):
        for left, sign, right in product(every_formula(numbers[:cut]), "+-*/", every_formula(numbers[cut:])):
            yield ("(", *left, sign, *right, ")")


@pytest.mark.parametrize("cards", [(3, 3, 8, 8), (1, 5, 5, 5), (10, 10, 4, 4), (1, 1, 1, 1)])
def test_a_deal_is_solved_as_trying_everything_solves_it(cards):
    tried = {text for order in set(permutations(cards)) for text in every_formula(order) if value(text) == 24}
    found = solve(cards, 24)
    assert bool(found) == bool(tried)
    for text in found:
        assert value(text) == 24 and Counter(token for token in text if token.isdigit()) == Counter(map(str, cards))
    assert len(set(found)) == len(found) and list(map(len, found)) == sorted(map(len, found))


def test_needless_brackets_are_left_out():
    assert solve((3, 3, 8, 8), 24) == (tuple("8/(3-8/3)"),)
    assert ["".join(text) for text in solve((2, 10), 12, "+*")] == ["10+2", "2+10"]
    assert not [
        text for text in solve((4, 4, 10, 10), 24) if text[0] == "(" and text[-1] == ")" and text.count("(") == 1
    ]


def test_566_of_715_deals_can_be_solved():
    deals = list(combinations_with_replacement(range(1, 11), 4))
    solvable = [deal for deal in deals if solve(deal, 24)]
    assert (len(solvable), len(deals)) == (566, 715)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def played(game, actions, cards, **state):
    """The outcomes of a game's actions, one after the other, from given cards."""
    state, rng, outcomes = State(GAMES[game], cards, **state), np.random.default_rng(0), []
    for action in actions:
        outcomes.append(play(state, action, rng))
        state = outcomes[-1].state
    return outcomes


@pytest.mark.parametrize(
    ("game", "cards", "actions", "rewards", "ended"),
    [
        ("numberline", (2, 4), "++", [0, 1], "terminated"),
        ("numberline", (0, 1), "-+", [-1, 1], "terminated"),
        ("numberline", (2, 4), "-" * 10, [-1] * 10, "truncated"),
        ("ezpoints", (2, 10), ["10", "+", "2", "="], [0, 0, 0, 10], "terminated"),
        ("ezpoints", (2, 10), ["2", "="], [0, -1], "terminated"),
        ("ezpoints", (6, 6), ["6", "*", "2", "="], [0, 0, -1, -1], "terminated"),
        ("ezpoints", (2, 10), "+++++++", [0, 0, 0, 0, 0, 0, -1], "truncated"),
        ("points24", (3, 3, 8, 8), "8/(3-8/3)=", [0] * 9 + [10], "terminated"),
        ("points24", (2, 4, 1, 1), "24*1*1=", [0] * 6 + [-1], "terminated"),
        ("points24", (2, 3, 3, 3), "2**33*3=", [0] * 7 + [-1], "terminated"),
        ("points24", (1, 2, 3, 4), "5" * 22, [-1] * 22, "truncated"),
    ],
)
def test_the_rules(game, cards, actions, rewards, ended):
    outcomes = played(game, actions, cards)
    assert [outcome.reward for outcome in outcomes] == rewards
    assert not any(outcome.done for outcome in outcomes[:-1]) and getattr(outcomes[-1], ended)


def test_an_illegal_number_leaves_a_blank():
    assert played("points24", ["7"], (1, 2, 3, 4))[0].state.formula == (BLANK,)


@pytest.mark.parametrize(("cards", "points"), [((1, 10), 21), ((1, 1, 9), 21), ((10, 9, 1), 20), ((10, 10, 2), 22)])
def test_an_ace_counts_eleven_where_it_can(cards, points):
    assert hand(cards) == points


def test_the_dealer_draws_to_seventeen():
    (stood,) = played("blackjack", ["stand"], (10, 9), dealer=(10, 2))
    assert hand(stood.state.dealer) >= 17 and stood.terminated
    assert stood.reward == (1 if hand(stood.state.dealer) > 21 or hand(stood.state.dealer) < 19 else
                            0 if hand(stood.state.dealer) == 19 else -1)  # fmt: skip


@pytest.mark.parametrize(("game", "rate"), [("numberline", 0.284), ("blackjack", 0.280)])
def test_random_play_wins_as_often_as_in_the_released_environments(game, rate, rng):
    won = 0
    for _ in range(8000):
        state, total, done = deal(GAMES[game], rng), 0.0, False
        while not done:
            state, reward, *ends = play(state, pick(rng, GAMES[game].actions), rng)
            total, done = total + reward, any(ends)
        won += total > 0
    low, high = wilson(won, 8000)
    assert low < rate < high


def test_nearly_three_quarters_of_the_deals_can_be_solved(rng):
    solvable = sum(bool(deal(GAMES["points24"], rng).plans()) for _ in range(3000))
    low, high = wilson(solvable, 3000)
    assert low < 0.731 < high
    assert all(deal(GAMES["ezpoints"], rng).plans() for _ in range(200))


def test_multisets_to_train_on_and_to_test_on_are_apart(rng):
    cards = {part: {tuple(sorted(deal(GAMES["points24"], rng, part).cards)) for _ in range(400)} for part in PARTS}
    assert not cards["train"] & cards["test"] and cards["all"] & cards["train"] and cards["all"] & cards["test"]


def test_plans_go_on_from_the_formula():
    state = State(GAMES["points24"], (3, 3, 8, 8), formula=("8", "/", "("))
    assert state.plans() == (tuple("8/(3-8/3)"),) and not state.is_hopeless
    assert State(GAMES["points24"], (3, 3, 8, 8), formula=("8", "*")).is_hopeless
    assert not State(GAMES["numberline"], (1, 3)).is_hopeless


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
def test_gymnasium_finds_no_fault(game):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gymnasium.make(f"rftkit/{game.title}-v0", render_mode="rgb_array", side=64)
        check_env(made.unwrapped, skip_render_check=False)
    assert made.reset(seed=1)[0].shape == (64, 64, 3) and (made.render() == made.reset(seed=1)[0]).all()


def test_a_batch_is_stepped_in_one_call():
    table = gymnasium.make_vec("rftkit/EZPoints-v0", num_envs=3, vectorization_mode="vector_entry_point", side=64)
    seen, info = table.reset(seed=5)
    assert seen.shape == (3, 64, 64, 3)
    dealt = list(info["state"])
    seen, rewards, terminated, truncated, info = table.step([table.unwrapped.game.actions.index("=")] * 3)
    assert rewards.tolist() == [-1] * 3 and terminated.all() and not truncated.any()
    assert [state.cards for state in info["final_state"]] == [state.cards for state in dealt]
    assert all(state.turn == 0 for state in info["state"])
    table.reset(seed=5)
    assert [state.cards for state in table.unwrapped.states] == [state.cards for state in dealt]


def test_episodes_that_cannot_be_won_end_early():
    table = CardTable("points24", 1, early_stop=True)
    table.reset(seed=0)
    table.states = [State(GAMES["points24"], (3, 3, 8, 8))]
    assert [part.tolist() for part in table.play(["8"])] == [[0.0], [False], [False]]
    assert [part.tolist() for part in table.play(["*"])] == [[-1.0], [True], [False]]
    table.states = [State(GAMES["points24"], (3, 3, 8, 8), formula=tuple("8/(3-8/3)"))]
    assert [part.tolist() for part in table.play(["="])] == [[10.0], [True], [False]]


def test_pictures_show_cards_and_formula():
    state = State(GAMES["points24"], (1, 10, 3, 10), ("A", "K", "3", "10"), ("3", BLANK, "-"))
    assert marks(state) == [("A", 0, 0), ("K", 1, 0), ("3", 2, 0), ("10", 3, 0), ("3", 0, 1), ("-", 2, 1)]
    assert picture(state, 64).size == (64, 64) and picture(state, 64) is picture(state, 64)


@pytest.mark.parametrize("make", [lambda: game_named("chess"), lambda: CardTable("points24", part="both")])
def test_what_there_is_not_is_refused(make):
    with pytest.raises(UserError, match="choose one of"):
        make()
