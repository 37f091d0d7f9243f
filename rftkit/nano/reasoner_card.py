"""Measures a text reasoner and writes its model card: what it makes of true captions, beside the exact rule."""

from __future__ import annotations

import json
from pathlib import Path

from rftkit.common.statistics import proportion
from rftkit.nano.fast_card import shares, table_of
from rftkit.rewards import score
from rftkit.runs.folder import write_atomically
from rftkit.sophia.captions import PROMPTS, drawn_task, items, true_caption
from rftkit.sophia.hallucination import thought_facts
from rftkit.sophia.local import LocalModel
from rftkit.sophia.reasoners import Problem, Reasoner
from rftkit.sophia.rule import Rule

ITEMS = 500  # test pictures of all levels together


def reasoner_rows(reasoner: Reasoner, dataset: str, count: int = ITEMS) -> list[dict]:
    """One reasoning on the true caption of each test picture, drawn as in a run, a row for each caption prompt.

    right: answers; false: thoughts that say something untrue of the picture, or have a wrong step; shares (0-1).
    """
    task, rows = drawn_task(dataset), []
    own = items(task, "test", "all", count)
    for prompt in PROMPTS:
        problems = [
            Problem(str(place), item.example.question, item.example.choices, true_caption(item.scene, prompt), prompt)
            for place, item in enumerate(own)
        ]
        said = [text for (text,) in reasoner.reason(problems, 1, 0)]
        right = sum(score(t, item.example, "thinking", task.rule).accuracy for t, item in zip(said, own, strict=True))
        false = sum(thought_facts(item, text).false > 0 for text, item in zip(said, own, strict=True))
        rows.append({"set": dataset, "prompt": prompt, "right": proportion(int(right), count), "false": false / count})
    return rows


def write_reasoner_card(name: str, folder: Path, recipe: dict) -> Path:
    """Write `MODEL_CARD.md` and `zero_shot.json` into a text reasoner's folder, from fresh measurements."""
    reasoners = {"reasoner": LocalModel.named(name), "rule": Rule()}
    found = {
        kind: [row for dataset in recipe["sets"] for row in reasoner_rows(reasoner, dataset)]
        for kind, reasoner in reasoners.items()
    }
    write_atomically(folder / "zero_shot.json", json.dumps(found, indent=1))
    write_atomically(folder / "MODEL_CARD.md", card_text(name, recipe, **found))
    return folder / "MODEL_CARD.md"


def card_text(name: str, recipe: dict, reasoner: list[dict], rule: list[dict]) -> str:
    """The model card as Markdown."""
    rows = [("set", "read by", "n", "right", "false", "rule: right", "rule: false")]
    for own, other in zip(reasoner, rule, strict=True):
        cells = shares(share for row in (own, other) for share in (row["right"]["accuracy"], row["false"]))
        rows.append((own["set"], own["prompt"], str(own["right"]["n"]), *cells))
    return f"""# {name}

A text reasoner for SOPHIA: a causal language model (Qwen2) of {recipe["parameters"] / 1e6:.2f} M parameters. It is the
language part of a bundled model, taught true captions with questions. It was never shown a picture. Made by
`rftkit nano reasoner`, licence Apache-2.0, no outside data.
```
rftkit run --method sophia --reasoner local --reasoner-model {name}
```

Recipe: `{json.dumps({key: value for key, value in recipe.items() if key != "parameters"})}`

It was shown captions that suffice alone, so it answers others too, where the exact rule says that it cannot tell.

## What it makes of true captions, per cent of test pictures
One reasoning each, at temperature 1, as in a run. *false*: thoughts with something untrue of the picture, or a wrong
step. Beside it is the exact rule with its usual slips, on the same captions.

{table_of(rows)}
"""
