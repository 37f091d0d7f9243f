"""Every claim of the paper that has a number, beside what the runs of a report say of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rftkit.claims import NAMES, cell, decide, paired
from rftkit.comparisons import set_rows, size_rows
from rftkit.paper import paper_tables
from rftkit.sections import families, is_headline
from rftkit.settings import METHODS, read_claims
from rftkit.stats import bootstrap, interval

# What stands here for a column of the paper: a part of a set, or its measure as a whole (None).
COUNTERPARTS = {"CV-Bench": None, "MathVista": None, "PuzzleVQA": "patterns", "AlgoPuzzleVQA": "untrained kinds",
                "all": None}  # fmt: skip
# Sets of drawn scenes, and the paper's columns, of what is done to thoughts.
THOUGHTS = {"math": "MathVista", "spatial": "CVBench", "puzzle": "PuzzleVQA"}
HOLM, ALONE, COUNTED = "p, Holm-corrected", "95 % interval, uncorrected", "counted"


def claim_rows(sections: dict, places: Sequence[Path]) -> list[dict[str, Any]]:
    """A row for each claim of the paper that these runs say something of.

    `claim` and `set` say what is compared and on what; `paper` the paper's number and `here` ours, (mean, low, high)
    with a 95 % interval or (number,), both in `unit` (`points`: -1..1; `times`; `%`: 0..1); `runs` and `smallest` as
    of `claims.decide`; `by` what `verdict` rests on.

    Args:
        sections: as of `sections.load_runs`.
        places: where they are, and with them what notebooks 05 and 06 wrote (`matrix-*.csv`, `thoughts-*.json`).
    """
    together = families(sections)
    ours = {key: methods for key, methods in together.items() if _is_ours(key[0], key[2].split(", "))}
    headline = {key: methods for key, methods in ours.items() if is_headline(*key, together)}
    by_set = {
        name: [row for row in rows if _is_ours(row["profile"], {base for base, _ in row["runs"]})]
        for name, rows in set_rows(sections).items()
    }
    of_runs = (
        _headline(headline),
        _set_by_set(by_set),
        _sft_ahead(by_set),
        _sizes(sections),
        _times(ours),
        _dpo(headline),
    )
    return [row for rows in (*of_runs, _free_lunch(places), _thoughts(places)) for row in rows]


def _is_ours(profile: str, models: Iterable[str]) -> bool:
    """Whether these runs stand beside the paper's 2B model: the design's base models, or that model itself."""
    return profile == "gpu-2b" or (profile == "nano" and set(models) <= set(read_claims()["design"]["bases"]))


def _row(claim: str, place: str, paper: float | str, here: tuple[float, ...], by: str, unit="points", **more: Any):
    """A row; without a verdict its own is that of the interval, or of the number, beside no difference."""
    nothing = 1.0 if unit == "times" else 0.0
    above = paper > nothing if isinstance(paper, float) else paper == "above"
    decided = len(here) == 1 or here[1] > nothing or here[2] < nothing
    few = len(more.get("runs", ())) < read_claims()["fewest_runs"] and "runs" in more
    same = (here[0] > nothing) == above
    verdict = "too few seeds" if few else "undecided" if not decided else "same direction" if same else "opposite"
    return {
        "claim": claim,
        "set": place,
        "paper": paper,
        "here": here,
        "unit": unit,
        "by": by,
        "verdict": verdict,
    } | more


def _headline(headline: dict) -> Iterator[dict[str, Any]]:
    """The primary comparisons for which the paper has a number."""
    for (_, dataset, _), methods in headline.items():
        for row in decide(methods):
            if row["paper"] is not None:
                more = {name: row[name] for name in ("runs", "smallest", "verdict")}
                place = f"{dataset} ({NAMES.get(row['measure'], row['measure'])}); mean of eleven sets"
                yield _row(row["claim"], place, row["paper"], row["difference"], HOLM, **more)


def _share_row(claim: str, place: str, paper: float, here: float) -> dict[str, Any]:
    """A row of shares (0-1) that are both below a half, or both above, or not."""
    verdict = "same direction" if (here < 0.5) == (paper < 0.5) else "opposite"
    return {
        "claim": claim,
        "set": place,
        "paper": paper,
        "here": (here,),
        "unit": "%",
        "by": COUNTED,
        "verdict": verdict,
    }


def _set_by_set(by_set: dict[str, list]) -> Iterator[dict[str, Any]]:
    """The comparisons over sets where the paper has a number for the set's task: not for classification, of which it
    has one mean over its sets, which the headline has."""
    for comparison, rows in by_set.items():
        for row in rows:
            for column, part in COUNTERPARTS.items():
                if "H" in row["paper"] or column not in row["paper"]:
                    continue
                paper, place = row["paper"][column], f"{row['set']} ({part or row['measure']}); {column}"
                if part is None:
                    more = {name: row[name] for name in ("runs", "smallest")}
                    same = "same direction" if (row["difference"][0] > 0) == (paper > 0) else "opposite"
                    more["verdict"] = row["verdict"] if not row["verdict"].endswith(" ahead") else same
                    yield _row(comparison, place, paper, row["difference"], HOLM, **more)
                elif part in row["parts"]:
                    yield _row(comparison, place, paper, row["parts"][part], ALONE, runs=row["runs"])


def _sft_ahead(by_set: dict[str, list]) -> Iterator[dict[str, Any]]:
    """On how many classification sets SFT is ahead of RL without thinking (the paper: EuroSAT and Flowers)."""
    comparisons = read_claims()["sets"]["comparisons"]
    names = [c["name"] for c in comparisons if (c["first"], c["second"]) == ("no_thinking_rl", "sft")]
    gains = [row["difference"][0] for name in names for row in by_set.get(name, []) if "H" in row["paper"]]
    theirs = [
        found["SFT"]["h"] > found["No-Thinking-RFT"]["h"]
        for name, found in paper_tables()["base_to_new"].items()
        if isinstance(found, dict) and "SFT" in found and not name.startswith("Average")
    ]
    if len(gains) > 1:
        place = f"{len(gains)} classification sets; {len(theirs)}"
        here = sum(gain < 0 for gain in gains) / len(gains)
        yield _share_row("SFT is ahead of RL without thinking (H) on so many sets", place, float(np.mean(theirs)), here)


def _sizes(sections: dict) -> Iterator[dict[str, Any]]:
    """What a larger model gains by thinking, minus what a smaller one does."""
    for row in size_rows(sections):
        if row["paper"] is not None:
            yield _row("Larger models profit more from thinking", row["set"], row["paper"], row["difference"], ALONE,
                       runs=row["runs"])  # fmt: skip


def _times(ours: dict) -> Iterator[dict[str, Any]]:
    """How many times as long CLS-RL trains as No-Thinking-RL, of runs with the same base and seed."""
    times = paper_tables()["training_time"]
    imagenet = [times["imagenet_4shot_2b"][method]["train_min"] for method in ("Thinking-RFT", "No-Thinking-RFT")]
    sat = [times["sat_2b_min"][method] for method in ("Thinking-RFT", "No-Thinking-RFT")]
    for (_, dataset, _), methods in ours.items():
        paper = {"shapes": ("ImageNet", imagenet), "spatial": ("SAT", sat)}.get(dataset)
        seconds = [
            {
                (run["model"], run["seed"]): run["training"]["seconds"]
                for run in methods.get(name, [])
                if run["training"]
            }
            for name in ("cls_rl", "no_thinking_rl")
        ]
        both = sorted(seconds[0].keys() & seconds[1].keys())
        if paper and both:
            ratios = np.array([[seconds[0][run] / seconds[1][run]] for run in both])
            draws = bootstrap(ratios, np.zeros(1), [base for base, _ in both])
            here = (float(ratios.mean()), *interval(draws))
            yield _row("Thinking before the answer takes longer to train", f"{dataset}; {paper[0]}",
                       paper[1][0] / paper[1][1], here, ALONE, "times", runs=both)  # fmt: skip


def _dpo(headline: dict) -> Iterator[dict[str, Any]]:
    """DPO in place of GRPO (table 18; aircraft is its one classification set)."""
    table = paper_tables()["dpo_comparison"]
    kinds = {"dpo": ("own", "DPO model negatives"), "dpo_random": ("random", "DPO random negatives")}
    for (_, dataset, _), methods in headline.items():
        for control, (kind, name) in kinds.items():
            modes = METHODS["sft"].mode, METHODS["cls_rl"].mode
            found = paired(methods.get(f"sft+{control}", []), methods.get("cls_rl", []), *modes)
            if "h" in found:
                paper, (runs, _, _) = (table[name][0] - table["Thinking-RFT"][0]) / 100, found["h"]
                claim = f"DPO with {kind} wrong answers, minus thinking RL"
                yield _row(claim, f"{dataset} (H); FGVCAircraft", paper, cell(found["h"]), ALONE, runs=runs)


def _free_lunch(places: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The mean gain on sets that were not trained on (figures 4 and 7)."""
    derived = paper_tables()["cross_dataset"]["derived"]["mean_off_diagonal_gain"]
    for method in ("cls_rl", "no_thinking_rl"):
        found = [table for place in places for table in sorted(Path(place).rglob(f"matrix-{method}*.csv"))]
        tables = [pd.read_csv(path, index_col=0) for path in found]
        gains = [g / 100 for table in tables for on, row in table.iterrows() for to, g in row.items() if on != to]
        if gains:
            paper = derived[METHODS[method].paper] / 100
            claim = f"{METHODS[method].title} gains on sets it was not trained on"
            place = f"{len(gains)} pairs of sets, {sum(gain > 0 for gain in gains)} above zero"
            yield _row(claim, place, paper, (float(np.mean(gains)),), COUNTED)


def _thoughts(places: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """What notebook 06 counted: whether Adaptive-Thinking thinks, thoughts emptied, thoughts and answers at odds."""
    paper, chosen = paper_tables()["thinking_model_with_empty_think_tag"], paper_tables()["adaptive_response_type"]
    for path in (path for place in places for path in sorted(Path(place).rglob("thoughts-*.json"))):
        kept = json.loads(path.read_text())
        dataset = path.stem.split("-")[1]
        column = THOUGHTS.get(dataset)
        if column is None:
            continue
        place = f"{dataset}; {column}"
        says, share = chosen["percent_with_thinking"]["2B"][column] / 100, kept["thinks"]
        yield _share_row("Adaptive-Thinking thinks in so many test answers", place, says, share)
        after = [row["empty"] - row["own"] for name, row in kept["interventions"].items() if "after" in name]
        rows = (paper["2B"][row][paper["columns"].index(column)] for row in ("empty think tag", "with thinking"))
        emptied, with_it = rows
        yield _row("A model trained to think, its thoughts emptied: the difference", place, (emptied - with_it) / 100,
                   (float(np.mean(after)),), COUNTED)  # fmt: skip
        said = kept["agreement"][METHODS["cls_rl"].title]
        everywhere = sum(row["share"] * row["accuracy"] for row in said)
        at_odds = [row["accuracy"] - everywhere for row in said if row["thought"] == "disagrees"]
        if at_odds:
            claim = "Answers at odds with their own thoughts: accuracy, minus the average"
            yield _row(claim, f"{dataset}; figure 2", "below", (at_odds[0],), COUNTED)
