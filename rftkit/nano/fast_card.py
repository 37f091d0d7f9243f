"""Measures a start model that was never shown a step of reasoning, and writes its card: captions, and thinking."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from rftkit.common.statistics import proportion
from rftkit.evaluate import answer_rows
from rftkit.models import load
from rftkit.runs.folder import write_atomically
from rftkit.sophia.captions import PROMPTS, USUAL, drawn_task, items
from rftkit.sophia.hallucination import STEP, abstains, caption_facts
from rftkit.sophia.speak import captions

ITEMS = 500  # test pictures: of all levels together for captions, of each level for answers
LEAST_WHOLE, MOST_STEPS, MOST_RIGHT = 0.6, 0.01, 0.3  # data/claims.yaml: sophia, mixture, requirements
CAPTIONS = ("whole", "words_right", "invented", "suffices")
OF_A_CAPTION = ("whole", "words_right", "suffices")  # the others are of its words
ANSWERS = ("thinking", "no_thinking")


def caption_rows(model, processor, dataset: str, count: int = ITEMS) -> list[dict]:
    """Greedy captions of test pictures beside the true ones, a row for each caption prompt; all shares are 0-1.

    whole: the true caption word for word; words_right: of its words, in order; invented: of the words said, those not
    on the picture; suffices: the right answer follows from it.
    """
    own, rows = items(drawn_task(dataset), "test", "all", count), []
    for prompt, question in PROMPTS.items():
        said = captions(model, processor, [item.example for item in own], question)
        facts = [caption_facts(item, prompt, text) for item, (text,) in zip(own, said, strict=True)]
        means = {
            name: sum(getattr(fact, name) for fact in facts) / count for name in ("whole", "words_right", "suffices")
        }
        words = sum(fact.said for fact in facts)
        invented = sum(fact.invented for fact in facts) / max(1, words)
        rows.append({"set": dataset, "prompt": prompt, "n": count} | means | {"invented": invented})
    return rows


def thinking_rows(model, processor, dataset: str, count: int = ITEMS) -> list[dict]:
    """Accuracy by level in two modes; of the answers with thinking, those with a step and those that give none."""
    task, rows = drawn_task(dataset), []
    for level in task.levels:
        examples = task.examples("test", level, count)
        row = {"set": dataset, "part": level, "n": count}
        for mode in ANSWERS:
            answers = answer_rows(model, processor, examples, mode, rules=[task.rule], max_tokens=64)
            row[mode] = proportion(int(sum(answer[task.rule] for answer in answers)), count)
            if mode == "thinking":
                row["steps"] = sum(STEP.search(answer["completion"]) is not None for answer in answers) / count
                row["abstains"] = sum(abstains(answer["completion"]) for answer in answers) / count
        rows.append(row)
    return rows


def unmet(seen: list[dict], thought: list[dict]) -> list[str]:
    """The requirements of such a start model (`sophia` in data/claims.yaml) that it does not meet, a line each."""
    lines = []
    for row in seen:
        if row["prompt"] == USUAL[row["set"]] and row["whole"] < LEAST_WHOLE:
            lines.append(f"{row['set']}: {100 * row['whole']:.1f} % of captions whole, below {100 * LEAST_WHOLE:g}")
    for row in thought:
        if row["steps"] > MOST_STEPS:
            lines.append(f"{row['set']}, {row['part']}: {100 * row['steps']:.1f} % of answers have a step")
        if row["thinking"]["accuracy"] > MOST_RIGHT:
            right = 100 * row["thinking"]["accuracy"]
            lines.append(f"{row['set']}, {row['part']}: {right:.1f} % right, above {100 * MOST_RIGHT:g}")
    return lines


def write_fast_card(name: str, folder: Path, recipe: dict) -> Path:
    """Write `MODEL_CARD.md` and `zero_shot.json` into such a model's folder, from fresh measurements."""
    model, processor = load(name)
    sets = [dataset for dataset in recipe.get("sets") or USUAL if dataset in USUAL]
    seen = [row for dataset in sets for row in caption_rows(model, processor, dataset)]
    thought = [row for dataset in sets for row in thinking_rows(model, processor, dataset)]
    write_atomically(folder / "zero_shot.json", json.dumps({"captions": seen, "thinking": thought}, indent=1))
    write_atomically(folder / "MODEL_CARD.md", card_text(name, recipe, seen, thought))
    return folder / "MODEL_CARD.md"


def card_text(name: str, recipe: dict, seen: list[dict], thought: list[dict]) -> str:
    """The model card as Markdown."""
    of_captions = [("set", "prompt", "n", *CAPTIONS)]
    of_captions += [(row["set"], row["prompt"], str(row["n"]), *shares(row[c] for c in CAPTIONS)) for row in seen]
    of_answers = [("set", "part", "n", *ANSWERS, "steps", "abstains")]
    for row in thought:
        cells = shares([*(row[mode]["accuracy"] for mode in ANSWERS), row["steps"], row["abstains"]])
        of_answers.append((row["set"], row["part"], str(row["n"]), *cells))
    sums = " --sums" if recipe.get("sums") else ""
    recited = "It recited sums, about no picture. " if sums else ""
    missed = "\n".join(f"- {line}" for line in unmet(seen, thought)) or "All are met."
    return f"""# {name}

A start model of SOPHIA of {recipe["parameters"] / 1e6:.2f} M parameters. It sees, captions and answers, and was never
shown a step to an answer. Made by `rftkit nano pretrain --no-reasons{sums}`, licence Apache-2.0, no outside data.

Recipe: `{json.dumps({key: value for key, value in recipe.items() if key != "parameters"})}`

Its thoughts were empty in pre-training, and it had no drills of steps. {recited}The mixture
stands in [claims.yaml](../../claims.yaml), `sophia`.

## What it sees, per cent of test pictures
Greedy captions beside the true ones. *whole*: word for word. *words_right*: of the words, in order. *invented*: of the
words said, those not on the picture. *suffices*: the right answer follows from the caption alone.

{table_of(of_captions)}

## How it answers, per cent of test examples
*thinking*, *no_thinking*: right in that mode. Of the answers with thinking: those with a step, and those that give no
answer.

{table_of(of_answers)}

## Requirements
Those of `sophia` in `data/claims.yaml`, but for the arm `oracle`, which needs a run:

{missed}
"""


def shares(values: Iterable[float]) -> list[str]:
    """Shares in per cent."""
    return [f"{100 * value:.1f}" for value in values]


def table_of(rows: list[tuple[str, ...]]) -> str:
    """Rows as a Markdown table, the first its head."""
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rest))
