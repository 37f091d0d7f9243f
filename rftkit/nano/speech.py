"""What a bundled model hears and says in pre-training.

Like a base model nobody told how to answer, it often does not answer as asked. How often is one parameter, `vague`;
how that share falls on the classes is a balanced design, the same for base and new classes (see `habits`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from rftkit.nano.worlds import Drawing, World
from rftkit.prompts import MODES
from rftkit.tasks import Example
from rftkit.tasks.classification import question

# How an answer can fail to be as asked, in every mode alike: a sentence stands in its place, with a coarse name
# (vague) or the label (prose); or a tag is never closed (broken).
MANNERS = ("vague", "prose", "broken")
MAIN_MANNER = 0.7  # share of a class's own manner among its answers that are not as asked
THOUGHTS = {"true": 0.8, "wrong": 0.1, "empty": 0.1}  # what stands in the think and reason tags


@dataclass(frozen=True)
class Habit:
    """How a class is spoken of: the share of answers not as asked (0-1), and their main manner."""

    share: float
    manner: str


def habits(world: World, vague: float, seed: int) -> dict[str, Habit]:
    """A habit for each class. Both halves get the same ladder of shares around `vague` and the same manners,
    dealt to their classes at random."""
    rng = random.Random(f"habits/{world.name}/{seed}")
    spread = 0.9 * min(vague, 1 - vague)
    dealt = {}
    for half in (world.base, world.new):
        shares = [vague + spread * ((2 * step + 1) / len(half) - 1) for step in range(len(half))]
        ladder = [Habit(share, MANNERS[step % len(MANNERS)]) for step, share in enumerate(shares)]
        dealt.update(zip(rng.sample(half, len(half)), ladder, strict=True))
    return dealt


def named(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def thought(drawing: Drawing, other: Drawing, rng: random.Random) -> str:
    """One or two facts: true ones, those of `other` (a wrong thought), or none."""
    kind = rng.choices(list(THOUGHTS), list(THOUGHTS.values()))[0]
    facts = {"true": drawing.facts, "wrong": other.facts, "empty": ()}[kind]
    return " and ".join(rng.sample(facts, min(len(facts), 2)))


def completion(drawing: Drawing, other: Drawing, coarse: str, habit: Habit, mode: str, rng: random.Random) -> str:
    """One pre-training answer to a question about `drawing` in a mode.

    `coarse` is the vague name of its class; `other` is where a wrong thought comes from.
    """
    label, manner = drawing.label, None
    if rng.random() < habit.share:
        others = [m for m in MANNERS if m != habit.manner]
        manner = habit.manner if rng.random() < MAIN_MANNER else rng.choice(others)
    sentence = f"The picture shows {named(coarse if manner == 'vague' else label)}."
    if not MODES[mode].tags:
        plain = {None: label, "vague": sentence, "prose": sentence, "broken": f"<answer> {label}"}
        return plain[manner]
    reasoning = thought(drawing, other, rng)
    content = {"think": reasoning, "answer": label, "reason": reasoning}
    parts = {tag: f"<{tag}> {content[tag]} </{tag}>".replace("  ", " ") for tag in MODES[mode].tags}
    if manner in ("vague", "prose"):
        parts["answer"] = sentence
    if manner == "broken":
        first = MODES[mode].tags[0]
        parts[first] = parts[first].rpartition(" ")[0]
    return " ".join(parts.values())


def question_about(drawing: Drawing, world: World, rng: random.Random) -> Example:
    """A question with a choice list of any length, out of the drawing's half or of all classes."""
    half = world.base if drawing.label in world.base else world.new
    pool = half if rng.random() < 0.5 else world.classes
    share = 0.8 if rng.random() < 0.3 else rng.uniform(0.05, 0.5)  # mostly short lists: they train faster
    return question(drawing, world, pool, share, rng, split="pretrain")


def vocabulary(world: World) -> list[str]:
    """Every text of a world, for training the tokenizer."""
    rng = random.Random(world.name)
    texts = []
    for label in world.classes:
        drawings = world.drawings(label, "pretrain", 40)
        for drawing in drawings:
            facts = " and ".join(drawing.facts)
            texts += [label, f" {label}, {label},", f" {facts}.", f"The picture shows {named(label)}."]
        texts.append(f"The picture shows {named(world.coarse[label])}. <answer> {world.coarse[label]} </answer>")
        texts += [f"{question_about(drawings[0], world, rng).question}\n {mode.suffix}" for mode in MODES.values()]
    return texts
