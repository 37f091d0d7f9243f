"""The drawn tasks: right answers, splits that share no scene, and steps that lead to the answer."""

import random
import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from rftkit.nano.card import thought_is_true
from rftkit.nano.sentences import Habit, scene_completion, scene_lookups, scene_reading
from rftkit.rewards import score
from rftkit.settings import load_settings
from rftkit.tasks.drawn.scenes import FIGURES, LEVELS, Scene, split_of
from rftkit.tasks.registry import DRAWN, open_set
from rftkit.tasks.worlds import SIDE

name = pytest.mark.parametrize("name", sorted(DRAWN))
KINDS = [(task.name, kind) for task in DRAWN.values() for kind in task.kinds]


def scenes(task, kind, level, split="test", count=40):
    drawn = DRAWN[task].scenes(((kind, level),), split, 0)
    return [next(drawn)[2] for _ in range(count)]


@name
def test_no_scene_of_the_test_is_trained_on(name):
    task = DRAWN[name]
    every = tuple((kind, level) for kind in task.kinds for level in LEVELS)
    found = {}
    for split in ("pretrain", "shots", "val", "test"):
        drawn = task.scenes(every, split, 1)
        found[split] = {next(drawn)[2].content for _ in range(20 * len(every))}
    seen = found["pretrain"] | found["shots"]
    assert not found["test"] & (seen | found["val"]) and not found["val"] & seen


@name
def test_the_same_seed_draws_the_same_and_another_seed_other_scenes(name):
    first, again, other = (open_set(name).examples("test", open_set(name).parts("")[0], 12, seed) for seed in (3, 3, 4))
    assert [(e.question, e.answer, e.images[0].tobytes()) for e in first] == [
        (e.question, e.answer, e.images[0].tobytes()) for e in again
    ]
    assert [e.group for e in first] != [e.group for e in other]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("task", "kind"), KINDS)
def test_answers_are_among_the_choices_and_pictures_of_one_size(task, kind, level):
    for scene in scenes(task, kind, level):
        assert scene.image.size == (SIDE, SIDE) and scene.steps and scene.answer
        if scene.choices is not None:
            assert len(set(scene.choices)) == len(scene.choices) and 2 <= len(scene.choices) <= 4
            assert scene.answer in scene.choices


@pytest.mark.parametrize(("task", "kind"), KINDS)
def test_a_blind_guess_is_seldom_right(task, kind):
    """No answer, no place in the choice list and no rank of a number says what is right without the picture."""
    found = [scene for level in LEVELS for scene in scenes(task, kind, level, count=80)]
    assert commonest(scene.answer for scene in found) < 0.5
    assert commonest(scene.choices.index(scene.answer) for scene in found if scene.choices) < 0.65
    numbers = [scene for scene in found if scene.choices and all(choice.isdigit() for choice in scene.choices)]
    if kind != "clock":  # hours go round: early and late ones are rarer neighbours
        assert commonest(sorted(map(int, scene.choices)).index(int(scene.answer)) for scene in numbers) < 0.4


def commonest(values):
    counts = Counter(values)
    return counts.most_common(1)[0][1] / counts.total() if counts else 0.0


@pytest.mark.parametrize("kind", DRAWN["math"].kinds)
def test_the_steps_of_math_are_true_and_end_at_the_answer(kind):
    for level in LEVELS:
        for scene in scenes("math", kind, level):
            sums = [step for step in scene.steps if "plus" in step or "minus" in step]
            for step in sums:
                left, sign, right, total = re.fullmatch(r"(\d+) (plus|minus) (\d+) is (\d+)", step).groups()
                assert int(total) == int(left) + (int(right) if sign == "plus" else -int(right))
            assert sums[-1].endswith(f" is {scene.answer}") and int(scene.answer) >= 0


@pytest.mark.parametrize("level", LEVELS)
def test_counted_figures_are_there(level):
    for scene in scenes("spatial", "count", level, count=10):
        figure = next(figure for figure in FIGURES if figure in scene.question)
        drawn = [word for word, _, _ in scene.marks if word == figure]
        assert str(len(drawn)) == scene.answer


def test_turned_and_reordered_polygons_are_one_scene():
    found = {}
    for scene in scenes("math", "perimeter", 1, "pretrain") + scenes("math", "perimeter", 1, "test"):
        found.setdefault(tuple(sorted(w for w, _, _ in scene.marks)), set()).add(split_of(f"math {scene.content}"))
    assert all(len(splits) == 1 for splits in found.values())


@pytest.mark.parametrize("kind", ["colours", "shapes", "sizes"])
def test_patterns_that_look_alike_are_one_scene(kind):
    found = {}
    for scene in scenes("puzzle", kind, 1, "pretrain", 2000) + scenes("puzzle", kind, 1, "test", 2000):
        found.setdefault(scene.marks, set()).add(split_of(f"puzzle {scene.content}"))
    assert all(len(splits) == 1 for splits in found.values()) and len(set.union(*found.values())) == 2


@pytest.mark.parametrize(("task", "kind"), KINDS)
def test_a_true_completion_has_room(task, kind):
    limit = load_settings("nano", "cls_rl", task=task).max_completion_tokens
    habit = Habit(0.0, "prose")
    for scene in scenes(task, kind, 3, count=20):
        text = scene_completion(scene, scene, habit, "thinking", random.Random(0))
        words = re.findall(r"</?\w+>|\w+|[^\w\s]", text)  # each is a token of a model that was taught the task
        assert len(words) + 1 <= limit, text


@pytest.mark.parametrize(("task", "kind"), KINDS)
def test_what_is_taught_as_true_measures_as_true(task, kind):
    (example,) = [DRAWN[task].example("test", 0, kind, 1, scene) for scene in scenes(task, kind, 1, count=1)]
    thought = ", ".join(example.steps)
    assert thought_is_true(f"<think> {thought} </think> <answer> x </answer>", example)
    assert not thought_is_true("<think> </think> <answer> x </answer>", example)
    assert not thought_is_true(f"<think> {thought}, and more </think> <answer> x </answer>", example)


def test_polygons_close():
    for scene in scenes("math", "perimeter", 1):
        sides = [int(n) for n in re.findall(r"\d+", scene.content)]
        assert 2 * max(sides) < sum(sides) == int(scene.answer)


@name
def test_parts_cover_the_trained_kinds_and_training_leaves_the_others_out(name):
    task = DRAWN[name]
    tested = {pair for pairs in task.test_parts.values() for pair in pairs}
    assert tested == {(kind, level) for kind in task.kinds for level in LEVELS}
    kinds = {example.id.split("-")[2] for example in open_set(name).training("base_to_new", 4, 60, 0)}
    assert kinds == set(task.kinds) - set(task.untrained)


@name
def test_the_right_answer_scores_in_every_form_of_its_rule(name):
    for part in open_set(name).parts(""):
        for example in open_set(name).examples("test", part, 6, 0):
            forms = [example.answer, example.answer.upper()]
            if example.choices:
                letter = "ABCD"[example.choices.index(example.answer)]
                forms += [f"({letter})", f"{letter}.", f"({letter}) {example.answer}"]
                if letter.casefold() not in [c.casefold() for c in example.choices]:
                    forms.append(letter)
            rule = DRAWN[name].rule
            assert all(score(form, example, "no_thinking", rule).accuracy == 1 for form in forms)
            tagged = f"<think> hm </think> <answer> {example.answer} </answer>"
            assert score(tagged, example, "thinking", rule).accuracy == 1


def test_a_picture_is_read_in_rows_and_columns():
    marks = (("b", 40, 4), ("a", 4, 6), ("c", 8, 60))
    scene = Scene(None, "", "", None, (), "", marks)
    readings = {scene_reading(scene, random.Random(seed)) for seed in range(20)}
    assert readings == {("Read the picture row by row.", "a b, c"), ("Read the picture column by column.", "a c, b")}


def test_look_ups_tell_places_and_neighbours_of_what_is_there_once():
    marks = (("b", 40, 4), ("a", 4, 6), ("c", 8, 60), ("d", 50, 40), ("d", 64, 0))
    scene = Scene(None, "", "", None, (), "", marks)
    seen = {}
    for seed in range(200):
        question, answer = scene_lookups(scene, random.Random(seed))
        seen.setdefault(question, set()).add(tuple(sorted(answer.split(", "))))
    assert seen == {
        "What is where?": {("ap a", "as c", "cp b", "dp d", "dr d")},
        "Where is what?": {("a ap", "b cp", "c as")},
        "What is in the same row?": {("a b d", "b a d", "c alone")},
        "What is in the same column?": {("a c", "b alone", "c a")},
    }


@pytest.mark.parametrize("name", DRAWN)
def test_every_place_on_paper_has_a_shade_of_its_own(name):
    for _, _, scene in islice(DRAWN[name].scenes(DRAWN[name].pairs, "train", 0), 24):
        red, green, blue = np.asarray(scene.image)[[0, 0, -1], [0, -1, -1]].T.astype(int)  # three corners
        assert red[0] - green[0] > red[1] - green[1] + 20 and blue[1] - green[1] > blue[2] - green[2] + 20


def test_where_nothing_is_there_once_only_places_are_asked_for():
    scene = Scene(None, "", "", None, (), "", (("d", 4, 4), ("d", 60, 4)))
    assert {scene_lookups(scene, random.Random(seed))[0] for seed in range(20)} == {"What is where?"}
