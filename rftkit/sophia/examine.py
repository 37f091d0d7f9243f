"""What a model answers, asserts and sees: the same measures after SOPHIA and after the kit's other methods."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from rftkit.common.statistics import proportion
from rftkit.evaluate import answer_rows
from rftkit.run import generation_options, load_run, test_splits
from rftkit.runs.folder import read_settings, write_table
from rftkit.settings import METHODS, Settings
from rftkit.sophia.captions import PROMPTS, USUAL, drawn_task, items
from rftkit.sophia.hallucination import CaptionFacts, abstains, by_length, caption_facts, thoughts_table
from rftkit.sophia.speak import captions
from rftkit.tasks.example import Example
from rftkit.tasks.images import with_blanks

BEFORE, AFTER = "before", "after"  # training: when pictures are captioned
BLANKS = 100  # test items a part that are asked once more with blank pictures; pictures that are captioned


def examine(
    run: Settings, model, processor, tests: dict[str, list[Example]], path: Path, mode: str = "thinking"
) -> dict[str, Any]:
    """Accuracy by part with intervals, what thoughts assert falsely, errors against length, answers to blank pictures.

    Every answer is a row of `path`.
    """
    tables, found, rule, options = [], {"eval": {}}, run.scoring, generation_options(run, mode)
    for part, examples in tests.items():
        rows = answer_rows(model, processor, examples, mode, rules=[rule], **options)
        found["eval"][part] = proportion(int(sum(row[rule] for row in rows)), len(rows))
        if run.dataset in USUAL:
            own = items(drawn_task(run.dataset), "test", part, len(examples), run.test_seed)
            table = thoughts_table(own, rows)
        else:
            table = pd.DataFrame(rows)
        tables.append(table.assign(split=part, abstains=[abstains(row["completion"], mode) for row in rows]))
    answers = pd.concat(tables, ignore_index=True)
    write_table(path, answers.to_dict("records"))
    found["abstains"] = float(answers["abstains"].mean())
    if run.dataset in USUAL:
        found["thoughts"] = thought_shares(answers)
        found["by_length"] = by_length(answers, rule).to_dict("records")
    unseen = with_blanks([example for examples in tests.values() for example in examples[:BLANKS]])
    rows = answer_rows(model, processor, unseen, mode, rules=[rule], **options)
    blank = {"abstains": [abstains(row["completion"], mode) for row in rows], "right": [row[rule] for row in rows]}
    return found | {"blank": {"n": len(rows)} | {name: sum(own) / len(rows) for name, own in blank.items()}}


def thought_shares(answers: pd.DataFrame) -> dict[str, float | None]:
    """Of a table of answers: the share of numbers and names taken that are not on the picture (`invented`), of thoughts
    with such a one, of steps that are wrong, of thoughts that take exactly the right numbers (None where there are none
    to take, as in puzzles); false statements each."""
    right = answers["right_numbers"]
    return {
        "invented": float(answers["invented"].sum() / max(1, answers["asserted"].sum())),
        "with_invented": float((answers["invented"] > 0).mean()),
        "wrong_steps": float(answers["wrong_steps"].sum() / max(1, answers["steps"].sum())),
        "right_numbers": float(right.fillna(False).astype(bool).mean()) if right.notna().any() else None,
        "false": float(answers["false"].mean()),
    }


def seen_rows(model, processor, dataset: str, prompt: str) -> list[dict[str, Any]]:
    """Greedy captions of test pictures beside the true ones: id, group, caption and `CaptionFacts` of each.

    None of a set without scenes.
    """
    if dataset not in USUAL:
        return []
    own = items(drawn_task(dataset), "test", "all", BLANKS)
    said = captions(model, processor, [item.example for item in own], PROMPTS[prompt])
    return [
        {"id": item.example.id, "group": item.example.group, "caption": text} | vars(caption_facts(item, prompt, text))
        for item, (text,) in zip(own, said, strict=True)
    ]


def caption_means(rows: list[dict[str, Any]]) -> dict[str, float] | None:
    """Means of the `CaptionFacts` of `seen_rows`; None without rows."""
    names = [field.name for field in fields(CaptionFacts)] if rows else ()
    return {name: sum(row[name] for row in rows) / len(rows) for name in names} or None


def examine_run(folder: Path, path: Path) -> dict[str, Any]:
    """`examine` and `caption_means` of one of the kit's complete runs (GRPO, SFT, RAFT, zero-shot), in its own mode; an
    untrained model is asked to think. Every answer is a row of `path`."""
    run = read_settings(folder)
    method = METHODS[run.method]
    model, processor = load_run(run, folder if method.trainer else None)
    mode = method.mode if method.trainer else "thinking"
    found = examine(run, model, processor, test_splits(run), path, mode)
    seen = seen_rows(model, processor, run.dataset, USUAL.get(run.dataset, ""))
    return found | {"captions": caption_means(seen)}
