"""The paper's claims that have a number, beside what the runs of a report say of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from rftkit.analysis.claims import NAMES, Comparison, Difference, compared, decide
from rftkit.analysis.comparisons import set_rows, size_rows
from rftkit.analysis.cross_set import gains_elsewhere
from rftkit.analysis.paper import paper_sets, paper_tables
from rftkit.analysis.thinking import read_thoughts
from rftkit.common.paths import LOGS
from rftkit.common.statistics import bootstrap
from rftkit.runs.collect import PROTOCOL_TITLES, Sections, families, is_headline
from rftkit.settings import METHODS, read_claims

PROFILES = ("nano", "gpu-2b")  # whose runs stand beside the paper's 2B model
# What stands here for a column of the paper: a part of a set, or the set's measure as a whole (None).
COUNTERPARTS = {"CV-Bench": None, "MathVista": None, "MATH-Vision": None, "PuzzleVQA": "patterns",
                "AlgoPuzzleVQA": "untrained kinds", "all": None}  # fmt: skip
# Columns of the paper's tables about thoughts, by task.
THOUGHTS = {"math": ("MathVista", "MathVision"), "spatial": ("CVBench",), "puzzle": ("PuzzleVQA", "AlgoPuzzleVQA")}
MIDDLE = {"points": 0.0, "times": 1.0, "%": 0.5}  # on this side of it or that, by unit
HOLM, ALONE, COUNTED = "p, Holm-corrected", "95 % interval, uncorrected", "counted, no interval"
Rows = Iterator[Comparison]


def claim_rows(sections: Sections, places: Sequence[Path]) -> list[Comparison]:
    """A row for each claim of the paper that these runs say something of.

    `place` is where it was looked at here, `paper` has the paper's number by where it was looked at there. `by` says
    what the verdict rests on: what is counted, without an interval and `smallest`, has the paper's sign or the other
    one, and is not decided.

    Args:
        places: where the runs are, and with them the matrices and thoughts of notebooks 05 and 06.
    """
    together = families(sections)
    ours = {section: methods for section, methods in together.items() if _is_ours(section.profile, section.models)}
    headline = {section: methods for section, methods in ours.items() if is_headline(section, together)}
    by_set = {
        name: [row for row in rows if _is_ours(row.profile, {model for model, _ in row.runs})]
        for name, rows in set_rows(sections).items()
    }
    rows = [*_headline(headline), *_set_by_set(by_set), *_sft_ahead(by_set), *_sizes(sections), *_times(ours)]
    # Folders that hold runs of PROFILES, or what is archived of them.
    found = {folder.resolve() for place in places for folder in (place, *place.rglob("*/"))}
    folders = sorted(folder for folder in found if folder.name in PROFILES or folder.is_relative_to(LOGS))
    rows += [*_dpo(headline), *_free_lunch(folders), *_thoughts(folders)]
    for row in rows:
        row.verdict = row.verdict or _verdict(row)
    return rows


def _is_ours(profile: str, models: Iterable[str]) -> bool:
    """Whether these runs stand beside the paper's 2B model: the design's start models, or that model itself."""
    return profile in PROFILES and (profile != "nano" or set(models) <= set(read_claims()["design"]["bases"]))


def _verdict(row: Comparison) -> str:
    """That of the interval; without one, the side of nothing (or a half) it is on."""
    middle, (paper,) = MIDDLE[row.unit], row.paper.values()
    same = (row.difference[0] > middle) == (paper != "below" and paper > middle)
    if row.runs and len(row.runs) < read_claims()["fewest_runs"]:
        return "too few seeds"
    if len(row.difference) == 1:
        return "same side" if same else "other side"
    _, low, high = row.difference
    if low <= middle <= high:
        return "undecided"
    return "same direction" if same else "opposite"


def _counted(claim: str, place: str, paper: dict[str, float | str], here: float, **more: Any) -> Comparison:
    return Comparison(claim=claim, place=place, paper=paper, difference=(here,), by=COUNTED, **more)


def _averaged(dataset: str) -> str:
    """Of how many sets the paper's number beside this classification set is the mean."""
    protocol = next((name for name, title in PROTOCOL_TITLES.items() if title and dataset.endswith(title)), None)
    return f"mean of {paper_sets('classification', protocol)} sets"


def _headline(headline: Sections) -> Rows:
    """The primary comparisons for which the paper has a number."""
    for section, methods in headline.items():
        for row in decide(methods):
            for paper in row.paper.values():
                place = f"{section.dataset} ({NAMES.get(row.measure, row.measure)})"
                yield replace(row, place=place, paper={_averaged(section.dataset): paper}, by=HOLM)


def _set_by_set(by_set: dict[str, list[Comparison]]) -> Rows:
    """The comparisons over sets where the paper has a number for the task; of classification, base to new, it has a
    mean over sets, which the headline has."""
    for row in (row for rows in by_set.values() for row in rows if "H" not in row.paper):
        for column, part in COUNTERPARTS.items():
            if column not in row.paper:
                continue
            paper = {_averaged(row.dataset) if column == "all" else column: row.paper[column]}
            found = replace(row, place=f"{row.dataset} ({part or row.measure})", paper=paper, by=HOLM, beside={})
            if part in row.beside:
                found.difference, found.smallest = row.beside[part], row.smallest_beside[part]
                found.by, found.verdict = ALONE, ""
            elif row.verdict.endswith(" ahead"):
                same = (row.difference[0] > 0) == (row.paper[column] > 0)
                found.verdict = "same direction" if same else "opposite"
            if part is None or part in row.beside:
                yield found


def _sft_ahead(by_set: dict[str, list[Comparison]]) -> Rows:
    """On how many classification sets SFT is ahead of RL without thinking (the paper: on EuroSAT and Flowers)."""
    comparisons = read_claims()["sets"]["comparisons"]
    names = [c["name"] for c in comparisons if (c["first"], c["second"]) == ("no_thinking_rl", "sft")]
    rows = [row for name in names for row in by_set.get(name, []) if row.measure == "h"]
    if len(rows) < 2:
        return
    table = paper_tables()["base_to_new"]
    theirs = [of for name, of in table.items() if isinstance(of, dict) and "SFT" in of and "Average" not in name]
    paper = fmean(of["SFT"]["h"] > of["No-Thinking-RFT"]["h"] for of in theirs)
    here = fmean(row.difference[0] < 0 for row in rows)
    claim, sets = "SFT (here: on the answer) is ahead of RL without thinking (H) on so many sets", str(len(theirs))
    runs = sorted({run for row in rows for run in row.runs})
    yield _counted(claim, f"{len(rows)} classification sets", {sets: paper}, here, unit="%", runs=runs)


def _sizes(sections: Sections) -> Rows:
    """What a larger model gains by thinking, minus what a smaller one does."""
    for row in size_rows(sections):
        for column, paper in row.paper.items():
            place, there = f"{row.dataset} ({row.measure})", f"{column}, 7B minus 2B"
            yield replace(row, place=place, paper={there: paper}, by=ALONE, beside={})


def _times(ours: Sections) -> Rows:
    """How many times as long CLS-RL trains as No-Thinking-RL, of runs with the same start model and seed."""
    times = paper_tables()["training_time"]
    imagenet = {method: of["train_min"] for method, of in times["imagenet_4shot_2b"].items()}
    theirs = {"shapes": ("ImageNet, few-shot", imagenet), "spatial": ("SAT", times["sat_2b_min"])}
    for section, methods in ours.items():
        seconds = [
            {run.pair: run.training.seconds for run in methods.get(method, []) if run.training}
            for method in ("cls_rl", "no_thinking_rl")
        ]
        both = sorted(seconds[0].keys() & seconds[1].keys())
        if section.dataset in theirs and both:
            there, minutes = theirs[section.dataset]
            ratios = np.array([[seconds[0][run] / seconds[1][run]] for run in both])  # [runs, 1]
            draws = bootstrap(ratios, np.zeros(1), [model for model, _ in both])
            row = Comparison.of(Difference(both, float(ratios.mean()), draws), claim="Thinking takes longer to train")
            row.place, row.unit, row.by = section.dataset, "times", ALONE
            row.paper = {there: minutes["Thinking-RFT"] / minutes["No-Thinking-RFT"]}
            yield row


def _dpo(headline: Sections) -> Rows:
    """DPO in place of GRPO (table 18; aircraft is its one classification set)."""
    table = paper_tables()["dpo_comparison"]
    kinds = {"dpo": ("own", "DPO model negatives"), "dpo_random": ("random", "DPO random negatives")}
    for section, methods in headline.items():
        for control, (kind, name) in kinds.items():
            found = compared({"first": f"sft+{control}", "second": "cls_rl"}, methods)
            if "h" in found:
                paper = {"aircraft, few-shot": (table[name][0] - table["Thinking-RFT"][0]) / 100}
                claim, place = f"DPO with {kind} wrong answers, minus thinking RL", f"{section.dataset} (H)"
                yield Comparison.of(found["h"], claim=claim, place=place, paper=paper, by=ALONE)


def _free_lunch(folders: Sequence[Path]) -> Rows:
    """The mean gain on sets that were not trained on (figures 4 and 7)."""
    theirs, means = paper_tables()["cross_dataset"]["derived"]["mean_off_diagonal_gain"], {}
    for method in ("cls_rl", "no_thinking_rl"):
        if gained := [gain for folder in folders for gain in gains_elsewhere(folder, method)]:
            means[method] = fmean(gained)
            place = f"{len(gained)} pairs of sets, {sum(gain > 0 for gain in gained)} above zero"
            paper = {"110": theirs[METHODS[method].paper] / 100}
            yield _counted(f"{METHODS[method].title} gains on sets not trained on", place, paper, means[method])
    if len(means) == 2:
        paper = {"the same pairs": (theirs["No-Thinking-RFT"] - theirs["Thinking-RFT"]) / 100}
        here = means["no_thinking_rl"] - means["cls_rl"]
        yield _counted("Without thinking more is gained there", "", paper, here)


def _thoughts(folders: Sequence[Path]) -> Rows:
    """What notebook 06 counted: whether Adaptive-Thinking thinks, thoughts emptied, thoughts and answers at odds."""
    emptied, chosen = paper_tables()["thinking_model_with_empty_think_tag"], paper_tables()["adaptive_response_type"]
    with_tag, without = emptied["2B"]["with thinking"], emptied["2B"]["empty think tag"]
    written = [found for folder in folders for found in read_thoughts(folder)]
    for found in (found for found in written if _is_ours(found.profile, {model for model, _ in found.runs})):
        for column in THOUGHTS.get(found.dataset, ()):
            says = {column: chosen["percent_with_thinking"]["2B"][column] / 100}
            claim = "Adaptive-Thinking thinks in so many test answers"
            yield _counted(claim, found.dataset, says, found.thinks, unit="%", runs=found.runs)
            at = emptied["columns"].index(column)
            paper = {column: (without[at] - with_tag[at]) / 100}
            claim = "A model trained to think, its thoughts emptied: the difference"
            yield _counted(claim, found.dataset, paper, found.emptied, runs=found.runs)
        if found.at_odds is not None:
            claim = "Answers at odds with their own thoughts: accuracy, minus the average"
            yield _counted(claim, found.dataset, {"figure 2": "below"}, found.at_odds, runs=found.runs)
