"""What `nano-agent` is pre-trained on: the pictures of GTR's environments, readings of them, imperfect demonstrations.

It starts weak, as the paper's models after SFT do. Three thoughts in ten are wrong and three vague, the action follows
from the thought, and one reply in twenty is broken JSON. Of Points24 it is shown right plans to the end for some
multisets of cards (`is_known`), and deals of the test part not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator

from rftkit.common.processor import ImageTextProcessor
from rftkit.gtr.replies import RULES, Reply, conversation, written
from rftkit.gtr.rules import BLANK, GAMES, LINE_END, NUMBERS, TEST_SHARE, State, deal, pick, share_of
from rftkit.gtr.states import some_plan, some_state
from rftkit.gtr.thoughts import correct, line_thought, plan_thought
from rftkit.gtr.worlds import marks, picture
from rftkit.nano.build import IMAGE_TOKENS, build_processor
from rftkit.nano.corpus import PLACED, Recipe, collate, patches
from rftkit.nano.pretrain import pretrain
from rftkit.nano.sentences import PLACES
from rftkit.tasks.worlds import SIDE

TAUGHT = ("numberline", "ezpoints", "points24")
POOL = {"numberline": 1000, "ezpoints": 2000, "points24": 3000, "known": 3000}  # states, drawn once
KNOWN_SHARE = 0.06  # of all multisets: those whose right plans are shown
THOUGHTS = {"right": 0.4, "wrong": 0.3, "vague": 0.3}  # of demonstrations, but for those of known multisets
BROKEN = 0.05  # share of demonstrations that are no JSON
VAGUE = ("I make a move", "one more step", "let me go on")
SIGNS = ("+", "-", "*", "/", "(", ")", "=")
VALUES = {"A": "1", "J": "10", "Q": "10", "K": "10"}  # what a face counts
# Each is one token: prompts and replies are short, and a number or sign is read and written whole.
SINGLE = (
    *(RULES[name] + (" The formula so far: " if GAMES[name].target else "") for name in TAUGHT),
    "0", *NUMBERS, "12", "24", *SIGNS, BLANK, *PLACES,
    '{"current number": "', '", "target number": "', '{"cards": [', ", ", '], "formula": "', '", "thoughts": "',
    '", ', '"action": "', '"}',
    " gives ", " is ", ", next ", ", so now ", "no way to ", "from ", " go ", " to ", " is below ", " is above ",
    ", so ", "up", "down", *VAGUE,
)  # fmt: skip


@dataclass(frozen=True)
class AgentRecipe(Recipe):
    """As `corpus.Recipe`; `drill_steps` are the first of the language steps, in which readings give way."""

    agent: bool = True  # so that its card is an agent's
    vague: float = THOUGHTS["vague"]
    vision_steps: int = 110
    language_steps: int = 700
    drill_steps: int = 300
    manner_steps: int = 0
    vision_batch: int = 64
    language_batch: int = 48


def pretrain_agent(out: Path, **options) -> str:
    """Pre-train an agent's start model into `out`; `options` are those fields of `AgentRecipe` that are not None."""
    given = {name: value for name, value in options.items() if value is not None}
    return str(pretrain(AgentRecipe(**given), out, AgentCorpus, agent_processor))


def agent_processor() -> ImageTextProcessor:
    """The kit's processor with a vocabulary of its own: the kit's tokens would make a reply three times as long."""
    return build_processor([*SINGLE, "user assistant"], SINGLE)


def is_known(cards: tuple[int, ...]) -> bool:
    """Whether right plans of a multiset are shown to the start model."""
    return TEST_SHARE <= share_of(cards) < TEST_SHARE + KNOWN_SHARE


class AgentCorpus:
    """States with their pictures in memory, and batches about them. A step's batch depends on seed and step alone."""

    before_words = ""

    def __init__(self, recipe: AgentRecipe, processor) -> None:
        self.recipe, self.processor = recipe, processor
        rng = np.random.default_rng([recipe.seed, 1])
        self.states = [shown_state(name, rng) for name, count in POOL.items() for _ in range(count)]
        shown = np.stack([np.asarray(picture(state, SIDE)) for state in self.states])
        self.pictures = torch.from_numpy(shown).permute(0, 3, 1, 2).contiguous()  # [N, 3, SIDE, SIDE] uint8
        names = ["0", *NUMBERS, *SIGNS[:-1]]
        self.words, self.first_place = [*names, *PLACES], len(names)

    def word_batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `Corpus.word_batch`: what is written on a picture goes with the token it stands on."""
        rng = np.random.default_rng([self.recipe.seed, 2, step])
        rows = rng.integers(len(self.states), size=self.recipe.vision_batch)
        spots, words, weights = [], [], []  # of an image token: which of all, what it says, how much it counts
        for place, row in enumerate(rows):
            written_there = [
                (VALUES.get(word, word), column + 4 * line) for word, column, line in marks(self.states[row])
            ]
            placed = rng.choice(IMAGE_TOKENS, PLACED, replace=False).tolist()
            spots += [place * IMAGE_TOKENS + token for token in (*(token for _, token in written_there), *placed)]
            words += [self.words.index(word) for word, _ in written_there] + [self.first_place + p for p in placed]
            weights += [1 / len(written_there)] * len(written_there) + [1 / PLACED] * PLACED
        means = torch.nn.functional.one_hot(torch.tensor(spots), len(rows) * IMAGE_TOKENS).float()
        return patches(self.pictures[rows]), means, torch.tensor(words), torch.tensor(weights)

    def text_batches(self, step: int) -> list[tuple[float, dict[str, torch.Tensor]]]:
        """A batch of readings and demonstrations, an environment a part, each with its share of the answer tokens."""
        rng = np.random.default_rng([self.recipe.seed, 3, step])
        rows = rng.integers(len(self.states), size=self.recipe.language_batch)
        drilled = 0.9 * max(0.0, 1 - step / self.recipe.drill_steps)
        of_game: dict[str, list[tuple[int, list[int], list[int]]]] = {}
        tokenize = partial(self.processor.tokenizer, add_special_tokens=False)
        for row in rows.tolist():
            state = self.states[row]
            text = reading(state) if rng.random() < drilled else demonstration(state, rng)
            answer = tokenize(text + self.processor.tokenizer.eos_token)["input_ids"]
            prompt = tokenize(prompt_of(self.processor, state))["input_ids"]
            of_game.setdefault(state.game.name, []).append((row, prompt, answer))
        total = sum(len(answer) for part in of_game.values() for _, _, answer in part)
        return [
            (
                sum(len(answer) for _, _, answer in part) / total,
                collate(self.processor, [pair for _, *pair in part], self.pictures[[row for row, *_ in part]]),
            )
            for part in of_game.values()
        ]


def prompt_of(processor, state: State) -> str:
    """A prompt as the processor would write it around a picture of the bundled size."""
    text = processor.apply_chat_template(conversation(state), add_generation_prompt=True)
    return text.replace(processor.image_token, processor.image_token * IMAGE_TOKENS)


def shown_state(name: str, rng: Generator) -> State:
    """A state to be shown; `known`: a deal of Points24 that is to be known, and the beginning of its shortest plan."""
    if name == "known":
        while True:
            state = deal(GAMES["points24"], rng, "train")
            if is_known(state.cards) and (plans := state.plans()):
                return replace(state, formula=plans[0][: rng.integers(len(plans[0]) + 1)])
    return some_state(GAMES[name], rng, "train")


def reading(state: State) -> str:
    """A drill: what is on the table, and nothing more."""
    text = written(state.game, Reply(tuple(map(str, state.cards)), "".join(state.formula), "", ""))
    return text[: text.index('", "thoughts"')] + '"}'


def demonstration(state: State, rng: Generator) -> str:
    """One imperfect demonstration: a right, wrong or vague thought, and the action that follows from it."""
    known = state.game.name == "points24" and is_known(state.cards) and not state.is_hopeless
    kind = "right" if known else str(rng.choice(list(THOUGHTS), p=list(THOUGHTS.values())))
    reply = correct(state, rng)
    if kind == "vague":
        reply = replace(reply, thoughts=pick(rng, VAGUE), action=pick(rng, state.game.actions))
    elif kind == "wrong":
        reply = _wrong_line(state, rng) if state.game.name == "numberline" else _wrong_plan(state, rng)
    text = written(state.game, reply)
    if rng.random() < BROKEN:
        return text[:-2] if rng.random() < 0.5 else text[: text.index('", "action')] + '"}'
    return text


def _wrong_line(state: State, rng: Generator) -> Reply:
    """Mostly two numbers misread, else the wrong way between the right ones."""
    current, target = state.cards
    up = current > target
    if rng.random() < 0.7:
        while current == target or (current < target) != up:
            current, target = (int(number) for number in rng.integers(LINE_END + 1, size=2))
    return Reply((str(current), str(target)), "", *line_thought(current, target, up, rng))


def _wrong_plan(state: State, rng: Generator) -> Reply:
    """A plan of any value, and in half of the cases a card misread."""
    seen = state
    if rng.random() < 0.5:
        cards = list(state.cards)
        cards[rng.integers(len(cards))] = int(rng.integers(1, 11))
        seen = replace(state, cards=tuple(cards))
    thought, action = plan_thought(state, some_plan(seen, rng), rng)
    return Reply(tuple(map(str, seen.cards)), "".join(state.formula), thought, action)
