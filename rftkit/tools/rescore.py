"""`rftkit rescore`: published predictions scored by our rules, so that a difference in results can be placed.

The authors' files (github.com/minglllli/CLS-RL, src/eval) are `{"accuracy": ..., "results": [...]}`; a bare list and
JSON lines are read too. An item has the completion, the right answer and perhaps whether they counted it right:
`model_output`, `ground_truth`, `correct`, `extracted_answer` for classification, `response`, `ground_truth`, `correct`,
`model_answer`, `options` for CV-Bench. `KEYS` has the names that are understood.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rftkit.common.errors import UserError
from rftkit.prompts import get_mode
from rftkit.rewards import score
from rftkit.tasks.example import Example
from rftkit.tasks.outside.real_sets import chosen_by_letter

KEYS = {
    "output": ("model_output", "response", "output", "completion"),
    "answer": ("ground_truth", "answer", "label"),
    "correct": ("correct", "is_correct"),
    "read": ("extracted_answer", "model_answer"),
    "choices": ("options", "choices"),
}
BLANK = re.compile(r"[ \t\r\n]*")
SHOWN = 3  # differences of each kind
HEADS = ("right", "accuracy", "agrees", "theirs only", "ours only", "read otherwise")


@dataclass(frozen=True)
class Prediction:
    """A completion, the example it answers, and how it was scored by those who published it (None: not told)."""

    output: str
    example: Example
    correct: bool | None
    read: str | None  # the answer that they read in the completion


@dataclass(frozen=True)
class RuleComparison:
    """One rule beside the published score: accuracies 0-1, and the numbers of the items that differ."""

    rule: str
    right: int
    theirs_only: tuple[int, ...]
    ours_only: tuple[int, ...]
    read_otherwise: int  # items in which we read another answer than they


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a file; UserError in one line if it is none."""
    try:
        content = _values(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read predictions from '{path}': {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read predictions from '{path}': it is not UTF-8 text; they must be JSON") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"cannot read predictions from '{path}': not valid JSON: {str(error)[:200]}") from None
    content = content[0] if len(content) == 1 else content
    if isinstance(content, dict) and "results" not in content and any(key in content for key in KEYS["output"]):
        content = [content]  # one line of JSON lines
    items = content.get("results") if isinstance(content, dict) else content
    if not isinstance(items, list) or not items:
        raise UserError(f"'{path}' holds no predictions: it must be a list, or have a list as 'results'")
    return [_prediction(item, f"{path.name} item {number}", number) for number, item in enumerate(items)]


def _values(text: str) -> list[Any]:
    """The JSON values that stand in a text one after the other, such as one a line."""
    found, place = [], BLANK.match(text).end()
    while place < len(text):
        value, place = json.JSONDecoder().raw_decode(text, place)
        found.append(value)
        place = BLANK.match(text, place).end()
    return found


def _prediction(item: Any, name: str, number: int) -> Prediction:
    item = item if isinstance(item, dict) else {}
    values = {kind: next((item[key] for key in keys if key in item), None) for kind, keys in KEYS.items()}
    for kind in ("output", "answer"):
        if not isinstance(values[kind], str):
            raise UserError(f"{name}: no text under any of {', '.join(KEYS[kind])}")
    if not values["answer"].strip():  # every completion would contain it
        raise UserError(f"{name}: the right answer is empty")
    answer, choices = values["answer"], values["choices"]
    if choices is not None and not (isinstance(choices, list) and all(isinstance(c, str) for c in choices)):
        raise UserError(f"{name}: the options must be a list of texts")
    correct = values["correct"]
    if correct not in (None, 0, 1):
        raise UserError(f"{name}: 'correct' must be 0, 1, true or false, not {correct!r:.40}")
    if choices:
        example = Example(str(number), (), "", chosen_by_letter(answer, choices), tuple(choices), "spatial")
    else:
        example = Example(str(number), (), "", answer, None, "classification")
    read = values["read"] if isinstance(values["read"], str) else None
    return Prediction(values["output"], example, None if correct is None else bool(correct), read)


def mode_of(predictions: list[Prediction]) -> str:
    """The mode that most completions look like."""
    modes = Counter(_mode_like(prediction.output) for prediction in predictions)
    return modes.most_common(1)[0][0]


def _mode_like(completion: str) -> str:
    if "<reason>" in completion:
        return "think_after_answer"
    return "thinking" if "<answer>" in completion else "no_thinking"


def rescore(predictions: list[Prediction], mode: str) -> list[RuleComparison]:
    """Each rule beside the published score: `strict`, `lenient`, `authors`; with options `choice_letter` too."""
    get_mode(mode)
    lettered = all(prediction.example.choices for prediction in predictions)
    rules = ["strict", "lenient", "authors"] + ["choice_letter"] * lettered
    return [_compared(predictions, mode, rule) for rule in rules]


def _compared(predictions: list[Prediction], mode: str, rule: str) -> RuleComparison:
    right = read_otherwise = 0
    theirs_only, ours_only = [], []
    for number, prediction in enumerate(tqdm(predictions, desc=rule, leave=False)):
        ours = score(prediction.output, prediction.example, mode, rule)
        is_right = bool(ours.accuracy)
        right += is_right
        if prediction.correct is not None and prediction.correct != is_right:
            (theirs_only if prediction.correct else ours_only).append(number)
        read_otherwise += prediction.read is not None and (ours.parsed or "").strip() != prediction.read.strip()
    return RuleComparison(rule, right, tuple(theirs_only), tuple(ours_only), read_otherwise)


def as_text(predictions: list[Prediction], mode: str, comparisons: list[RuleComparison]) -> str:
    """The table of comparisons, and for each rule a few items in which it differs from the published score."""
    told = [p.correct for p in predictions if p.correct is not None]
    theirs = f"{100 * sum(told) / len(told):.2f} % right as published" if told else "no published score"
    lines = [f"{len(predictions)} predictions, mode {mode}, {theirs}"]
    lines.append(f"{'rule':<15}" + "".join(f"{head:>16}" for head in HEADS))
    for rule in comparisons:
        theirs_only, ours_only = len(rule.theirs_only), len(rule.ours_only)
        accuracy = f"{100 * rule.right / len(predictions):.2f} %"
        agreed = len(told) - theirs_only - ours_only
        cells = (rule.right, accuracy, agreed, theirs_only, ours_only, rule.read_otherwise)
        lines.append(f"{rule.rule:<15}" + "".join(f"{cell:>16}" for cell in cells))
    for rule in comparisons:
        for kind, numbers in (("theirs only", rule.theirs_only), ("ours only", rule.ours_only)):
            for number in numbers[:SHOWN]:
                output, answer = predictions[number].output, predictions[number].example.answer
                lines.append(f"{rule.rule}, {kind}, item {number}: {output[-160:]!r} for {answer!r:.80}")
    return "\n".join(lines)


def rescore_file(path: Path, mode: str | None) -> str:
    """The text of `as_text` for a file; the mode is guessed from the completions' tags if it is None."""
    predictions = read_predictions(path)
    mode = mode or mode_of(predictions)
    return as_text(predictions, mode, rescore(predictions, mode))
