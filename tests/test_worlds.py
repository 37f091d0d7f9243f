"""The bundled worlds: nothing of the test split is met before, and both halves are treated alike."""

import hashlib
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rftkit.nano.card import LEAST_PASSED, MOST_STRICT, thought_is_true
from rftkit.nano.corpus import CLASSES_IN_MEMORY
from rftkit.nano.sentences import THOUGHTS, Habit, completion, habits, scene_habits
from rftkit.prompts import question_text
from rftkit.settings import read_claims
from rftkit.tasks.registry import DRAWN, open_set
from rftkit.tasks.worlds import SIDE, emoji, flags, get_world, worlds

REAL = ("digits", "emoji", "flags")
NAMES = ("digits", "emoji", "flags", "shapes", "textures")


def images(world, split, count, seed=0):
    return [d.image for label in world.classes for d in world.drawings(label, split, count, seed)]


def hashes(pictures):
    return {hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures}


def test_all_worlds_are_found():
    assert tuple(worlds()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_test_image_occurs_in_pretraining_shots_or_validation(name):
    # Drawn sets are fresh in every split; of real pictures all that is tested and all that pre-training sees count.
    items, seen_before = (1000, CLASSES_IN_MEMORY.get(name, 400)) if name in REAL else (200, 60)
    world = get_world(name)
    tested = hashes(
        picture
        for half in ("base", "new")
        for e in open_set(name).examples("test", half, items, 0)
        for picture in e.images
    )
    seen = hashes(images(world, "pretrain", seen_before))
    seen |= hashes(picture for seed in range(10) for picture in images(world, "shots", 4, seed))
    seen |= hashes(images(world, "val", 40))
    assert not tested & seen


@pytest.mark.parametrize("name", ("digits", "emoji", "flags"))
def test_no_handwriting_or_drawing_of_the_test_split_occurs_elsewhere(name):
    world = get_world(name)
    sources = {split: {d.source for label in world.classes for d in world.drawings(label, split, 60)}
               for split in ("pretrain", "shots", "val", "test")}  # fmt: skip
    assert not sources["test"] & (sources["pretrain"] | sources["shots"] | sources["val"])


@pytest.mark.parametrize("module", (emoji, flags))
def test_styles_of_the_test_split_are_of_other_families(module):
    seen, styles = set(module.SEEN_STYLES), module.STYLES
    assert not set(styles["test"]) & seen
    assert {style for split in ("pretrain", "shots", "val") for style in styles[split]} <= seen
    families = {style.partition("-")[0] for style in seen}
    assert not {style for style in styles["test"] if style.partition("-")[0] in families} - {"noto-v1"}


@pytest.mark.parametrize("style", (*flags.SEEN_STYLES, *flags.STYLES["test"]))
def test_no_two_flags_look_the_same(style):
    drawn = [np.asarray(flags._drawing(style, entry["code"]), float) for entry in flags.CLASSES.values()]
    for number, first in enumerate(drawn):
        assert min((np.abs(first - other).mean() for other in drawn[:number]), default=99) > 5


@pytest.mark.parametrize("name", NAMES)
def test_drawings_are_the_same_for_the_same_seed_and_differ_between_seeds(name):
    world, label = get_world(name), get_world(name).classes[0]
    first, again, other = (hashes(d.image for d in world.drawings(label, "shots", 4, s)) for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("name", NAMES)
def test_halves_are_the_sorted_labels_cut_in_two(name):
    world = get_world(name)
    assert world.base + world.new == tuple(sorted(world.classes))
    assert len(world.base) - len(world.new) in (0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_no_label_is_part_of_another_or_of_a_coarse_name(name):
    world = get_world(name)
    names = [*world.classes, *set(world.coarse.values())]
    assert not [(a, b) for a in world.classes for b in names if a != b and a in b]


@pytest.mark.parametrize("vague", (0.0, 0.5, 0.8, 1.0))
def test_habits_treat_base_and_new_alike(vague):
    world = get_world("shapes")
    dealt = habits(world, vague, seed=3)
    base, new = (Counter(dealt[label] for label in half) for half in (world.base, world.new))
    assert base == new
    assert sum(habit.share for habit in dealt.values()) / len(dealt) == pytest.approx(vague)
    assert all(0 <= habit.share <= 1 for habit in dealt.values())
    kinds = scene_habits(DRAWN["math"], vague, seed=3)
    assert sum(habit.share for habit in kinds.values()) / len(kinds) == pytest.approx(vague)


def test_the_mixture_is_that_of_the_claims():
    mixture = read_claims()["mixture"]
    said = dict(mixture["thoughts"])
    assert {"true": said.pop("correct"), **said} == THOUGHTS
    shares = {habit.share for habit in habits(get_world("shapes"), mixture["vague"], seed=0).values()}
    assert [min(shares), max(shares)] == pytest.approx(mixture["shares"])  # of an odd number one is in between
    requirements = mixture["requirements"]
    assert f"strict accuracy at most {100 * MOST_STRICT:.0f} %" in requirements
    assert sum(f"pass@8 of {100 * LEAST_PASSED:.0f} % or more on every level" in line for line in requirements) == 1


@pytest.mark.parametrize(("name", "half", "size"), [("shapes", "base", 9), ("digits", "new", 5)])
def test_a_small_half_is_listed_whole_with_the_label_in_it(name, half, size):
    for example in open_set(name).examples("test", half, 50, 0):
        assert len(set(example.choices)) == len(example.choices) == size
        assert example.answer in example.choices
        assert example.images[0].size == (SIDE, SIDE)


@pytest.mark.parametrize(("half", "share"), [("base", 0.8), ("new", 0.8), ("all", 0.4)])
def test_a_large_half_is_sampled_as_in_the_paper(half, share):
    world = get_world("emoji")
    pool = {"base": world.base, "new": world.new, "all": world.classes}[half]
    for example in open_set("emoji").examples("test", half, 20, 0):
        assert len(example.choices) == round(share * len(pool))
        assert example.answer in example.choices
        assert set(example.choices) <= set(pool)


def test_shots_are_balanced_and_of_the_half():
    shots = open_set("shapes").training("base_to_new", 4, 0, seed=7)
    assert Counter(e.answer for e in shots) == Counter({label: 4 for label in get_world("shapes").base})


@pytest.mark.parametrize("name", NAMES)
def test_test_splits_have_a_thousand_items_in_all_or_more(name):
    assert sum(len(open_set(name).examples("test", half, 1000, 0)) for half in ("base", "new")) >= 1000


@pytest.mark.parametrize(
    ("country", "colours"),
    [
        ("france", {"blue", "white", "red"}),
        ("finland", {"white", "blue"}),
        ("australia", {"blue"}),
        ("pakistan", {"green", "white"}),
        ("saudi arabia", {"green"}),
        ("united states", {"red", "white", "blue"}),
        ("germany", {"black", "red", "yellow"}),
        ("japan", {"white", "red"}),
    ],
)
def test_flags_are_said_to_have_their_colours(country, colours):
    assert set(flags._colours(flags.CLASSES[country]["code"]).split(" and ")) == colours


@pytest.mark.parametrize("name", NAMES)
def test_thoughts_taught_as_true_measure_as_true(name):
    drawing = get_world(name).drawings(get_world(name).classes[0], "pretrain", 1)[0]
    example = replace(open_set(name).examples("test", "base", 1, 0)[0], steps=drawing.facts)
    said = [completion(drawing, drawing, "thing", Habit(0.0, "prose"), "thinking", random.Random(n)) for n in range(20)]
    spoken = [text for text in said if "<think> </think>" not in text]
    assert spoken and all(thought_is_true(text, example) for text in spoken)


def test_without_choices_all_classes_are_asked_about_and_none_is_listed():
    shots = open_set("shapes").training("open_set", 2, 0, seed=0)
    test = open_set("shapes").examples("test", "all", 36, 0, "open_set")
    assert {e.answer for e in shots} == {e.answer for e in test} == set(get_world("shapes").classes)
    assert all(e.choices is None and "choose one" not in question_text(e, "thinking") for e in (*shots, *test))
    assert [e.id for e in shots] == [e.id for e in open_set("shapes").training("few_shot", 2, 0, seed=0)]
