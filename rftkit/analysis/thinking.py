"""When, and whether, thinking matters: thoughts emptied or swapped, answers against thoughts, token budgets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pandas as pd

from rftkit.evaluate import generate
from rftkit.prompts import thought_of
from rftkit.rewards import score
from rftkit.runs.folder import read_predictions
from rftkit.tasks.example import Example


def thoughts_said(runs: Sequence[dict[str, Any]], mode: str) -> dict[str, Any]:
    """What test answers of runs in a mode have for thoughts: shares (0-1) with `words`, `empty` and `none`, and one."""
    table = pd.concat([read_predictions(run["folder"]) for run in runs])
    texts = table.loc[table["mode"] == mode, "completion"]
    thoughts = [thought_of(text) for text in texts]
    counts = {"words": sum(map(bool, thoughts)), "empty": thoughts.count(""), "none": thoughts.count(None)}
    return {name: count / len(thoughts) for name, count in counts.items()} | {"for example": texts.iloc[0]}


def interventions(
    model, processor, examples: Sequence[Example], rule: str, mode: str = "thinking", **options: Any
) -> dict[str, float]:
    """Greedy accuracy (0-1) of a model in a mode that thinks, when its thought is its own or somebody else's.

    - `free`: what it would write.
    - `own`: its own thought, and then the opening of the answer's tag is set for it, as in all that follow: what it
      gains over `free` is form, so compare the others with this one.
    - `empty`: no thought.
    - `swapped`: the thought it had about another example, of the same kind in the drawn tasks.
    - `true`: the true steps of the example, where its task has them.
    """
    free = [answer.texts[0] for answer in generate(model, processor, examples, mode, **options)]
    thoughts = {"own": [thought_of(text) or "" for text in free], "empty": [""] * len(examples)}
    thoughts["swapped"] = _swapped(examples, thoughts["own"])
    if all(example.steps for example in examples):
        thoughts["true"] = [_true_thought(example) for example in examples]
    texts = {"free": free}
    for name, given in thoughts.items():
        begun = [f"<think> {thought} </think> <answer>".replace("  ", " ") for thought in given]
        answers = generate(model, processor, examples, mode, begun=begun, **options)
        texts[name] = [answer.texts[0] for answer in answers]
    return {
        name: sum(score(text, e, mode, rule).accuracy for text, e in zip(said, examples, strict=True)) / len(examples)
        for name, said in texts.items()
    }


def _true_thought(example: Example) -> str:
    """True steps as the bundled models were taught to write them: two facts of a thing, or all steps to an answer."""
    return " and ".join(example.steps[:2]) if example.task == "classification" else ", ".join(example.steps)


def _swapped(examples: Sequence[Example], thoughts: list[str]) -> list[str]:
    """For each example the thought of the next one of its kind, the first behind the last."""
    kinds: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        kind = "" if example.task == "classification" else example.id.rpartition("-")[0]
        kinds.setdefault(kind, []).append(place)
    following = {place: same[(n + 1) % len(same)] for same in kinds.values() for n, place in enumerate(same)}
    return [thoughts[following[place]] for place in range(len(examples))]


def agreement(runs: Sequence[dict[str, Any]], mode: str, rule: str) -> pd.DataFrame:
    """Accuracy of test answers by whether thought and answer agree (`rewards.agrees`), over runs.

    Columns: thought (`agrees`, `disagrees`, or none that names anything), share of the answers, accuracy (0-1).
    """
    table = pd.concat([read_predictions(run["folder"]) for run in runs])
    table = table[table["mode"] == mode]
    names = table["agrees"].map({True: "agrees", False: "disagrees"}).fillna("no thought, or it names nothing")
    found = table.groupby(names.rename("thought"))[rule].agg(["size", "mean"]).reset_index()
    return pd.DataFrame({"thought": found["thought"], "share": found["size"] / len(table), "accuracy": found["mean"]})


def thinking_share(rollouts: pd.DataFrame) -> pd.Series:
    """The share of sampled completions (`completions.parquet`) with a think tag, by step."""
    return rollouts["completion"].str.contains("<think>", regex=False).groupby(rollouts["step"]).mean()


def budget_curve(
    runs: Sequence[dict[str, Any]],
    tokenizer,
    examples: dict[str, Example],
    mode: str,
    rule: str,
    budgets: Sequence[int],
) -> list[float]:
    """Accuracy (0-1) of greedy test answers if decoding stopped after each number of tokens.

    Greedy decoding does not depend on where it will stop, so cutting the answers is decoding with that limit (up to how
    the tokenizer splits the text again).

    Args:
        examples: the test examples by id.
    """
    table = pd.concat([read_predictions(run["folder"]) for run in runs])
    table = table[table["mode"] == mode]
    ids = tokenizer(list(table["completion"]), add_special_tokens=False)["input_ids"]

    @cache  # most answers are as long as ever after a few tokens, and many items have the same one
    def right(text: str, answer: str, choices: tuple[str, ...] | None) -> float:
        return score(text, Example("", (), "", answer, choices), mode, rule).accuracy

    found = []
    for budget in budgets:
        texts = tokenizer.batch_decode([row[:budget] for row in ids])
        asked = (examples[name] for name in table["id"])
        scores = [right(text, e.answer, e.choices) for text, e in zip(texts, asked, strict=True)]
        found.append(sum(scores) / len(scores))
    return found
