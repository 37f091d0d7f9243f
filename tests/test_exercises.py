"""The self-checks of the exercises tell plausible wrong solutions from right ones."""

import re
from functools import cache

import nbformat
import pytest

from rftkit.common.paths import NOTEBOOKS

SOLUTIONS = {path.name[:2]: path for path in sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))}
# By notebook and exercise: what somebody may think. Each stands below the solution and takes its place.
WRONG = {
    ("00", 1): ["four_advantages = [2.0] * 4", "four_advantages = [1.0] * 4"],
    ("00", 2): [
        "completion = 'It looks like a bolt.'",
        "completion = '<think> it has straight sides </think> <answer> arrow </answer>'",
    ],
    ("00", 3): [
        "def centred(rewards): return (rewards - rewards.mean()) / rewards.std()",
        "def centred(rewards): return rewards",
    ],
    ("00", 4): ["cold = 1.5", "more_at_cold = True"],
    ("01", 1): [
        "share = learnt['sft'] / (learnt['sft_all'] - learnt['sft'])",
        "share = learnt['sft_all'] / learnt['sft']",
        "share = 100 * learnt['sft'] / learnt['sft_all']",
    ],
    ("01", 2): [
        "def best_step(curve): return curve.loc[curve['strict'].idxmax(), 'step']",
        "def best_step(curve): return curve[curve['half'] == 'base'].sort_values('strict')['step'].iloc[-1]",
        "def best_step(curve): return curve.groupby('step')['strict'].mean().idxmax()",
    ],
    ("01", 3): [
        "def forgotten(curve): return curve['strict'].max() - curve['strict'].min()",
        "def forgotten(curve): return curve['strict'].iloc[0] - curve['strict'].iloc[-1]",
        "def forgotten(curve): return 1 - curve['strict'].iloc[-1] / curve['strict'].max()",
    ],
    ("01", 4): ["rate = settings.learning_rate", "higher = not higher"],
    ("02", 1): [
        "def share_that_teaches_nothing(rewards): return (rewards.std(dim=1) > 0).float().mean()",
        "def share_that_teaches_nothing(rewards): return (rewards.sum(dim=1) == 0).float().mean()",
        "def share_that_teaches_nothing(rewards): return (rewards.std(dim=0) == 0).float().mean()",
    ],
    ("02", 2): ["strict, lenient = (1, 1), (1, 1)", "strict = (0, 1)", "lenient = (0, 0)"],
    ("02", 3): [
        "def teaches(p, size): return 1 - (1 - p) ** size",
        "def teaches(p, size): return 1 - p**size",
        "def teaches(p, size): return (1 - p**size) * (1 - (1 - p) ** size)",
    ],
    ("02", 4): ["size = settings.num_generations", "more = not more"],
    ("03", 1): ["completion = 'arrow'", "completion = 'bolt'", "completion = '<answer> arrow </answer>'"],
    ("03", 2): [
        "one_of_four, three_of_four = 0.75, 0.25",
        "one_of_four, three_of_four = 0.75 / 0.1875**0.5, 0.25 / 0.1875**0.5",
        "one_of_four, three_of_four = three_of_four, one_of_four",
    ],
    ("03", 3): ["tokens = 70 + 8 * 3", "tokens = 8 * (70 + 3)", "tokens = 70 + 8 * 4"],
    ("03", 4): ["cold = 1.0", "lower = not lower"],
    ("04", 1): ["rewards = (1, 1)", "rewards = (0, 0)", "rewards = (1, 2)"],
    ("04", 2): [
        "def first_step(table, level, window=2): return int(table['step'][table['accuracy_reward'] >= level].iloc[0])",
        "def first_step(table, level, window=2):\n"
        "    return int(table['step'][(table['accuracy_reward'].rolling(window).mean() >= level).idxmax()])",
    ],
    ("04", 3): ["times = 3 / 15", "times = 15 - 3", "times = 1"],
    ("04", 4): ["method = 'think_after_answer'", "longer = not longer"],
    ("05", 1): ["right = [0.9] * 3", "right = [1 - 0.1 * n for n in (2, 3, 4)]", "right = [0.9, 0.9**2, 0.9**3]"],
    ("05", 2): ["my_guess = [True] * 6", "my_guess = [True] + [False] * 5", "my_guess = [True] * 5 + [False]"],
    ("05", 3): ["guessing = 1 / 4", "guessing = 2 / 3", "guessing = 1 / 2"],
    ("05", 4): ["room = settings.max_completion_tokens", "fewer = not fewer"],
    ("06", 1): [
        "contrary = '<think> 3 plus 4 is 7 </think> <answer> 7 </answer>'",
        "contrary = '<think> 4 plus 4 is 8 </think> <answer> 8 </answer>'",
        "contrary = '<think> 4 plus 4 is 8 <answer> 7 </answer>'",
        "contrary = '<think> </think> <answer> 7 </answer>'",
    ],
    ("06", 2): ["needs_it = True", "reads_it = False", "reads_it, needs_it = needs_it, reads_it"],
    ("06", 3): ["times = 20 - 2", "times = 2 / 20"],
    ("06", 4): ["hot = 0.5", "more = not more"],
    ("07", 1): [
        "named = ['10', '1', '8', '(']",
        "named = ['1', None, None, '(']",
        "named = ['10', None, None, None]",
    ],
    ("07", 2): ["two_advantages = [0 + 0.9 * 4 - 2, 10 - 4]", "two_advantages = [0.9 * 10 - 2, 10]"],
    ("07", 3): [
        "ratios = [np.exp(-0.4 + 0.3), np.exp(0.3)]",
        "ratios = [0.5 * -0.4 + 0.3, 0.3]",
        "ratios = ratios[::-1]",
    ],
    ("07", 4): ["dagger = True", "pool = 2 * settings.rollout"],
    ("08", 1): [
        "r_captions = [7, 6]",
        "r_captions = [1.0, 0.75]",
        "above = [True, True]",
        "above = [False, False]",
    ],
    ("08", 2): ["by_sophia = (1, 2)", "by_outcome = (0, 0)", "by_sophia, by_outcome = (0, 3), (1, 1)"],
    ("08", 3): [
        "chances = [0.9**8, 0.9**4]",
        "chances = [chances[0], 0.9**4 + 4 * 0.9**3 * 0.1]",
        "chances = [0.9, 0.9]",
    ],
    ("08", 4): ["step_slip = 0.05", "fewer = not fewer"],
    ("09", 1): [
        "corrected = [0.01 * 3, 0.04 * 3, 0.03 * 3]",
        "corrected = [0.01 * 3, 0.04, 0.03 * 2]",
        "corrected = [0.01, 0.03, 0.04]",
    ],
    ("09", 2): ["times = 10", "times = 1", "times = 0.1**0.5"],
    ("09", 3): [
        "mean_difference = 0.15",
        "mean_difference = 0.035",
        "mean_difference, share_above = -mean_difference, 0.0",
        "share_above = 0.75",
    ],
    ("09", 4): ["runs_each = 10", "wider = not wider"],
    ("10", 1): ["in_grpo, in_self_training = 1.0, 0.0", "in_grpo = 1 / 8", "in_self_training = 0.0"],
    ("10", 2): [
        "def my_front(points): return [max(points), max(points, key=lambda point: point[1])]",
        "def my_front(points): return points",
        "def my_front(points): return [max(points, key=sum)]",
    ],
    ("10", 3): ["learnt_at_most = 85 - 40", "learnt_at_most = 88 - 90", "learnt_at_most = 100 - 88"],
    ("10", 4): ["seed = settings.seed", "more = not more"],
}


@cache
def code_cells(path):
    """The code cells of each exercise by its number: the solution and the checks; under 0 all others."""
    number, parts = 0, {}
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            found = re.match(r"\*\*(\d)\.\*\*", cell.source)
            number = int(found[1]) if found else 0
        else:
            parts.setdefault(number, []).append(cell.source)
    return parts


@cache
def set_up(notebook):
    names = {}
    exec("\n".join(code_cells(SOLUTIONS[notebook])[0]), names)
    return names


def checked(notebook, number, wrong=""):
    """Which statements of an exercise hold; what raises is no answer, so it is not caught here."""
    held = {}
    names = set_up(notebook) | {"check": lambda statement, holds: held.update({statement: bool(holds())})}
    solution, checks = code_cells(SOLUTIONS[notebook])[number]
    exec("\n".join((solution, wrong, checks)), names)
    return held


def test_every_exercise_is_here_and_checked_alike_in_the_chapter_and_its_solutions():
    found = {(name, number): cells for name, path in SOLUTIONS.items() for number, cells in code_cells(path).items()}
    assert {key for key in found if key[1]} == set(WRONG)
    for name, number in WRONG:
        assert code_cells(NOTEBOOKS / SOLUTIONS[name].name)[number][1] == found[name, number][1]


@pytest.mark.parametrize(("notebook", "number"), WRONG)
def test_a_plausible_wrong_solution_fails(notebook, number):
    statements = checked(notebook, number)
    assert all(statements.values())
    failed = set()
    for wrong in WRONG[notebook, number]:
        held = checked(notebook, number, wrong)
        assert not all(held.values()), wrong
        failed |= {statement for statement in held if not held[statement]}
    assert failed == set(statements)  # each check is there for something
