"""`rftkit diagnose`: how a model answers before any training. Is its weakness knowledge, or how it speaks?"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from string import ascii_uppercase

import pandas as pd

from rftkit.evaluate import asked_parts, at_least_one, generate
from rftkit.models import load
from rftkit.prompts import MODES, get_mode, is_well_formed, parse_answer
from rftkit.rewards import score
from rftkit.tasks.example import Example
from rftkit.tasks.images import check_pictures
from rftkit.tasks.registry import open_set

HABITS = ("exact", "broken tags", "prose", "wrong", "vague")


@dataclass(frozen=True)
class Diagnosis:
    """A mode's answers: the share of each habit of answering (0-1), and a completion of each that occurs."""

    mode: str
    n: int
    shares: dict[str, float]
    samples: dict[str, str]


def habit(completion: str, example: Example, mode: str, rule: str) -> str:
    """How a completion answers.

    `broken tags`: the mode's tags are missing, unclosed or out of order. `exact`: right, as asked. `prose`: the right
    answer stands in a sentence. `wrong`: another choice, or another number. `vague`: nothing that could be an answer.
    """
    if not is_well_formed(completion, mode):
        return "broken tags"
    if score(completion, example, mode, rule).accuracy:
        return "exact"
    said = (parse_answer(completion, mode) or "").casefold()
    if _names(said, example.answer):
        return "prose"
    letters = ascii_uppercase[: len(example.choices or ())] if example.task != "classification" else ""
    others = [*(example.choices or ()), *letters]
    named = any(_names(said, other) for other in others) if others else re.search(r"\d", said)
    return "wrong" if named else "vague"


def _names(text: str, name: str) -> bool:
    """Whether a name stands in a text as whole words."""
    return re.search(rf"(?<!\w){re.escape(name.casefold())}(?!\w)", text) is not None


def diagnose(
    model: str,
    data: str,
    task: str | None = None,
    test_items: int = 200,
    modes: tuple[str, ...] = tuple(MODES),
    batch: int = 64,
    max_tokens: int | None = None,
    quantize: bool = False,
    device: str | None = None,
) -> list[Diagnosis]:
    """Greedy answers of an untrained model to a set's test items, by habit, in each mode.

    Args:
        test_items: items a part of the set.
        batch: items in memory at once.
        max_tokens: of a completion; None: 64 without thinking, 1024 with.
    """
    at_least_one(test_items=test_items, batch=batch, max_tokens=max_tokens)
    for mode in modes:
        get_mode(mode)
    asked = open_set(data, task)
    examples = [example for part in asked_parts(asked, None, test_items).values() for example in part]
    check_pictures(examples, whole=True)
    network, processor = load(model, quantize=quantize, device=device)
    found = []
    for mode in modes:
        tokens = max_tokens or (64 if mode == "no_thinking" else 1024)
        answers = generate(network, processor, examples, mode, max_tokens=tokens, batch_size=batch, progress=mode)
        texts = [answer.texts[0] for answer in answers]
        habits = [habit(text, example, mode, asked.rule) for text, example in zip(texts, examples, strict=True)]
        count = Counter(habits)
        shares = {name: count[name] / len(examples) for name in HABITS}
        found.append(Diagnosis(mode, len(examples), shares, dict(zip(habits, texts, strict=True))))
    return found


def as_text(diagnoses: list[Diagnosis]) -> str:
    """A table of shares in per cent, and one completion of each habit and mode."""
    shares = pd.DataFrame([d.shares for d in diagnoses]).map("{:.1%}".format)
    shares.insert(0, "items", [d.n for d in diagnoses])
    lines = [shares.set_axis([d.mode for d in diagnoses]).to_string()]
    for d in diagnoses:
        lines.append(f"\n{d.mode}")
        lines += [f"  {name}: {d.samples[name][:160]!r}" for name in HABITS if name in d.samples]
    return "\n".join(lines)
