"""When, and whether, thinking matters: thoughts emptied or swapped, answers against thoughts, token budgets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from rftkit.analysis.methods import title_of
from rftkit.common.errors import UserError
from rftkit.evaluate import generate
from rftkit.models import load_processor
from rftkit.prompts import MODES, thought_of
from rftkit.rewards import score
from rftkit.run import generation_options, load_run, test_splits
from rftkit.runs.collect import Methods, short_names
from rftkit.runs.folder import answers_of, read_settings, write_atomically
from rftkit.runs.log import COMPLETIONS
from rftkit.runs.results import Run
from rftkit.settings import METHODS
from rftkit.tasks.example import Example
from rftkit.tasks.registry import short_name


@dataclass(kw_only=True)
class Thoughts:
    """What notebook 06 finds on a set, and `thoughts-SET-MODEL.json` holds; numbers are 0-1, differences -1..1."""

    profile: str
    dataset: str
    runs: list[tuple[str, int]]  # start models and seeds
    thinks: float  # the share of Adaptive-Thinking's test answers with a thought
    emptied: float  # what emptying its thoughts does to a trained model's accuracy, the mean over start models
    at_odds: float | None  # accuracy of answers at odds with their thoughts minus that of all; None: there are none
    tables: dict[str, list[dict[str, int | float | str | None]]]  # what the notebook shows, row by row


THOUGHTS = TypeAdapter(Thoughts)


def write_thoughts(
    runs: Sequence[Run], model: str, thinking: pd.DataFrame, effects: pd.DataFrame, agreeing: pd.DataFrame, **shown
) -> Path:
    """Write what notebook 06 found beside its runs, for a report.

    Args:
        runs: those of CLS-RL.
        model: how their start models are called.
        thinking, effects: as of `answers_that_think` and `before_and_after`.
        agreeing: rows of `agreement` by the method's title.
        shown: further tables.
    """
    tables = {"interventions": effects, "agreement": agreeing} | shown
    answers, first = thinking["answers"].groupby("thinks").sum(), runs[0]
    own = agreeing.loc[[METHODS[first.method].title]]
    at_odds = own.loc[own["thought"] == "disagrees", "accuracy"] - (own["share"] * own["accuracy"]).sum()
    found = Thoughts(
        profile=first.profile,
        dataset=short_name(first.dataset),
        runs=sorted(run.pair for run in runs),
        thinks=float(answers.get(True, 0) / answers.sum()),
        emptied=float((effects["empty"] - effects["own"])["after training"].mean()),
        at_odds=None if at_odds.empty else float(at_odds.iloc[0]),
        tables={
            name: json.loads(table.round(4).reset_index().to_json(orient="records"))  # NaN as null
            for name, table in tables.items()
        },
    )
    path = first.folder.parent / f"thoughts-{found.dataset}-{model}.json"
    write_atomically(path, THOUGHTS.dump_json(found, indent=1).decode())
    return path


def read_thoughts(folder: Path) -> list[Thoughts]:
    """What was written into a folder; UserError if it was changed since."""
    found = []
    for path in sorted(folder.glob("thoughts-*.json")):
        try:
            found.append(THOUGHTS.validate_json(path.read_bytes()))
        except ValueError as error:
            raise UserError(f"'{path}' is not what notebook 06 writes: remove it and run the notebook again") from error
    return found


def _answers(runs: Sequence[Run]) -> pd.DataFrame:
    """The test answers of a method's runs in its own mode."""
    table = pd.concat([answers_of(run) for run in runs])
    return table[table["mode"] == runs[0].mode]


def _thinks(completions: pd.Series) -> pd.Series:
    return completions.str.contains("<think>", regex=False).rename("thinks")


def thinking_share(run: Run) -> pd.Series:
    """The share (0-1) of a run's sampled completions with a think tag, by step."""
    rollouts = pd.read_parquet(run.folder / COMPLETIONS)
    return _thinks(rollouts["completion"]).groupby(rollouts["step"]).mean()


def answers_that_think(runs: Sequence[Run], rule: str) -> pd.DataFrame:
    """How many test answers of a method have a think tag and how many have none, by part, and their accuracy (0-1)."""
    table = _answers(runs)
    found = table.groupby(["split", _thinks(table["completion"])], sort=False)[rule].agg(["size", "mean"])
    return found.rename(columns={"size": "answers", "mean": "accuracy"})


def thoughts_said(runs: Sequence[Run]) -> dict[str, Any]:
    """What test answers of a method have for thoughts: shares (0-1) with `words`, `empty` and `none`, and one."""
    texts = _answers(runs)["completion"]
    thoughts = [thought_of(text) for text in texts]
    counts = {"words": sum(map(bool, thoughts)), "empty": thoughts.count(""), "none": thoughts.count(None)}
    return {name: count / len(thoughts) for name, count in counts.items()} | {"for example": texts.iloc[0]}


def before_and_after(runs: Sequence[Run], rule: str) -> pd.DataFrame:
    """`interventions` before and after training, a run of each start model: a row for each. On 200 items a part."""
    names, found = short_names(run.model for run in runs), {}
    first = {run.model: run.folder for run in reversed(runs)}
    for when in ("before training", "after training"):
        for model, name in names.items():
            settings = read_settings(first[model])
            examples = [example for part in test_splits(settings).values() for example in part[:200]]
            network, processor = load_run(settings, first[model] if when == "after training" else None)
            options = generation_options(settings, "thinking") | {"progress": f"{name} {when}"}
            found[when, name] = interventions(network, processor, examples, rule, **options)
    return pd.DataFrame(found).T.rename_axis(["when", "model"])


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

    def accuracy(begun: list[str] | None) -> tuple[float, list[str]]:
        answers = generate(model, processor, examples, mode, begun=begun, **options)
        texts = [answer.texts[0] for answer in answers]
        return fmean(score(text, e, mode, rule).accuracy for text, e in zip(texts, examples, strict=True)), texts

    free, said = accuracy(None)
    own = [thought_of(text) or "" for text in said]
    thoughts = {"own": own, "empty": [""] * len(examples), "swapped": _swapped(examples, own)}
    if all(example.steps for example in examples):
        # As the bundled models were taught to write them: two facts of a thing, or all steps to an answer.
        thoughts["true"] = [
            " and ".join(example.steps[:2]) if example.task == "classification" else ", ".join(example.steps)
            for example in examples
        ]
    found = {"free": free}
    for name, given in thoughts.items():
        begun = [f"<think> {thought} </think> <answer>".replace("  ", " ") for thought in given]
        found[name], _ = accuracy(begun)
    return found


def _swapped(examples: Sequence[Example], thoughts: list[str]) -> list[str]:
    """For each example the thought of the next one of its kind, the first behind the last."""
    kinds = ["" if example.task == "classification" else example.id.rpartition("-")[0] for example in examples]
    of_kind = pd.Series(thoughts).groupby(kinds)
    return of_kind.shift(-1).fillna(of_kind.transform("first")).tolist()


def agreement(runs: Sequence[Run], rule: str) -> pd.DataFrame:
    """Accuracy of test answers by whether thought and answer agree (`rewards.agrees`), over runs.

    Columns: thought (`agrees`, `disagrees`, or none that names anything), share of the answers, accuracy (0-1).
    """
    table = _answers(runs)
    names = table["agrees"].map({True: "agrees", False: "disagrees"}).fillna("no thought, or it names nothing")
    found = table.groupby(names.rename("thought"))[rule].agg(["size", "mean"]).reset_index()
    return pd.DataFrame({"thought": found["thought"], "share": found["size"] / len(table), "accuracy": found["mean"]})


def budget_curve(
    runs: Sequence[Run], tokenizer, examples: dict[str, Example], rule: str, budgets: Sequence[int]
) -> pd.Series:
    """Accuracy (0-1) of greedy test answers if decoding stopped after each number of tokens.

    Greedy decoding does not depend on where it will stop, so cutting the answers is decoding with that limit (up to how
    the tokenizer splits the text again).

    Args:
        examples: the test examples by id.
    """
    table = _answers(runs)
    ids = tokenizer(list(table["completion"]), add_special_tokens=False)["input_ids"]

    @cache  # most answers are as long as ever after a few tokens, and many items have the same one
    def right(text: str, answer: str, choices: tuple[str, ...] | None) -> float:
        return score(text, Example("", (), "", answer, choices), runs[0].mode, rule).accuracy

    found = {}
    for budget in budgets:
        texts = tokenizer.batch_decode([row[:budget] for row in ids])
        asked = (examples[name] for name in table["id"])
        found[budget] = fmean(right(text, e.answer, e.choices) for text, e in zip(texts, asked, strict=True))
    return pd.Series(found).rename_axis("tokens")


def thinking_shares(runs: Sequence[Run]) -> pd.DataFrame:
    """`thinking_share` of each run: a column a seed, by step."""
    return pd.DataFrame({f"seed {run.seed}": thinking_share(run) for run in runs})


def agreements(results: Methods, rule: str) -> pd.DataFrame:
    """`agreement` of each method with thoughts that ran, by its title."""
    with_thoughts = [runs for runs in results.values() if runs and MODES[runs[0].mode].tags]
    found = {title_of(runs[0].label): agreement(runs, rule) for runs in with_thoughts}
    return pd.concat(found, names=["method"]).droplevel(1)


def budget_curves(results: Methods, rule: str, budgets: Sequence[int]) -> pd.DataFrame:
    """`budget_curve` of each method that was trained: a column a title, by tokens. All have the same test items."""
    trained = [runs for runs in results.values() if runs and runs[0].training]
    settings = read_settings(trained[0][0].folder)
    examples = {example.id: example for part in test_splits(settings).values() for example in part}
    tokenizer = load_processor(settings.model).tokenizer
    curves = {title_of(runs[0].label): budget_curve(runs, tokenizer, examples, rule, budgets) for runs in trained}
    return pd.DataFrame(curves)
