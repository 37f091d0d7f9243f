"""What a bundled model hears and says in pre-training.

First all answers are as asked. Then, like a base model nobody told how to answer, it learns to answer otherwise. How
often is one parameter, `vague`; how that share falls on the classes is a balanced design, the same for base and new
classes (see `habits`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rftkit.prompts import MODES, question_text
from rftkit.sophia.captions import LINES, PROMPTS, line_of, true_caption
from rftkit.tasks.classification import question
from rftkit.tasks.drawn.scenes import DrawnTask, Scene
from rftkit.tasks.example import Example
from rftkit.tasks.worlds import Drawing, World

# How an answer can fail to be as asked, in every mode alike: a sentence stands in its place, with a coarse name
# (vague) or the label (prose); or the answer's tag is never closed (broken).
MANNERS = ("vague", "prose", "broken")
SPREAD = 0.8  # how far the shares of classes lie apart, 0-1
MAIN_MANNER = 0.7  # share of a class's own manner among its answers that are not as asked
OPEN = 0.1  # share of classification questions without a choice list
# Cells by column (a to d, from the left) and row (p to s, from the top): a token each, as digits would not be.
PLACES = tuple(f"{column}{row}" for row in "pqrs" for column in "abcd")
RECITE, RECITED = "Recite some sums.", 8
LOOKUPS = ("What is where?", "Where is what?", "What is in the same row?", "What is in the same column?")
ASKED = 4  # things that the last two of them are told of
THOUGHTS = {"true": 0.8, "wrong": 0.1, "empty": 0.1}  # what stands in the think and reason tags
Cell = tuple[int, int]  # column and row


@dataclass(frozen=True)
class Habit:
    """How a class is spoken of: the share of answers not as asked (0-1), and their main manner."""

    share: float
    manner: str


AS_ASKED = Habit(0.0, MANNERS[0])


def habits(world: World, vague: float, seed: int) -> dict[str, Habit]:
    """A habit for each class. Both halves get the same shares around `vague` and the same manners, dealt to their
    classes at random."""
    rng = random.Random(f"habits/{world.name}/{seed}")
    return _dealt(world.base, vague, rng) | _dealt(world.new, vague, rng)


def scene_habits(task: DrawnTask, vague: float, seed: int) -> dict[str, Habit]:
    """A habit for each kind of a drawn task's scenes, dealt as to classes."""
    return _dealt(tuple(task.kinds), vague, random.Random(f"habits/{task.name}/{seed}"))


def _dealt(names: Sequence[str], vague: float, rng: random.Random) -> dict[str, Habit]:
    """One half of the names is mostly spoken of as asked, the other mostly not; of an odd number one is in between.

    Two shares that far apart are told apart even where the habits of hundreds of classes are learnt at once.
    """
    spread, half = SPREAD * min(vague, 1 - vague), len(names) // 2
    shares = [vague - spread] * half + [vague] * (len(names) % 2) + [vague + spread] * half
    ladder = [Habit(share, MANNERS[step % len(MANNERS)]) for step, share in enumerate(shares)]
    return dict(zip(rng.sample(names, len(names)), ladder, strict=True))


def named(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def thought(true: str, wrong: str, rng: random.Random) -> str:
    """What stands in the think and reason tags, by the shares of THOUGHTS."""
    return rng.choices([true, wrong, ""], [THOUGHTS[kind] for kind in ("true", "wrong", "empty")])[0]


def completion(drawing: Drawing, other: Drawing, coarse: str, habit: Habit, mode: str, rng: random.Random) -> str:
    """One pre-training answer to a question about `drawing` in a mode.

    `coarse` is the vague name of its class; `other` is where a wrong thought comes from. Thoughts are one or two facts.
    """
    facts = (" and ".join(rng.sample(d.facts, min(len(d.facts), 2))) for d in (drawing, other))
    sentences = (f"The picture shows {named(name)}." for name in (coarse, drawing.label))
    return spoken(drawing.label, thought(*facts, rng), *sentences, habit, mode, rng)


def scene_completion(scene: Scene, other: Scene, habit: Habit, mode: str, rng: random.Random) -> str:
    """One pre-training answer to a question about a scene; its thoughts are the steps to the answer."""
    steps = (", ".join(s.steps) for s in (scene, other))
    sentences = ("It is hard to tell.", f"The answer is {scene.answer}.")
    return spoken(scene.answer, thought(*steps, rng), *sentences, habit, mode, rng)


def scene_reading(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A question for all that stands on a picture, row by row or column by column, and the answer.

    It teaches what stands where: most questions are about one thing, and say little of the others.
    """
    prompt = "rows" if rng.random() < 0.5 else "columns"
    return PROMPTS[prompt], true_caption(scene, prompt)


def scene_lookups(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A question for many short look-ups in a picture, and their results in any order.

    Each of them is "find the token that this word names, then tell what else is known of it". Only things that are
    there once are asked for by name.
    """
    cells: dict[Cell, list[str]] = {}
    for word, x, y in scene.marks:
        cells.setdefault((line_of(x), line_of(y)), []).append(word)
    times = Counter(word for word, _, _ in scene.marks)
    places = [(word, place) for place, words in cells.items() for word in words if times[word] == 1]
    question = rng.choice(LOOKUPS if places else LOOKUPS[:1])
    if question == LOOKUPS[0]:
        found = [f"{_named(place)} {' '.join(words)}" for place, words in cells.items()]
    elif question == LOOKUPS[1]:
        found = [f"{word} {_named(place)}" for word, place in places]
    else:
        axis = 1 if question == LOOKUPS[2] else 0
        asked = rng.sample(places, min(ASKED, len(places)))
        found = [f"{word} {_others(word, place, cells, axis)}" for word, place in asked]
    return question, ", ".join(rng.sample(found, len(found)))


def scene_steps(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A scene's own question, asked for nothing but the steps to its answer, and these."""
    return f"{scene.question} Think step by step.", ", ".join(scene.steps)


def some_sums(sums: Sequence[str], rng: random.Random) -> tuple[str, str]:
    """Sums that have nothing to do with the picture or with one another: arithmetic, and no reasoning."""
    return RECITE, ", ".join(rng.sample(sums, RECITED))


def scene_drill(scene: Scene, rng: random.Random, sums: Sequence[str] = ()) -> tuple[str, str]:
    """A short exercise about a scene: look-ups (as often as the others together), a reading, or steps alone.

    It has fewer tokens than a question in a mode, and most of them are about what is on the picture. With `sums` it may
    be some of them, whatever is on the picture.
    """
    drills: list[Callable[[Scene, random.Random], tuple[str, str]]] = [scene_lookups, scene_lookups, scene_reading]
    if scene.steps:
        drills.append(scene_steps)
    if sums:
        drills.append(lambda _, rng: some_sums(sums, rng))
    return rng.choice(drills)(scene, rng)


def _named(place: Cell) -> str:
    return PLACES[LINES * place[1] + place[0]]


def _others(word: str, place: Cell, cells: dict[Cell, list[str]], axis: int) -> str:
    """What else is in the row (axis 1) or column (axis 0) of a word, in order."""
    line = []
    for cell in sorted(cells):
        if cell[axis] == place[axis]:
            line += [other for other in cells[cell] if other != word]
    return " ".join(line) or "alone"


def spoken(answer: str, reasoning: str, vague: str, prose: str, habit: Habit, mode: str, rng: random.Random) -> str:
    """An answer in a mode, as asked or in one of the manners of a habit."""
    manner = None
    if rng.random() < habit.share:
        others = [m for m in MANNERS if m != habit.manner]
        manner = habit.manner if rng.random() < MAIN_MANNER else rng.choice(others)
    sentence = {"vague": vague, "prose": prose}.get(manner)
    tags = MODES[mode].tags
    if MODES[mode].optional and rng.random() < 0.5:
        tags = tuple(tag for tag in tags if tag not in MODES[mode].optional)
    if not tags:
        return f"<answer> {answer}" if manner == "broken" else sentence or answer
    content = {"think": reasoning, "answer": answer, "reason": reasoning}
    parts = {tag: f"<{tag}> {content[tag]} </{tag}>".replace("  ", " ") for tag in tags}
    parts["answer"] = sentence or parts["answer"]
    if manner == "broken":
        parts["answer"] = parts["answer"].rpartition(" ")[0]
    return " ".join(parts.values())


def question_about(drawing: Drawing, world: World, rng: random.Random) -> Example:
    """A question with a choice list of any length, out of the drawing's half or of all classes, or with none."""
    if rng.random() < OPEN:
        return replace(question(drawing, world, world.classes, 0, rng, split="pretrain"), choices=None)
    half = world.base if drawing.label in world.base else world.new
    pool = half if rng.random() < 0.5 else world.classes
    share = 0.8 if rng.random() < 0.3 else rng.uniform(0.05, 0.5)  # mostly short lists: they train faster
    return question(drawing, world, pool, share, rng, split="pretrain")


def scene_vocabulary(task: DrawnTask) -> list[str]:
    """Texts of a drawn task, for training the tokenizer; each number up to 99, angle and place becomes a token."""
    texts, rng = [], random.Random(task.name)
    for number, (kind, level, scene) in zip(range(150), task.scenes(task.pairs, "pretrain", 0), strict=False):
        example = task.example("pretrain", number, kind, level, scene)
        texts += [question_text(example, mode) for mode in MODES]
        texts += [f" {scene.answer} ", f" {', '.join(scene.steps)} ", f"The answer is {scene.answer}."]
        texts += [*scene_reading(scene, rng), *scene_lookups(scene, rng)]
    numbers = [f" {number} ({number}) {number}" for number in (*range(100), *range(100, 365, 5))]
    return [*texts, *numbers * 3, *(f" {place}" for place in PLACES * 9), "It is hard to tell."]  # often enough


def vocabulary(world: World) -> list[str]:
    """Every text of a world, for training the tokenizer."""
    rng = random.Random(world.name)
    texts = []
    for label in world.classes:
        drawings = world.drawings(label, "pretrain", 12)
        for drawing in drawings:
            facts = " and ".join(drawing.facts)
            texts += [label, f" {label}, {label},", f" {facts}.", f"The picture shows {named(label)}."]
        texts.append(f"The picture shows {named(world.coarse[label])}. <answer> {world.coarse[label]} </answer>")
        texts += [f"{question_about(drawings[0], world, rng).question}\n {mode.suffix}" for mode in MODES.values()]
    return texts
