"""`rftkit rescore`: published predictions scored by our rules, so that a difference in results can be placed.

The authors' files (github.com/minglllli/CLS-RL, src/eval) are `{"accuracy": ..., "results": [...]}`; a bare list and
JSON lines are read too.
"""

from __future__ import annotations

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
from rftkit.tasks.outside.json_files import json_values
from rftkit.tasks.outside.real_sets import as_text, chosen_by_letter
from rftkit.tasks.outside.rows import asked_in

# The names under which an item has a completion, the right answer, and so on.
KEYS = {
    "output": ("model_output", "response", "output", "completion"),
    "answer": ("ground_truth", "answer", "label"),
    "correct": ("correct", "is_correct"),
    "read": ("extracted_answer", "model_answer"),
    "choices": ("options", "choices"),
}
OF_A_KIND = ("choice_letter", "math")  # rules that only items of their kind are scored by
VALUE, WORD = re.compile(r"[\d\\^=]"), re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")  # "2012 BMW" is a class
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
        content = json_values(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"cannot read predictions from '{path}': it is not UTF-8 text; they must be JSON") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"cannot read predictions from '{path}': not valid JSON: {str(error)[:200]}; they must be "
            "a list, or an object a line"
        ) from None
    content = content[0] if len(content) == 1 else content
    if isinstance(content, dict) and "results" not in content and any(key in content for key in KEYS["output"]):
        content = [content]  # one line of JSON lines
    items = content.get("results") if isinstance(content, dict) else content
    if not isinstance(items, list) or not items:
        raise UserError(f"'{path}' holds no predictions: it must be a list, or have a list as 'results'")
    return [_prediction(item, f"{path.name} item {number}", number) for number, item in enumerate(items)]


def _prediction(item: Any, name: str, number: int) -> Prediction:
    item = item if isinstance(item, dict) else {}
    values = {kind: next((item[key] for key in keys if key in item), None) for kind, keys in KEYS.items()}
    for kind in ("output", "answer"):
        values[kind] = as_text(values[kind])
        if not isinstance(values[kind], str):
            null = any(key in item for key in KEYS[kind]) and values[kind] is None
            how = ": null; write an empty text, or leave the item out" if null else ""
            raise UserError(f"{name}: no text under any of {', '.join(KEYS[kind])}{how}")
    if not values["answer"].strip():  # every completion would contain it
        raise UserError(f"{name}: the right answer is empty")
    answer, choices = values["answer"], values["choices"]
    choices = [as_text(choice) for choice in choices] if isinstance(choices, list) else choices
    if choices is not None and not (isinstance(choices, list) and all(isinstance(c, str) for c in choices)):
        raise UserError(f"{name}: the options must be a list of texts")
    correct = values["correct"]
    if correct not in (None, 0, 1):
        raise UserError(f"{name}: 'correct' must be 0, 1, true or false, not {correct!r:.40}")
    answer = chosen_by_letter(answer, choices or ())
    choices = tuple(choice for choice in choices or () if choice.strip()) or None
    _, unit, precision = asked_in(item, "", choices, name)
    task = "spatial" if choices else "classification"
    example = Example(str(number), (), "", answer, choices, task, unit=unit, precision=precision)
    read = as_text(values["read"])
    correct = None if correct is None else bool(correct)
    return Prediction(values["output"], example, correct, read if isinstance(read, str) else None)


def kinds_of(predictions: list[Prediction]) -> list[str]:
    """The rule of each item's kind: `choice_letter` where there are options. Of the others `math`, if most of their
    right answers are numbers or formulas; else `strict`."""
    free = [prediction.example.answer for prediction in predictions if not prediction.example.choices]
    values = sum(bool(VALUE.search(answer)) and not WORD.search(answer) for answer in free)
    other = "math" if 2 * values > len(free) else "strict"
    return ["choice_letter" if prediction.example.choices else other for prediction in predictions]


def mode_of(predictions: list[Prediction]) -> str:
    """The mode that most completions look like."""
    modes = Counter()
    for prediction in predictions:
        tagged = "thinking" if "<answer>" in prediction.output else "no_thinking"
        modes["think_after_answer" if "<reason>" in prediction.output else tagged] += 1
    return modes.most_common(1)[0][0]


def rescore(predictions: list[Prediction], mode: str) -> pd.DataFrame:
    """Each item by each rule beside the published score: `strict`, `lenient`, `authors`, and the rule of its kind.

    That is `kinds_of`; `by kind` are all items together, where they are of several.

    Columns: `rule`, `item` (its number); `right` by this rule; `agrees` with those who published it; `theirs only` and
    `ours only`: one of both counts it right; `read otherwise`: we read another answer in it than they.
    """
    get_mode(mode)
    kinds = kinds_of(predictions)
    several = [*dict.fromkeys(kinds), "by kind"] if len(set(kinds)) > 1 else kinds[:1]
    rows = []
    for name in dict.fromkeys(["strict", "lenient", "authors", *several]):
        for number, prediction in enumerate(tqdm(predictions, desc=name, leave=False)):
            rule = kinds[number] if name == "by kind" else name
            if name in OF_A_KIND and rule != kinds[number]:
                continue
            ours = score(prediction.output, prediction.example, mode, rule)
            right, read = bool(ours.accuracy), (ours.parsed or "").strip()
            row = {"rule": name, "item": number, "right": right, "agrees": prediction.correct == right}
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
    count = items.groupby("rule", sort=False).size().to_numpy()
    table.insert(2, "accuracy", (100 * table["right"] / count).map("{:.2f} %".format))
    if len(set(count)) > 1:
        table.insert(1, "items", count)
    lines = [f"{len(predictions)} predictions, mode {mode}, {theirs}", table.to_string(index=False)]
    for rule, of_rule in items.groupby("rule", sort=False):
        for kind in ("theirs only", "ours only"):
            for number in of_rule["item"][of_rule[kind]][:SHOWN]:
                output, answer = predictions[number].output, predictions[number].example.answer
                lines.append(f"{rule}, {kind}, item {number}: {output[-160:]!r} for {answer!r:.80}")
    return "\n".join(lines)
