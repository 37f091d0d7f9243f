"""SOPHIA's stages before the update, each of which leaves a Parquet file that can be looked at.

A stage is made in batches. Those that are done stand beside it until it is whole: a killed one goes on with the next.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from transformers import set_seed

from rftkit.common.errors import UserError
from rftkit.rewards import score
from rftkit.runs.folder import write_table
from rftkit.sophia.captions import PROMPTS, Item, true_caption
from rftkit.sophia.hallucination import caption_facts
from rftkit.sophia.reasoners import FAULTS, Guarded, Problem, Reasoner
from rftkit.sophia.selection import caption_rewards
from rftkit.sophia.speak import captions
from rftkit.tasks.example import TASK_RULES, Example

PICTURES, CAPTIONS = 64, 128  # of a batch


def staged(
    path: Path, keys: pd.DataFrame, count: int, size: int, make: Callable[[range], list[dict]], *columns: str
) -> pd.DataFrame:
    """A stage's table, from its file or made now.

    Args:
        keys: the columns that say what each row is about, in order: another table is refused.
        count: how many things it goes through, `size` of them in a batch.
        make: the rows of a batch; the same numbers must give the same rows.
        columns: what a row has beside its keys.
    """
    parts, there = path.with_suffix(".parts"), path.is_file()
    if there:
        table = read_stage(path)
    else:
        parts.mkdir(parents=True, exist_ok=True)
        files = []
        for start in range(0, count, size):
            file = parts / f"{start:08d}.parquet"
            if not file.is_file():
                write_table(file, make(range(start, min(start + size, count))))
            files.append(file)
        table = pd.concat([read_stage(file) for file in files], ignore_index=True)
    if not {*keys, *columns} <= {*table} or table[[*keys]].to_numpy().tolist() != keys.to_numpy().tolist():
        raise UserError(f"'{path if there else parts}' is not what this stage writes: remove it to make it anew")
    if not there:
        write_table(path, table.to_dict("records"))
    shutil.rmtree(parts, ignore_errors=True)
    return table if there else read_stage(path)


def _each(keys: pd.DataFrame, name: str, count: int) -> pd.DataFrame:
    """Each of the rows so often, numbered in a column of this name."""
    rows = keys.loc[keys.index.repeat(count)].reset_index(drop=True)
    return rows.assign(**{name: [number for _ in range(len(keys)) for number in range(count)]})


def read_stage(path: Path) -> pd.DataFrame:
    """What a stage left; UserError if it is truncated, or changed."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is not what a stage writes: remove it to make it anew") from error


def sample_captions(
    path: Path, model, processor, examples: Sequence[Example], prompt: str, k: int, seed: int, **options
) -> pd.DataFrame:
    """K captions of each picture, drawn without the question (paper, section 3.1): item, k, caption."""

    def make(batch: range) -> list[dict]:
        set_seed(seed + batch.start)  # the same captions when a killed stage goes on
        part = [examples[item] for item in batch]
        said = captions(model, processor, part, PROMPTS.get(prompt, prompt), samples=k, **options)
        return [{"item": item, "k": place, "caption": text}
                for item, own in zip(batch, said, strict=True) for place, text in enumerate(own)]  # fmt: skip

    keys = _each(pd.DataFrame({"item": range(len(examples))}), "k", k)
    return staged(path, keys, len(examples), PICTURES, make, "caption")


def true_captions(path: Path, items: Sequence[Item], prompt: str) -> pd.DataFrame:
    """The true caption of each picture, one each: the ceiling."""

    def make(batch: range) -> list[dict]:
        return [{"item": item, "k": 0, "caption": true_caption(items[item].scene, prompt)} for item in batch]

    return staged(path, _each(pd.DataFrame({"item": range(len(items))}), "k", 1), len(items), PICTURES, make, "caption")


def sample_reasonings(
    path: Path, said: pd.DataFrame, examples: Sequence[Example], prompt: str, reasoner: Guarded, n: int, seed: int
) -> pd.DataFrame:
    """N reasonings on each caption, with its question: item, k, n, text (None where there is none), fault."""

    def make(batch: range) -> list[dict]:
        rows = said.iloc[batch.start : batch.stop]
        problems = [
            Problem(f"{row.item}/{row.k}", examples[row.item].question, examples[row.item].choices, row.caption, prompt)
            for row in rows.itertuples()
        ]
        return [{"item": row.item, "k": row.k, "n": place} | given._asdict()
                for row, own in zip(rows.itertuples(), reasoner.reason(problems, n, seed), strict=True)
                for place, given in enumerate(own)]  # fmt: skip

    return staged(path, _each(said[["item", "k"]], "n", n), len(said), CAPTIONS, make, "text", "fault")


def fault_counts(reasonings: pd.DataFrame) -> dict[str, int]:
    """How many reasonings were asked for, and with how many something is wrong (`Reasoning`)."""
    return {"asked": len(reasonings)} | {fault: int((reasonings["fault"] == fault).sum()) for fault in FAULTS}


def reward(path: Path, reasonings: pd.DataFrame, examples: Sequence[Example], rule: str, tokenizer) -> pd.DataFrame:
    """The reasonings with R(y) (`right`), their length in the learner's `tokens`, and R(c) (`r_caption`)."""

    def make(batch: range) -> list[dict]:
        return rewarded(given.iloc[batch.start : batch.stop], examples, rule, tokenizer)

    given = reasonings.drop(columns="fault")
    table = staged(path, given[["item", "k", "n"]], len(reasonings), 4096, make, "text", "right", "tokens")
    return table.assign(r_caption=caption_rewards(table))


def rewarded(reasonings: pd.DataFrame, examples: Sequence[Example], rule: str, tokenizer) -> list[dict]:
    """The rows of reasonings with `right` and `tokens`."""
    rows = []
    for row in reasonings.to_dict("records"):
        text = row["text"] if isinstance(row["text"], str) else None  # a table may have NaN in its place
        right = text is not None and score(text, examples[row["item"]], "thinking", rule).accuracy == 1
        tokens = 0 if text is None else len(tokenizer(text, add_special_tokens=False)["input_ids"])
        rows.append(row | {"text": text, "right": int(right), "tokens": tokens})
    return rows


def by_hand(example: Example, said: Sequence[str], prompt: str, reasoner: Reasoner, n: int, seed: int, tokenizer):
    """A picture's captions to their rewards, as `reward` has them (item is 0), without a file."""
    problems = [Problem(f"0/{k}", example.question, example.choices, caption, prompt) for k, caption in enumerate(said)]
    rows = [
        {"item": 0, "k": k, "n": place, "text": text}
        for k, own in enumerate(reasoner.reason(problems, n, seed)) for place, text in enumerate(own)
    ]  # fmt: skip
    table = pd.DataFrame(rewarded(pd.DataFrame(rows), [example], TASK_RULES[example.task], tokenizer))
    return table.assign(r_caption=caption_rewards(table))


def flow(rewards: pd.DataFrame, selected: pd.DataFrame, said: pd.DataFrame, items: Sequence[Item], prompt: str) -> dict:
    """How the rewards flow, in shares (0-1): captions whole, with R(c) > 0.75, of these whole; reasonings right on
    captions that are not whole; kept rows, and of them those with whole captions. For people: no stage reads it."""
    facts = [caption_facts(items[row.item], prompt, row.caption) for row in said.itertuples()]
    seen = said.assign(whole=[fact.whole for fact in facts]).set_index(["item", "k"])["whole"]
    every = rewards.join(seen, on=["item", "k"])
    of_captions = every.groupby(["item", "k"]).first()
    kept = selected.join(seen, on=["item", "k"])
    good = of_captions["r_caption"] > 0.75
    return {
        "captions": len(said),
        "whole": float(of_captions["whole"].mean()),
        "good": float(good.mean()),
        "good_whole": _mean(of_captions.loc[good, "whole"]),
        "right": float(every["right"].mean()),
        "right_by_wrong_caption": _mean(every.loc[~every["whole"].astype(bool), "right"]),
        "kept": len(kept),
        "kept_right": _mean(kept["right"]),
        "kept_whole": _mean(kept["whole"]),
    }


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if len(values) else None
