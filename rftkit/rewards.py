"""One score for training and evaluation: they cannot disagree about what is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from string import ascii_uppercase
from typing import Any
from unicodedata import normalize

from rftkit.common.errors import UserError
from rftkit.common.mathematics.answers import same_answer
from rftkit.common.mathematics.math_verify import math_equal
from rftkit.common.mathematics.notation import plain, same_text
from rftkit.prompts import completion_text, get_mode, is_well_formed, parse_answer, thought_of
from rftkit.tasks.example import Example

Completion = str | list[dict[str, Any]]


@dataclass(frozen=True)
class Score:
    """What a completion is worth: the parsed answer (None if there is none), format and accuracy as 0 or 1."""

    parsed: str | None
    format: float
    accuracy: float


def _strict(parsed: str, text: str, example: Example, mode: str) -> bool:
    given, answer = (normalize("NFC", text).strip().casefold() for text in (parsed, example.answer))
    return given == answer


def _lenient(parsed: str, text: str, example: Example, mode: str) -> bool:
    label = example.answer.strip().lower()
    return label in parsed.lower() or label.replace("_", " ") in parsed.lower()


def _authors(parsed: str, text: str, example: Example, mode: str) -> bool:
    """Reproduces the released reward, its faults included: see the StanfordCars case in tests/test_rewards.py."""
    if not get_mode(mode).tags:
        return parsed == example.answer  # case-sensitive, the completion not stripped
    solution = f"<answer> {example.answer} </answer>"
    return math_equal(solution, text) or parsed.lower() == example.answer.strip().lower()


# A choice by its letter alone (B, (b), B.), or by letter and text, where "A red star" is no letter: (b) red star.
LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
LETTER_AND_TEXT = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[).:])\s*(\S.*)", re.DOTALL)
NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:/\d+)?")
UNIT = re.compile(r"\d\s*([A-Za-z°%]+)\W*")  # behind the number that a choice ends with


def _choice_letter(parsed: str, text: str, example: Example, mode: str) -> bool:
    """The choice by its text or value, its letter, or both. A text that is a choice is never read as a letter."""
    choices, given = example.choices or (), plain(parsed)
    if same_text(given, example.answer):
        return bool(given)
    if any(same_text(given, choice) for choice in choices):
        return False
    if found := LETTER.fullmatch(given):
        letter, words = found[1], None
    elif found := LETTER_AND_TEXT.fullmatch(given):
        letter, words = found[1] or found[2], found[3]
    else:
        return _values(given, example) == {example.answer}
    chosen = dict(zip(ascii_uppercase, choices, strict=False)).get(letter.upper())
    if chosen is None or not same_text(chosen, example.answer):
        return False
    return words is None or same_text(words, chosen) or _values(words, example) == {chosen}


def _values(given: str, example: Example) -> set[str]:
    """The choices that have this value. A unit that all of them bear is the question's."""
    choices = example.choices or ()
    ends = {found[1] if (found := UNIT.search(choice[-20:])) else "" for choice in choices}
    unit = example.unit or (ends.pop() if len(ends) == 1 else "")
    return {choice for choice in choices if same_answer(choice, given, example.question, unit)}


def _math(parsed: str, text: str, example: Example, mode: str) -> bool:
    """The same value as the right answer: a list of guesses, an unsolved sum, a sentence is none.

    Where there are choices, as in half of MathVista, `choice_letter` decides.
    """
    if example.choices:
        return _choice_letter(parsed, text, example, mode)
    return same_answer(example.answer, parsed, example.question, example.unit, example.precision)


# What scoring reads of an example, and rewards in columns of a training set.
READ = ("question", "answer", "choices", "unit", "precision")

# A rule decides whether a parsed answer is right.
RULES: dict[str, Callable[[str, str, Example, str], bool]] = {
    "strict": _strict,
    "lenient": _lenient,
    "authors": _authors,
    "choice_letter": _choice_letter,
    "math": _math,
}


def get_rule(name: str) -> Callable[[str, str, Example, str], bool]:
    """The rule called `name`; UserError if there is none."""
    if name not in RULES:
        raise UserError(f"unknown scoring rule '{name}': choose one of {', '.join(RULES)}")
    return RULES[name]


def score(completion: Completion, example: Example, mode: str, rule: str = "strict") -> Score:
    """Judge one completion of one example.

    Args:
        completion: a string or TRL's list of messages.
        mode: the mode the model was told to respond in.
        rule: `strict` (the paper trains on it), `lenient` (the paper's evaluation: the label is a substring),
            `authors` (the released training code), `choice_letter` or `math`.
    """
    is_right = get_rule(rule)
    text = completion_text(completion)
    parsed = parse_answer(text, mode, rule)
    correct = parsed is not None and is_right(parsed, text, example, mode)
    return Score(parsed, float(is_well_formed(text, mode, rule)), float(correct))


def agrees(completion: Completion, example: Example, mode: str) -> bool | None:
    """Whether the thought of a completion ends at its answer: the last choice, or the last number, that it names.

    None where there is no thought or no answer, or the thought names neither; and where the true steps of the example
    end elsewhere too, so that nothing follows from it (paper, section 5: inconsistent pairs).
    """
    text = completion_text(completion)
    parsed, thought = parse_answer(text, mode), thought_of(text)
    if parsed is None or not thought:
        return None
    if example.steps and not _ends_at(", ".join(example.steps), example.answer, example, mode):
        return None
    return _ends_at(thought, parsed, example, mode)


def _ends_at(thought: str, answer: str, example: Example, mode: str) -> bool | None:
    """Whether a thought names an answer last, by the rules `choice_letter` and `math`; None if it names none."""
    if example.choices:
        named = [(place, len(choice), choice) for number, choice in enumerate(example.choices)
                 for place in _places(thought, choice, ascii_uppercase[number : number + 1])]  # fmt: skip
        # Of choices that end at one place the longest is meant: "red star", not "star".
        return _choice_letter(answer, answer, replace(example, answer=max(named)[2]), mode) if named else None
    numbers = NUMBER.findall(thought)
    return _math(answer, answer, replace(example, answer=numbers[-1]), mode) if numbers else None


def _places(thought: str, choice: str, letter: str) -> list[int]:
    """Where a choice ends in a thought: by its name, in whole words, or its letter, if it has one, in brackets."""
    name = rf"(?<!\w){re.escape(choice.strip())}(?!\w)" + (rf"|\({letter}\)" if letter else "")
    return [found.end() for found in re.finditer(name, thought, re.IGNORECASE)]


def reward_functions(
    mode: str, rule: str = "strict", kind: str = "mode", seed: int = 0
) -> list[Callable[..., list[float]]]:
    """The rewards of a run as TRL callables, which read the dataset's columns `READ`.

    Args:
        kind: `mode`: accuracy, and format where the mode has a format (paper, section 3); `accuracy` or `format`
            alone; `random`: a coin, whatever the completion says (Spurious Rewards, arXiv 2506.10947).
        seed: of the coins.
    """

    def scores(completions: list[Completion], columns: dict[str, list]) -> list[Score]:
        there = {"question": [""] * len(completions)} | {name: columns[name] for name in READ if columns.get(name)}
        examples = [Example("", (), **dict(zip(there, row, strict=True))) for row in zip(*there.values(), strict=True)]
        return [score(text, example, mode, rule) for text, example in zip(completions, examples, strict=True)]

    def accuracy_reward(completions: list[Completion], **columns: Any) -> list[float]:
        return [s.accuracy for s in scores(completions, columns)]

    def format_reward(completions: list[Completion], **columns: Any) -> list[float]:
        return [s.format for s in scores(completions, columns)]

    def random_reward(completions: list[Completion], trainer_state: Any, **_: Any) -> list[float]:
        coins = Random(f"{seed}/{trainer_state.global_step}")  # a run that goes on draws what it would have drawn
        return [float(coins.random() < 0.5) for _ in completions]

    alone = {"accuracy": [accuracy_reward], "format": [format_reward], "random": [random_reward]}
    return alone.get(kind) or [accuracy_reward, *([format_reward] if get_mode(mode).tags else [])]
