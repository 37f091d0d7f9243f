"""Measures a bundled model and writes its model card: what it was taught, what it knows and how it answers."""

from __future__ import annotations

import json
from pathlib import Path

from rftkit.errors import UserError
from rftkit.evaluate import answer_rows, proportion
from rftkit.models import load, resolve
from rftkit.nano.speech import habits
from rftkit.nano.worlds import worlds
from rftkit.prompts import MODES
from rftkit.results import write_atomically
from rftkit.tasks.classification import load_split

ITEMS = 1000  # a half
MAX_TOKENS = 40
RULES = ("strict", "lenient")


def zero_shot_rows(name: str) -> list[dict]:
    """Zero-shot accuracy of a model on the halves of every world: by mode and rule, by likelihood, and by chance."""
    model, processor = load(name)
    rows = []
    for world in worlds():
        for half in ("base", "new"):
            examples = load_split(world, "test", ITEMS, 0, half)
            chance = sum(1 / len(e.choices) for e in examples) / len(examples)
            row = {"world": world, "half": half, "n": len(examples), "chance": chance}
            for mode in MODES:
                direct = mode == "no_thinking"
                answers = answer_rows(model, processor, examples, mode, max_tokens=MAX_TOKENS, likelihood=direct,
                                      progress=f"{world} {half} {mode}")  # fmt: skip
                row |= {f"{mode} {rule}": proportion([a[rule] for a in answers])["accuracy"] for rule in RULES}
                if direct:
                    row["likelihood"] = proportion([a["likelihood"] for a in answers])["accuracy"]
            rows.append(row)
    return rows


def write_card(name: str) -> Path:
    """Write `MODEL_CARD.md` and `zero_shot.json` into a model's folder, from `recipe.json` and fresh measurements."""
    folder = Path(resolve(name))
    if not (folder / "recipe.json").is_file():
        raise UserError(f"'{name}' has no recipe.json: a card is written for models that rftkit nano pretrain made")
    recipe = json.loads((folder / "recipe.json").read_text())
    rows = zero_shot_rows(name)
    write_atomically(folder / "zero_shot.json", json.dumps(rows, indent=1))
    write_atomically(folder / "MODEL_CARD.md", card_text(name, recipe, rows))
    return folder / "MODEL_CARD.md"


def card_text(name: str, recipe: dict, rows: list[dict]) -> str:
    """The model card as Markdown."""
    columns = ["chance", "likelihood", *(f"{mode} {rule}" for mode in MODES for rule in RULES)]
    head = ["set", "half", "n", *(column.replace("_", "-") for column in columns)]
    table = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [row["world"], row["half"], str(row["n"]), *(f"{100 * row[column]:.1f}" for column in columns)]
        table.append("| " + " | ".join(cells) + " |")
    return CARD.format(
        name=name,
        parameters=recipe["parameters"] / 1e6,
        recipe=json.dumps({k: v for k, v in recipe.items() if k != "parameters"}),
        vague=recipe["vague"],
        table="\n".join(table),
        habits="\n".join(_habit_lines(recipe)),
    )


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


CARD = """# {name}

A Qwen2-VL in miniature ({parameters:.2f} M parameters, bf16), made for rftkit's CPU study. Pre-trained from scratch
on rftkit's own drawings, real handwriting and emoji; it knows nothing else. Made by `rftkit nano pretrain`; the log is
`pretrain.csv`, the recipe `{recipe}`.

## What it was taught
Questions in all modes, with choice lists of any length. A share of `vague` = {vague} of the answers is not as asked,
like those of a base model nobody told how to answer, in every mode alike: a sentence stands in the answer's place, with
a coarse name or with the label, or a tag is never closed. The share and its main manner differ from class to class by a
ladder that is the same for base and new classes, dealt to them at random (`rftkit/nano/speech.py`; test:
`tests/test_worlds.py`). Thoughts are facts about the picture: true in 80 %, of another picture in 10 %, empty in 10 %
of the answers.

Share of answers not as asked, and their main manner, in the small sets:
{habits}

## Zero-shot accuracy, per cent, on test items
Written by `rftkit nano card --model {name}`, before any reinforcement learning. *likelihood*: accuracy of the
likeliest choice, whatever the model would say.

{table}

No test picture, drawing style or scene occurs in pre-training or among the shots (`tests/test_worlds.py`).

## Licence
Apache-2.0. Drawings: see `data/emoji/LICENSES.md` and `data/digits/LICENSE.md`.
"""
