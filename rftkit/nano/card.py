"""Measures a bundled model and writes its model card: what it was taught, what it knows and how it answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import torch
from tqdm.auto import tqdm

from rftkit.common.errors import UserError
from rftkit.common.paths import DATA
from rftkit.common.pool import pool
from rftkit.evaluate import answer_rows, pass_at_samples
from rftkit.models import load, resolve
from rftkit.nano.agent_card import write_agent_card
from rftkit.nano.fast_card import write_fast_card
from rftkit.nano.reasoner_card import write_reasoner_card
from rftkit.nano.sentences import THOUGHTS, habits
from rftkit.prompts import MODES
from rftkit.runs.folder import write_atomically
from rftkit.tasks.drawn.scenes import DrawnTask
from rftkit.tasks.example import Example
from rftkit.tasks.registry import bundled_sets, open_set
from rftkit.tasks.worlds import worlds

ITEMS = 500  # a part
PASS_ITEMS = 100  # of them for pass@8
MAX_TOKENS = 64
TEMPLATE = DATA / "models" / "card_template.md"
MEASURES = ("strict", "lenient", "pass@8")
MOST_STRICT, LEAST_PASSED = 0.75, 0.1  # what data/claims.yaml requires of a base model


def parts_of(dataset: str) -> tuple[str, ...]:
    """Both halves of a classification set; the levels of a drawn task and the kinds it is not trained on."""
    data = open_set(dataset)
    if not isinstance(data, DrawnTask):
        return data.parts("base_to_new")
    untrained = [part for part, pairs in data.test_parts.items() if pairs[0][0] in data.untrained]
    return (*data.levels, *untrained)


def zero_shot_rows(name: str, sets: Sequence[str]) -> list[dict]:
    """Zero-shot accuracy of a model on the parts of bundled sets, by mode; by likelihood, and by chance.

    `strict` is the rule the task trains with; `lenient` is there for classification only. `thoughts` is the share of
    thoughts that are true (`thought_is_true`). One part a core at once.
    """
    parts = [(name, dataset, part) for dataset in sets for part in parts_of(dataset)]
    with pool(threads=1) as workers:
        return list(tqdm(workers.map(_row, *zip(*parts, strict=True)), total=len(parts), desc="parts"))


def _row(name: str, dataset: str, part: str) -> dict:
    model, processor = load(name)
    examples = open_set(dataset).examples("test", part, ITEMS)
    chance = sum(1 / len(e.choices) if e.choices else 0.0 for e in examples) / len(examples)
    row = {"set": dataset, "part": part, "n": len(examples), "chance": chance}
    for mode in MODES:
        row |= _measured(model, processor, examples, mode, open_set(dataset).rule)
    return row


def _measured(model, processor, examples: list[Example], mode: str, rule: str) -> dict[str, float]:
    """What one mode adds to a row of `zero_shot_rows`."""
    direct = mode == "no_thinking"
    rules = ["strict", "lenient"] if rule == "strict" else [rule]
    answers = answer_rows(model, processor, examples, mode, rules=rules, likelihood=direct, max_tokens=MAX_TOKENS)
    found = {f"{mode} strict": _mean(answers, rule)}
    if rule == "strict":
        found[f"{mode} lenient"] = _mean(answers, "lenient")
    torch.manual_seed(0)
    some = examples[:PASS_ITEMS]
    passed = pass_at_samples(model, processor, some, mode, rule, max_tokens=MAX_TOKENS, batch_size=16)
    found[f"{mode} pass@8"] = sum(passed) / len(passed)
    if direct and "likelihood" in answers[0]:
        found["likelihood"] = _mean(answers, "likelihood")
    if mode == "thinking":
        true = [thought_is_true(row["completion"], e) for row, e in zip(answers, examples, strict=True)]
        found["thoughts"] = sum(true) / len(true)
    return found


def _mean(rows: list[dict], measure: str) -> float:
    return sum(row[measure] for row in rows) / len(rows)


def thought_is_true(completion: str, example: Example) -> bool:
    """Whether a completion's thought says something, and nothing but true statements about the example."""
    thought = completion.partition("<think>")[2].partition("</think>")[0].strip()
    facts = [" and ".join(some) for count in (1, 2) for some in permutations(example.steps, count)]
    return thought in (", ".join(example.steps), *facts)


def unmet(rows: list[dict]) -> list[str]:
    """The requirements of a base model (`mixture` in data/claims.yaml) that it does not meet, a line each."""
    lines = []
    for row in rows:
        place = f"{row['set']}, {row['part']}"
        for mode in MODES:
            if row.get(f"{mode} lenient", 1) <= row["chance"]:
                lines.append(f"{place}, {mode}: lenient accuracy is not above chance")
            if row[f"{mode} strict"] > MOST_STRICT:
                lines.append(f"{place}, {mode}: strict accuracy is above {100 * MOST_STRICT:.0f} %")
            if row["part"].startswith("level") and row[f"{mode} pass@8"] < LEAST_PASSED:
                lines.append(f"{place}, {mode}: pass@8 is below {100 * LEAST_PASSED:.0f} %")
        if row.get("likelihood", 1) <= row["no_thinking strict"]:
            lines.append(f"{place}: accuracy by likelihood is not above strict accuracy without thinking")
    return lines


def write_card(name: str) -> Path:
    """Write `MODEL_CARD.md` and `zero_shot.json` into a model's folder, from `recipe.json` and fresh measurements."""
    folder = Path(resolve(name))
    if not (folder / "recipe.json").is_file():
        raise UserError(f"'{name}' has no recipe.json: a card is written for models that rftkit nano pretrain made")
    recipe = _read_recipe(folder / "recipe.json")
    if recipe.get("agent"):
        return write_agent_card(name, folder, recipe)
    if recipe.get("reasoner"):
        return write_reasoner_card(name, folder, recipe)
    if not recipe.get("reasons", True):
        return write_fast_card(name, folder, recipe)
    rows = zero_shot_rows(name, recipe.get("sets") or bundled_sets())
    write_atomically(folder / "zero_shot.json", json.dumps(rows, indent=1))
    write_atomically(folder / "MODEL_CARD.md", card_text(name, recipe, rows))
    return folder / "MODEL_CARD.md"


def _read_recipe(path: Path) -> dict:
    try:
        recipe = json.loads(path.read_text())
        own = {"parameters", "seed", "sets"} if recipe.get("reasoner") else {"parameters", "seed", "vague"}
        whole = own <= recipe.keys() and set(recipe.get("sets") or ()) <= set(bundled_sets())
    except (ValueError, AttributeError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"'{path}' is not what rftkit nano pretrain writes")
    return recipe


def card_text(name: str, recipe: dict, rows: list[dict]) -> str:
    """The model card as Markdown."""
    columns = ["chance", "likelihood", "thoughts", *(f"{mode} {measure}" for mode in MODES for measure in MEASURES)]
    head = ["set", "part", "n", *(column.replace("_", "-") for column in columns)]
    table = [_table_row(head), "|" + " --- |" * len(head)]
    for row in rows:
        cells = [f"{100 * row[column]:.1f}" if column in row else "" for column in columns]
        table.append(_table_row([row["set"], row["part"], str(row["n"]), *cells]))
    return TEMPLATE.read_text().format(
        name=name,
        parameters=recipe["parameters"] / 1e6,
        recipe=json.dumps({k: v for k, v in recipe.items() if k != "parameters"}),
        vague=recipe["vague"],
        thoughts=", ".join(f"{kind} {100 * share:.0f} %" for kind, share in THOUGHTS.items()),
        table="\n".join(table),
        requirements="\n".join(f"- {line}" for line in unmet(rows)) or "All are met.",
        habits="\n".join(_habit_lines(recipe)),
    )


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _habit_lines(recipe: dict) -> list[str]:
    lines = []
    for name, world in worlds().items():
        if len(world.classes) > 30:
            continue
        dealt = habits(world, recipe["vague"], recipe["seed"])
        for half, classes in (("base", world.base), ("new", world.new)):
            shares = ", ".join(f"{label} {dealt[label].share:.2f} {dealt[label].manner}" for label in classes)
            lines.append(f"- {name}, {half}: {shares}")
    return lines
