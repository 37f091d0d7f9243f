"""`rftkit rescore`: published predictions scored by our rules, so that a difference in results can be placed.

The authors' files (github.com/minglllli/CLS-RL, src/eval) are `{"accuracy": ..., "results": [...]}`; a bare list and
JSON lines are read too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from rftkit.common.errors import UserError
from rftkit.prompts import get_mode
from rftkit.rewards import score
from rftkit.tasks.example import Example
from rftkit.tasks.outside.real_sets import chosen_by_letter

# The names under which an item has a completion, the right answer, and so on.
KEYS = {
    "output": ("model_output", "response", "output", "completion"),
    "answer": ("ground_truth", "answer", "label"),
    "correct": ("correct", "is_correct"),
    "read": ("extracted_answer", "model_answer"),
    "choices": ("options", "choices"),
}
BLANK = re.compile(r"[ \t\r\n]*")
SHOWN = 3  # differences of each kind


@dataclass(frozen=True)
class Prediction:
    """A completion, the example it answers, and how it was scored by those who published it (None: not told)."""

    output: str
    example: Example
    correct: bool | None
    read: str | None  # the answer that they read in the completion


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a file; UserError in one line if it is none."""
    try:
        content = _values(path.read_text(encoding="utf-8-sig"))
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
    modes = Counter()
    for prediction in predictions:
        tagged = "thinking" if "<answer>" in prediction.output else "no_thinking"
        modes["think_after_answer" if "<reason>" in prediction.output else tagged] += 1
    return modes.most_common(1)[0][0]


def rescore(predictions: list[Prediction], mode: str) -> pd.DataFrame:
    """Each item by each rule beside the published score: `strict`, `lenient`, `authors`; with options `choice_letter`.

    Columns: rule, item (its number), and whether it is right, whether that agrees with those who published it or only
    one of both counts it right, and whether we read another answer in it than they.
    """
    get_mode(mode)
    rules = ["strict", "lenient", "authors"]
    if all(prediction.example.choices for prediction in predictions):
        rules.append("choice_letter")
    rows = []
    for rule in rules:
        for number, prediction in enumerate(tqdm(predictions, desc=rule, leave=False)):
            ours = score(prediction.output, prediction.example, mode, rule)
            right, read = bool(ours.accuracy), (ours.parsed or "").strip()
            row = {"rule": rule, "item": number, "right": right, "agrees": prediction.correct == right}
            row["theirs only"] = prediction.correct is True and not right
            row["ours only"] = prediction.correct is False and right
            row["read otherwise"] = prediction.read is not None and read != prediction.read.strip()
            rows.append(row)
    return pd.DataFrame(rows)


def rescore_file(path: Path, mode: str | None) -> str:
    """For people: sums of `rescore` by rule, and a few of the items in which a rule differs from the published score.

    The mode is guessed from the completions' tags if it is None.
    """
    predictions = read_predictions(path)
    mode = mode or mode_of(predictions)
    told = [p.correct for p in predictions if p.correct is not None]
    theirs = f"{100 * sum(told) / len(told):.2f} % right as published" if told else "no published score"
    items = rescore(predictions, mode)
    table = items.drop(columns="item").groupby("rule", sort=False, as_index=False).sum()
    table.insert(2, "accuracy", (100 * table["right"] / len(predictions)).map("{:.2f} %".format))
    lines = [f"{len(predictions)} predictions, mode {mode}, {theirs}", table.to_string(index=False)]
    for rule, of_rule in items.groupby("rule", sort=False):
        for kind in ("theirs only", "ours only"):
            for number in of_rule["item"][of_rule[kind]][:SHOWN]:
                output, answer = predictions[number].output, predictions[number].example.answer
                lines.append(f"{rule}, {kind}, item {number}: {output[-160:]!r} for {answer!r:.80}")
    return "\n".join(lines)
