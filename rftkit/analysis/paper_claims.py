"""The paper's claims that have a number, beside what the runs of a report say of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rftkit.analysis.claims import NAMES, cell, decide, paired, smallest_seen
from rftkit.analysis.comparisons import set_rows, size_rows
from rftkit.analysis.paper import paper_sets, paper_tables
from rftkit.common.errors import UserError
from rftkit.common.paths import LOGS
from rftkit.common.statistics import bootstrap, interval
from rftkit.runs.collect import PROTOCOL_TITLES, families, is_headline
from rftkit.settings import METHODS, read_claims

PROFILES = ("nano", "gpu-2b")  # whose runs stand beside the paper's 2B model
# What stands here for a column of the paper: a part of a set, or the set's measure as a whole (None).
COUNTERPARTS = {"CV-Bench": None, "MathVista": None, "MATH-Vision": None, "PuzzleVQA": "patterns",
                "AlgoPuzzleVQA": "untrained kinds", "all": None}  # fmt: skip
# Columns of the paper's tables about thoughts, by task.
THOUGHTS = {"math": ("MathVista", "MathVision"), "spatial": ("CVBench",), "puzzle": ("PuzzleVQA", "AlgoPuzzleVQA")}
HOLM, ALONE, COUNTED = "p, Holm-corrected", "95 % interval, uncorrected", "counted, no interval"
Row = dict[str, Any]


def claim_rows(sections: dict, places: Sequence[Path]) -> list[Row]:
    """A row for each claim of the paper that these runs say something of.

    `claim` and `set` say what is compared, and on what here and there; `paper` the paper's number and `here` ours,
    (mean, low, high) with a 95 % interval or (number,), both in `unit` (`points`: -1..1; `times`; `%`: 0..1); `runs`
    and `smallest` as of `claims.decide`; `by` what `verdict` rests on: what is counted, without an interval and
    `smallest`, has the paper's sign or the other one, and is not decided.

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
    of_runs = _headline(headline), _set_by_set(by_set), _sft_ahead(by_set), _sizes(sections), _times(ours)
    return [row for rows in (*of_runs, _dpo(headline), _free_lunch(places), _thoughts(places)) for row in rows]


def _is_ours(profile: str, models: Iterable[str]) -> bool:
    """Whether these runs stand beside the paper's 2B model: the design's base models, or that model itself."""
    return profile in PROFILES and (profile != "nano" or set(models) <= set(read_claims()["design"]["bases"]))


def _row(
    claim: str, place: str, paper: float | str, here: tuple[float, ...], by: str, unit: str = "points", **more: Any
) -> Row:
    """A row; without a verdict its own is that of the interval, or the side of nothing (or a half) it is on."""
    middle = {"points": 0.0, "times": 1.0, "%": 0.5}[unit]
    above = paper == "above" if isinstance(paper, str) else paper > middle
    same = (here[0] > middle) == above
    if "runs" in more and len(more["runs"]) < read_claims()["fewest_runs"]:
        verdict = "too few seeds"
    elif len(here) == 1:
        verdict = "same side" if same else "other side"
    elif here[1] <= middle <= here[2]:
        verdict = "undecided"
    else:
        verdict = "same direction" if same else "opposite"
    row = {"claim": claim, "set": place, "paper": paper, "here": here, "unit": unit, "by": by, "verdict": verdict}
    return row | more


def _averaged(dataset: str) -> str:
    """Of how many sets the paper's number beside this classification set is the mean."""
    protocol = next((name for name, title in PROTOCOL_TITLES.items() if title and dataset.endswith(title)), None)
    return f"mean of {paper_sets('classification', protocol)} sets"


def _headline(headline: dict) -> Iterator[Row]:
    """The primary comparisons for which the paper has a number."""
    for (_, dataset, _), methods in headline.items():
        for row in decide(methods):
            if row["paper"] is not None:
                more = {name: row[name] for name in ("runs", "smallest", "verdict")}
                place = f"{dataset} ({NAMES.get(row['measure'], row['measure'])}); {_averaged(dataset)}"
                yield _row(row["claim"], place, row["paper"], row["difference"], HOLM, **more)


def _set_by_set(by_set: dict[str, list]) -> Iterator[Row]:
    """The comparisons over sets where the paper has a number for the task; of classification, base to new, it has a
    mean over sets, which the headline has."""
    for comparison, rows in by_set.items():
        for row in rows:
            for column, part in COUNTERPARTS.items():
                if "H" in row["paper"] or column not in row["paper"]:
                    continue
                paper, there = row["paper"][column], _averaged(row["set"]) if column == "all" else column
                place = f"{row['set']} ({part or row['measure']}); {there}"
                if part is None:
                    more = {name: row[name] for name in ("runs", "smallest")}
                    same = "same direction" if (row["difference"][0] > 0) == (paper > 0) else "opposite"
                    more["verdict"] = same if row["verdict"].endswith(" ahead") else row["verdict"]
                    yield _row(comparison, place, paper, row["difference"], HOLM, **more)
                elif part in row["parts"]:
                    more = {"runs": row["runs"], "smallest": row["smallest_of_parts"][part]}
                    yield _row(comparison, place, paper, row["parts"][part], ALONE, **more)


def _sft_ahead(by_set: dict[str, list]) -> Iterator[Row]:
    """On how many classification sets SFT is ahead of RL without thinking (the paper: on EuroSAT and Flowers)."""
    comparisons = read_claims()["sets"]["comparisons"]
    names = [c["name"] for c in comparisons if (c["first"], c["second"]) == ("no_thinking_rl", "sft")]
    rows = [row for name in names for row in by_set.get(name, []) if row["measure"] == "h"]
    gains, runs = [row["difference"][0] for row in rows], sorted({run for row in rows for run in row["runs"]})
    sets = [of for name, of in paper_tables()["base_to_new"].items() if isinstance(of, dict) and "SFT" in of
            and not name.startswith("Average")]  # fmt: skip
    if len(gains) > 1:
        claim = "SFT (here: on the answer) is ahead of RL without thinking (H) on so many sets"
        theirs = sum(of["SFT"]["h"] > of["No-Thinking-RFT"]["h"] for of in sets) / len(sets)
        here = sum(gain < 0 for gain in gains) / len(gains)
        yield _row(claim, f"{len(gains)} classification sets; {len(sets)}", theirs, (here,), COUNTED, "%", runs=runs)


def _sizes(sections: dict) -> Iterator[Row]:
    """What a larger model gains by thinking, minus what a smaller one does."""
    for row in size_rows(sections):
        for column, paper in row["paper"].items():
            place = f"{row['set']} ({row['measure']}); {column}, 7B minus 2B"
            claim = "Larger models profit more from thinking"
            more = {name: row[name] for name in ("runs", "smallest")}
            yield _row(claim, place, paper, row["difference"], ALONE, **more)


def _times(ours: dict) -> Iterator[Row]:
    """How many times as long CLS-RL trains as No-Thinking-RL, of runs with the same base and seed."""
    times = paper_tables()["training_time"]
    imagenet = {method: of["train_min"] for method, of in times["imagenet_4shot_2b"].items()}
    theirs = {"shapes": ("ImageNet, few-shot", imagenet), "spatial": ("SAT", times["sat_2b_min"])}
    for (_, dataset, _), methods in ours.items():
        first, second = (
            {
                (run["model"], run["seed"]): run["training"]["seconds"]
                for run in methods.get(name, [])
                if run["training"]
            }
            for name in ("cls_rl", "no_thinking_rl")
        )
        both = sorted(first.keys() & second.keys())
        if dataset in theirs and both:
            there, minutes = theirs[dataset]
            ratios = np.array([[first[run] / second[run]] for run in both])
            draws = bootstrap(ratios, np.zeros(1), [base for base, _ in both])
            here, more = (float(ratios.mean()), *interval(draws)), {"runs": both, "smallest": smallest_seen(draws)}
            claim, paper = "Thinking takes longer to train", minutes["Thinking-RFT"] / minutes["No-Thinking-RFT"]
            yield _row(claim, f"{dataset}; {there}", paper, here, ALONE, "times", **more)


def _dpo(headline: dict) -> Iterator[Row]:
    """DPO in place of GRPO (table 18; aircraft is its one classification set)."""
    table = paper_tables()["dpo_comparison"]
    kinds = {"dpo": ("own", "DPO model negatives"), "dpo_random": ("random", "DPO random negatives")}
    for (_, dataset, _), methods in headline.items():
        for control, (kind, name) in kinds.items():
            modes = METHODS["sft"].mode, METHODS["cls_rl"].mode
            found = paired(methods.get(f"sft+{control}", []), methods.get("cls_rl", []), *modes)
            if "h" in found:
                paper, (runs, _, draws) = (table[name][0] - table["Thinking-RFT"][0]) / 100, found["h"]
                more = {"runs": runs, "smallest": smallest_seen(draws)}
                claim, place = f"DPO with {kind} wrong answers, minus thinking RL", f"{dataset} (H); aircraft, few-shot"
                yield _row(claim, place, paper, cell(found["h"]), ALONE, **more)


def _free_lunch(places: Sequence[Path]) -> Iterator[Row]:
    """The mean gain on sets that were not trained on (figures 4 and 7)."""
    theirs, means = paper_tables()["cross_dataset"]["derived"]["mean_off_diagonal_gain"], {}
    for method in ("cls_rl", "no_thinking_rl"):
        whole = (f"matrix-{method}", f"matrix-{method}-bases-base_to_new-")
        files = _written(places, f"matrix-{method}*.csv")
        tables = [pd.read_csv(f, index_col=0) for f in files if f.stem == whole[0] or f.stem.startswith(whole[1])]
        gains = [g / 100 for table in tables for on, row in table.iterrows() for to, g in row.items() if on != to]
        if gains:
            paper, means[method] = theirs[METHODS[method].paper] / 100, float(np.mean(gains))
            place = f"{len(gains)} pairs of sets, {sum(gain > 0 for gain in gains)} above zero; 110"
            yield _row(f"{METHODS[method].title} gains on sets not trained on", place, paper, (means[method],), COUNTED)
    if len(means) == 2:
        thinking, without = (theirs[METHODS[method].paper] for method in means)
        here = means["no_thinking_rl"] - means["cls_rl"]
        yield _row(
            "Without thinking more is gained there", "the same pairs", (without - thinking) / 100, (here,), COUNTED
        )


def _written(places: Sequence[Path], pattern: str) -> list[Path]:
    """What notebooks wrote beside runs of our profiles, or kept."""
    found = sorted({path.resolve() for place in places for path in Path(place).rglob(pattern)})
    return [path for path in found if path.parent.name in PROFILES or path.is_relative_to(LOGS)]


def _thoughts(places: Sequence[Path]) -> Iterator[Row]:
    """What notebook 06 counted: whether Adaptive-Thinking thinks, thoughts emptied, thoughts and answers at odds."""
    for path in _written(places, "thoughts-*.json"):
        try:
            kept = json.loads(path.read_text())
            if _is_ours(kept["profile"], {model for model, _ in kept["runs"]}):
                yield from _of_thoughts(kept)
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"'{path}' is not what notebook 06 writes: remove it and run the notebook again") from error


def _of_thoughts(kept: dict[str, Any]) -> Iterator[Row]:
    emptied, chosen = paper_tables()["thinking_model_with_empty_think_tag"], paper_tables()["adaptive_response_type"]
    runs = [(model, seed) for model, seed in kept["runs"]]
    for column in THOUGHTS.get(kept["set"], ()):
        place, at = f"{kept['set']}; {column}", emptied["columns"].index(column)
        says = chosen["percent_with_thinking"]["2B"][column] / 100
        yield _row("Adaptive-Thinking thinks in so many test answers", place, says, (kept["thinks"],), COUNTED, "%",
                   runs=runs)  # fmt: skip
        after = [row["empty"] - row["own"] for row in kept["interventions"]["after training"].values()]
        paper = (emptied["2B"]["empty think tag"][at] - emptied["2B"]["with thinking"][at]) / 100
        claim = "A model trained to think, its thoughts emptied: the difference"
        yield _row(claim, place, paper, (float(np.mean(after)),), COUNTED, runs=runs)
    said = kept["agreement"][METHODS["cls_rl"].title]
    everywhere = sum(row["share"] * row["accuracy"] for row in said)
    for row in (row for row in said if row["thought"] == "disagrees"):
        claim = "Answers at odds with their own thoughts: accuracy, minus the average"
        yield _row(claim, f"{kept['set']}; figure 2", "below", (row["accuracy"] - everywhere,), COUNTED, runs=runs)
