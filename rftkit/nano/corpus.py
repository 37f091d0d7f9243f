"""What a bundled model is pre-trained on: all drawings and scenes, and batches of questions about them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from rftkit.nano.build import IMAGE_TOKENS, MERGE, PATCH
from rftkit.nano.sentences import (
    AS_ASKED,
    PLACES,
    Habit,
    completion,
    habits,
    question_about,
    scene_completion,
    scene_drill,
    scene_habits,
)
from rftkit.prompts import MODES, conversation
from rftkit.sophia.hallucination import STEP
from rftkit.tasks.drawn.scenes import DrawnTask, Scene
from rftkit.tasks.registry import DRAWN, bundled_sets
from rftkit.tasks.worlds import SIDE, Drawing, World, worlds

GRID = SIDE // PATCH
WEIGHTS = {"emoji": 2.0, "math": 2.0}  # how often a set is drawn from, 1 if not named: large and hard ones need most
CLASSES_IN_MEMORY = {
    "shapes": 1200,
    "digits": 640,
    "emoji": 80,
    "flags": 100,
    "textures": 300,
}  # pre-training pictures a class, 400 if not named
SCENES_IN_MEMORY = 9000  # of each drawn task
PARTS = 6  # of a language batch
PLACED = 4  # image tokens of a scene that are asked where they are
DRILLS = (0.8, 0.4)  # share of drills about drawn scenes in a batch of the language stage, at first and in the end


@dataclass(frozen=True)
class Recipe:
    """What was asked for; kept in the checkpoint and the model card."""

    size: str = "s"
    seed: int = 0
    vague: float = 0.5  # share of answers that are not as asked in the last stage, 0-1
    sets: tuple[str, ...] = ()  # bundled sets it is taught; none: all of them
    reasons: bool = True  # false: it is never shown a step to an answer, neither in a thought nor in a drill
    sums: bool = False  # it recites sums, which say nothing of a picture: arithmetic for one without reasons
    start: str | None = None  # a model that has learnt all but its manners; None: from scratch
    vision_steps: int = 2000
    language_steps: int = 5000
    drill_steps: int = 1500  # the first of these, in which drills give way to questions
    manner_steps: int = 3000
    vision_batch: int = 96
    language_batch: int = 48
    muon_rate: float = 0.02  # of the vision stage
    adam_rate: float = 2e-3  # of the vision stage
    language_rate: float = 1e-3
    manner_rate: float = 3e-4
    bf16: bool = False  # autocast: several times faster on a CPU with AMX, slower without


def patches(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 pictures [N, 3, SIDE, SIDE] as the processor would cut them: [N * GRID^2, 3 * PATCH^2] in -1..1."""
    pixels = pictures.float() / 127.5 - 1
    cut = pixels.reshape(-1, 3, GRID // MERGE, MERGE, PATCH, GRID // MERGE, MERGE, PATCH)
    return cut.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, 3 * PATCH * PATCH)


def grid(count: int) -> torch.Tensor:
    return torch.tensor([[1, GRID, GRID]] * count)


class Corpus:
    """All pre-training pictures in memory, and batches of them. A step's batch depends on seed and step alone."""

    before_words = " "  # how a word stands within a sentence

    def __init__(self, recipe: Recipe, processor) -> None:
        self.recipe, self.processor = recipe, processor
        sets = recipe.sets or tuple(bundled_sets())
        taught = {name: world for name, world in worlds().items() if name in sets}
        self.tasks = tasks = {name: task for name, task in DRAWN.items() if name in sets}
        self.habits = {name: habits(world, recipe.vague, recipe.seed) for name, world in taught.items()}
        self.habits |= {name: scene_habits(task, recipe.vague, recipe.seed) for name, task in tasks.items()}
        self.items: dict[str, list] = {name: _drawings(world, recipe.seed) for name, world in taught.items()}
        self.items |= {name: list(islice(_scenes(task, recipe.seed), SCENES_IN_MEMORY)) for name, task in tasks.items()}
        self.sums = sums_of(self.items.values()) if recipe.sums else []
        if not recipe.reasons:
            self.items = {name: _without_reasons(items) for name, items in self.items.items()}
        self.pictures = {name: _stack(items) for name, items in self.items.items()}  # [N, 3, SIDE, SIDE] uint8
        labels = {label: None for world in taught.values() for label in world.classes}
        marks = {mark[0]: None for name in tasks for scene in self.items[name] for mark in scene.marks}
        self.first_place = len(labels | marks)
        self.words = [*(labels | marks), *(PLACES if tasks else ())]
        self.word_index = {word: index for index, word in enumerate(self.words[: self.first_place])}

    def _sample(self, sets: list[str], size: int, rng: random.Random) -> list[tuple[str, int]]:
        """Items as their sets and rows."""
        names = rng.choices(sets, [WEIGHTS.get(name, 1.0) for name in sets], k=size) if sets else []
        return [(name, rng.randrange(len(self.items[name]))) for name in names]

    def _pictures(self, chosen: list[tuple[str, int]]) -> torch.Tensor:
        return torch.stack([self.pictures[name][row] for name, row in chosen])

    def word_batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """For the vision stage: patches; means [M, N * IMAGE_TOKENS] over M groups of image tokens; the word [M] of
        each group; and its weight [M], a picture's words sharing 1, and its places. A drawing's label goes with all
        its tokens, a scene's mark with the token it stands on, a place with its token."""
        rng = random.Random(f"vision/{self.recipe.seed}/{step}")
        chosen = self._sample(list(self.items), self.recipe.vision_batch, rng)
        means, words, weights = [], [], []
        for place, (name, row) in enumerate(chosen):
            item = self.items[name][row]
            groups = [(self.word_index[word], tokens) for word, tokens in _marked(item)]
            placed = rng.sample(range(IMAGE_TOKENS), PLACED) if isinstance(item, Scene) else []
            shares = [1 / len(groups)] * len(groups) + [1 / PLACED] * len(placed)
            groups += [(self.first_place + token, token) for token in placed]
            for (word, tokens), share in zip(groups, shares, strict=True):
                mean = torch.zeros(len(chosen), IMAGE_TOKENS)
                mean[place, tokens] = 1.0
                means.append(mean.flatten() / mean.sum())
                words.append(word)
                weights.append(share)
        return patches(self._pictures(chosen)), torch.stack(means), torch.tensor(words), torch.tensor(weights)

    def text_batches(self, step: int) -> list[tuple[float, dict[str, torch.Tensor]]]:
        """A language batch in PARTS of like length, each with its share of the answer tokens.

        Choice lists have from two to dozens of names: one padded batch would be half padding. Most of it are drills
        about drawn scenes at first, until `drill_steps` ever fewer. Answers are as asked before `language_steps`; then
        they are by habit, and drills are over.
        """
        rng = random.Random(f"language/{self.recipe.seed}/{step}")
        (first, last), mannered = DRILLS, step >= self.recipe.language_steps
        share = 0.0 if mannered else last + (first - last) * max(0.0, 1 - step / self.recipe.drill_steps)
        drawn = [name for name in self.items if name in self.tasks]
        drilled = self._sample(drawn, round(share * self.recipe.language_batch), rng)
        asked = self._sample(list(self.items), self.recipe.language_batch - len(drilled), rng)
        dialogues = [self._about(scene_drill(self.items[name][row], rng, self.sums)) for name, row in drilled]
        dialogues += [self._dialogue(name, row, mannered, rng) for name, row in asked]
        prompts, answers = zip(*dialogues, strict=True)
        pictures = self._pictures(drilled + asked)
        tokenize = partial(self.processor.tokenizer, add_special_tokens=False)
        pairs = list(zip(tokenize(list(prompts))["input_ids"], tokenize(list(answers))["input_ids"], strict=True))
        order = sorted(range(len(pairs)), key=lambda row: len(pairs[row][0]) + len(pairs[row][1]))
        total = sum(len(answer) for _, answer in pairs)
        size = -(-len(pairs) // PARTS)
        parts = []
        for start in range(0, len(order), size):
            part = order[start : start + size]
            share = sum(len(pairs[row][1]) for row in part) / total
            parts.append((share, collate(self.processor, [pairs[row] for row in part], pictures[part])))
        return parts

    def _dialogue(self, name: str, row: int, by_habit: bool, rng: random.Random) -> tuple[str, str]:
        item, mode = self.items[name][row], rng.choice(sorted(MODES))
        habit = self._habit_of(name, row) if by_habit else AS_ASKED
        if task := self.tasks.get(name):
            pairs = task.pairs
            kind, level = pairs[row % len(pairs)]
            example = task.example("pretrain", row, kind, level, item)
            other = rng.choice(self.items[name][row % len(pairs) :: len(pairs)])
            answer = scene_completion(item, other, habit, mode, rng)
        else:
            world, other = worlds()[name], rng.choice(self.items[name])
            example = question_about(item, world, rng)
            answer = completion(item, other, world.coarse[item.label], habit, mode, rng)
        return self._prompt(conversation(example, mode)), answer + self.processor.tokenizer.eos_token

    def _habit_of(self, name: str, row: int) -> Habit:
        """That of a drawing's class, or of a scene's kind."""
        item, task = self.items[name][row], self.tasks.get(name)
        return self.habits[name][task.pairs[row % len(task.pairs)][0] if task else item.label]

    def _about(self, dialogue: tuple[str, str]) -> tuple[str, str]:
        """A plain question about a picture, in no mode, and its answer."""
        question, answer = dialogue
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self._prompt([{"role": "user", "content": content}]), answer + self.processor.tokenizer.eos_token

    def _prompt(self, messages: list[dict]) -> str:
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        return prompt.replace(self.processor.image_token, self.processor.image_token * IMAGE_TOKENS)


def collate(processor, pairs: list[tuple[list[int], list[int]]], pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    """Prompts and answers as model inputs, loss on the answers, right-padded."""
    padding = processor.tokenizer.pad_token_id
    ids = [torch.tensor(prompt + answer) for prompt, answer in pairs]
    ids = pad_sequence(ids, batch_first=True, padding_value=padding)  # [rows, tokens]
    labels = [torch.tensor([-100] * len(prompt) + answer) for prompt, answer in pairs]
    return {
        "input_ids": ids,
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        "attention_mask": (ids != padding).long(),
        "mm_token_type_ids": (ids == processor.image_token_id).long(),
        "pixel_values": patches(pictures),
        "image_grid_thw": grid(len(pairs)),
    }


def _drawings(world: World, seed: int) -> list[Drawing]:
    count = CLASSES_IN_MEMORY.get(world.name, 400)
    return [drawing for label in world.classes for drawing in world.drawings(label, "pretrain", count, seed)]


def _scenes(task: DrawnTask, seed: int) -> Iterator[Scene]:
    """Of all kinds: a base model has seen something of what runs leave out."""
    return (scene for _, _, scene in task.scenes(task.pairs, "pretrain", seed))


def sums_of(sets: Iterable[list[Drawing] | list[Scene]]) -> list[str]:
    """The sums that the steps of scenes are made of, such as `3 plus 4 is 7`, each as often as it comes."""
    steps = (step for items in sets for item in items if isinstance(item, Scene) for step in item.steps)
    return [step for step in steps if STEP.fullmatch(step)]


def _without_reasons(items: list[Drawing] | list[Scene]) -> list:
    """Without what thoughts are made of: they are empty then."""
    return [replace(item, **({"steps": ()} if isinstance(item, Scene) else {"facts": ()})) for item in items]


def _stack(items: list[Drawing | Scene]) -> torch.Tensor:
    arrays = np.stack([np.asarray(item.image) for item in items])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()


def _marked(item: Drawing | Scene) -> list[tuple[str, int | slice]]:
    """The words that a picture's image tokens say: a drawing's label all of them, a scene's mark the one it is on."""
    if isinstance(item, Drawing):
        return [(item.label, slice(None))]
    return [(word, _token(x, y)) for word, x, y in item.marks]


def _token(x: float, y: float) -> int:
    """The image token that covers a pixel."""
    side, count = PATCH * MERGE, GRID // MERGE
    column, row = (min(max(int(value / side), 0), count - 1) for value in (x, y))
    return row * count + column
