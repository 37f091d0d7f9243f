"""The drawn tasks: right answers, splits that share no scene, and steps that lead to the answer."""

import re
from collections import Counter

import pytest

from rftkit.nano.worlds import SIDE
from rftkit.rewards import score
from rftkit.tasks.bundled import DRAWN, evaluated_parts, load_part, training_set
from rftkit.tasks.drawn import LEVELS

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
    for split in ("shots", "val", "test"):
        drawn = task.scenes(every, split, 1)
        found[split] = {next(drawn)[2].content for _ in range(20 * len(every))}
    assert not found["test"] & (found["shots"] | found["val"]) and not found["val"] & found["shots"]


@name
def test_the_same_seed_draws_the_same_and_another_seed_other_scenes(name):
    first, again, other = (load_part(name, "test", 12, seed, evaluated_parts(name, "")[0]) for seed in (3, 3, 4))
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
    """No answer and no place in the choice list is right so often that a model could do without the picture."""
    found = [scene for level in LEVELS for scene in scenes(task, kind, level, count=80)]
    assert Counter(scene.answer for scene in found).most_common(1)[0][1] < 0.5 * len(found)
    places = Counter(scene.choices.index(scene.answer) for scene in found if scene.choices)
    assert not places or places.most_common(1)[0][1] < 0.65 * sum(places.values())


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
        spots = re.findall(r"\d+,\d+", scene.content)
        wanted, others = re.match(r"count (\d+) \(.*?\) (\d+) \(", scene.content).groups()
        assert len(spots) == int(wanted) + int(others) and wanted == scene.answer


def test_polygons_close():
    for scene in scenes("math", "perimeter", 1):
        sides = [int(n) for n in re.findall(r"\d+", scene.content)]
        assert 2 * max(sides) < sum(sides) == int(scene.answer)


@name
def test_parts_cover_the_trained_kinds_and_training_leaves_the_others_out(name):
    task = DRAWN[name]
    tested = {pair for pairs in task.parts.values() for pair in pairs}
    assert tested == {(kind, level) for kind in task.kinds for level in LEVELS}
    kinds = {example.id.split("-")[2] for example in training_set(name, "base_to_new", 4, 60, 0)}
    assert kinds == set(task.kinds) - set(task.untrained)


@name
def test_the_right_answer_scores_in_every_form_of_its_rule(name):
    for part in evaluated_parts(name, ""):
        for example in load_part(name, "test", 6, 0, part):
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
