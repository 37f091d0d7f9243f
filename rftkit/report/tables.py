"""Tables of a report: rows of what runs say, with intervals, beside the paper's numbers; and these as Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np

from rftkit.analysis.claims import NAMES
from rftkit.analysis.paper import paper_numbers, paper_sets
from rftkit.common.statistics import estimates
from rftkit.runs.folder import read_answers
from rftkit.settings import METHODS, read_claims
from rftkit.tasks.example import TASK_RULES

Cell = tuple[float, float, float]  # accuracy and its interval, 0-1
DECIDED = ("difference here", "p, corrected", "smallest visible", "seeds", "in the toy")


def accuracies(runs: list[dict[str, Any]], mode: str, rule: str) -> dict[str, Cell]:
    """Mean accuracy of a method's runs on each split and its harmonic mean H, with intervals."""
    return estimates(read_answers(runs, mode, rule))


def measured(runs: list[dict[str, Any]], split: str, measure: str, mode: str) -> float | None:
    """Mean over runs of a measure in `results.json` (0-1); None if no run has it."""
    found = [
        m["accuracy"]
        for run in runs
        for m in run["measures"]
        if (m["split"], m["measure"], m["mode"]) == (split, measure, mode)
    ]
    return float(np.mean(found)) if found else None


def title_of(name: str) -> str:
    """The title of a method, or of a method with a control (METHOD+CONTROL)."""
    method, _, control = name.partition("+")
    controls = read_claims()["controls"]
    return METHODS[method].title + (f", {controls.get(control, {}).get('title', control)}" if control else "")


def table_rows(methods: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row a method, in the order of METHODS: accuracy cells by rule and split, knowledge, seconds, the paper's.

    Controls stand behind their methods. Classification is scored strictly and by the paper's evaluation, the other
    tasks by their rule.
    """
    rows = []
    for name in sorted(methods, key=lambda name: (list(METHODS).index(name.partition("+")[0]), name)):
        runs, method = methods[name], METHODS[name.partition("+")[0]]
        if not runs:
            continue
        splits, rule, task = list(runs[0]["eval"]), TASK_RULES[runs[0]["task"]], runs[0]["task"]
        rules = ("strict", "lenient") if rule == "strict" else (rule,)
        seconds = [run["training"]["seconds"] for run in runs if run["training"]]
        rows.append(
            {
                "method": name,
                "title": title_of(name),
                "runs": [(run["model"], run["seed"]) for run in runs],
                "accuracy": {rule: accuracies(runs, method.mode, rule) for rule in rules},
                "likelihood": {s: measured(runs, s, "likelihood", "no_thinking") for s in splits},
                "pass@8": {s: measured(runs, s, "pass@8", method.mode) for s in splits},
                "tokens": float(np.mean([run["completion_length"] for run in runs])),
                "seconds": float(np.mean(seconds)) if seconds else 0.0,
                "paper": {} if "+" in name else paper_numbers(task, runs[0].get("protocol"), method.paper),
                "paper_sets": paper_sets(task, runs[0].get("protocol")),
            }
        )
    return rows


def _percent(cell: Cell | None) -> str:
    return "" if cell is None else f"{100 * cell[0]:.1f} [{100 * cell[1]:.1f}, {100 * cell[2]:.1f}]"


def _points(cell: Cell | None) -> str:
    return "" if cell is None else f"{100 * cell[0]:+.1f} [{100 * cell[1]:+.1f}, {100 * cell[2]:+.1f}]"


def _counted(runs: list[tuple[str, int]]) -> str:
    """How many seeds, and of how many pre-trained models if there are several."""
    bases = len({base for base, _ in runs})
    return f"{len(runs)}" + (f" on {bases} bases" if bases > 1 else "")


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, accuracy in per cent with 95 % intervals."""
    first = rows[0]["accuracy"]
    cells_of = [(rule, split) for rule in first for split in first[rule]]
    known = list(rows[0]["likelihood"])
    head = ["method", "seeds", *(f"{rule} {'H' if split == 'h' else split}" for rule, split in cells_of)]
    head += [f"knows {s}" for s in known] + [f"pass@8 {' / '.join(known)}", "tokens", "train s"]
    columns = max((list(row["paper"]) for row in rows), key=len)
    averaged = f", mean of {rows[0]['paper_sets']} sets:" if rows[0]["paper_sets"] else ""
    head += [f"paper{averaged} {' / '.join(columns)}"] if columns else []
    lines = []
    for row in rows:
        cells = [row["title"], _counted(row["runs"])]
        cells += [_percent(row["accuracy"][rule].get(split)) for rule, split in cells_of]
        cells += [_share(row["likelihood"].get(s)) for s in known]
        cells += [" / ".join(_share(row["pass@8"].get(s)) for s in known)]
        cells += [f"{row['tokens']:.1f}", f"{row['seconds']:.0f}"]
        cells += [" / ".join(f"{row['paper'][c]:.1f}" for c in columns if c in row["paper"])] if columns else []
        lines.append(cells)
    return _markdown(head, lines)


def claims_table(rows: list[dict[str, Any]]) -> str:
    """The decided claims (`rftkit.analysis.claims.decide`) as Markdown, differences in points of per cent."""
    lines = []
    for row in rows:
        paper = "" if row["paper"] is None else f"{100 * row['paper']:+.1f}"
        lines.append([row["claim"], paper, *_decided(row), "untested"])
    return _markdown(["claim of the paper", "paper, 2B", *DECIDED, "at paper scale"], lines)


def _decided(row: dict[str, Any]) -> list[str]:
    """The cells under DECIDED of a row that `claims.correct` has corrected."""
    difference = f"{NAMES.get(row['measure'], row['measure'])} {_points(row['difference'])}"
    return [difference, f"{row['p']:.3f}", f"{100 * row['smallest']:.1f}", _counted(row["runs"]), row["verdict"]]


def dose_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `claims.dose_rows` as Markdown: a claim a row, a column a share of answers not as asked."""
    doses = sorted({row["vague"] for row in rows})
    lines: dict[tuple[str, str], dict[float, str]] = {}
    for row in rows:
        cell = f"{_points(row['difference'])} {row['verdict']}, {_counted(row['runs'])}"
        lines.setdefault((row["models"], f"{row['claim']} ({row['measure']})"), {})[row["vague"]] = cell
    head = ["models", "difference, points; seeds", *(f"vague {dose:g}" for dose in doses)]
    return _markdown(head, [[*place, *(cells.get(dose, "") for dose in doses)] for place, cells in lines.items()])


def sets_table(rows: list[dict[str, Any]]) -> str:
    """The rows of a comparison of `comparisons.set_rows` as Markdown, differences in points of per cent."""
    lines = []
    for row in rows:
        paper = ", ".join(f"{column} {100 * value:+.1f}" for column, value in row["paper"].items())
        parts = "; ".join(f"{part} {_points(cell)}" for part, cell in row["parts"].items())
        lines.append([row["claim"], paper, *_decided(row), "untested", parts])
    return _markdown(["set and models", "paper, 2B", *DECIDED, "at paper scale", "parts, uncorrected"], lines)


def kinds_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `comparisons.kind_rows` as Markdown, differences in points of per cent."""
    levels = sorted({level for row in rows for level in row["levels"]})
    lines = []
    for row in rows:
        kind = row["kind"] + " (not trained on)" * row["untrained"]
        cells = [_points(row["levels"].get(level)) for level in levels]
        lines.append([row["section"], kind, _counted(row["runs"]), _points(row["all"]), *cells])
    return _markdown(["set and models", "kind", "seeds", "all levels", *(f"level {n}" for n in levels)], lines)


def size_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `comparisons.size_rows` as Markdown, differences in points of per cent."""
    head = [
        "set",
        "parameters",
        "seeds",
        "what the larger gains by thinking, minus what the smaller does",
        "p, uncorrected",
        "paper, 7B minus 2B",
        "at paper scale",
        "what each gains by thinking",
    ]
    lines = []
    for row in rows:
        cells = [row["claim"], " and ".join(f"{size / 1e6:.1f} M" for size in row["parameters"]), _counted(row["runs"])]
        cells.append(f"{NAMES.get(row['measure'], row['measure'])} {_points(row['difference'])}")
        alone = "; ".join(f"{model} {_points(cell)}" for model, cell in row["alone"].items())
        paper = ", ".join(f"{column} {100 * value:+.1f}" for column, value in row["paper"].items())
        lines.append([*cells, f"{row['p']:.3f}", paper, "untested", alone])
    return _markdown(head, lines)


def paper_claims_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `paper_claims.claim_rows` as Markdown; differences in points of per cent."""
    head = ["claim of the paper", "on; in the paper", "paper", "here", "smallest visible", "seeds", "by", "in the toy",
            "at paper scale"]  # fmt: skip
    lines = []
    for row in rows:
        paper, here = row["paper"], _measure(row["here"], row["unit"])
        cells = [row["claim"], row["set"], paper if isinstance(paper, str) else _measure((paper,), row["unit"]), here]
        cells.append(_measure((row["smallest"],), row["unit"]).lstrip("+") if "smallest" in row else "")
        cells += [_counted(row["runs"]) if "runs" in row else "", row["by"], row["verdict"], "untested"]
        lines.append(cells)
    return _markdown(head, lines)


def _measure(numbers: tuple[float, ...], unit: str) -> str:
    """A number, with its interval if it has one, in `points`, `%` or `times`."""
    form, scale = {"points": ("+.1f", 100), "%": (".1f", 100), "times": (".1f", 1)}[unit]
    first, *ends = (f"{scale * number:{form}}" for number in numbers)
    first += {"points": "", "%": " %", "times": " times"}[unit]
    return f"{first} [{', '.join(ends)}]" if ends else first


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    table = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in table)


def controls_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `controls.control_differences` as Markdown, in points of per cent."""
    measures = list(rows[0]["differences"])
    lines = [
        [title_of(f"{row['method']}+{row['control']}"), _counted(row["runs"])]
        + [_points(row["differences"].get(measure)) for measure in measures]
        for row in rows
    ]
    return _markdown(["control", "seeds", *(NAMES.get(measure, measure) for measure in measures)], lines)


def claims_with_controls_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `controls.claims_with_controls` as Markdown, in points of per cent; * marks `mixed` ones."""
    titles = {None: "as it is"} | {name: control["title"] for name, control in read_claims()["controls"].items()}
    shown = [name for name in titles if any(name in row["differences"] for row in rows)]
    lines = [
        [f"{row['claim']} ({row['measure']})"]
        + [_points(row["differences"].get(name)) + " *" * (name in row["mixed"]) for name in shown]
        for row in rows
    ]
    return _markdown(["claim of the paper", *(titles[name] for name in shown)], lines)


def elicitation_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `controls.elicitation_rows` as Markdown, in per cent and points."""
    head = ["method", "part", "says, before and after", "pass@8, before and after", "knows, before and after", "gained",
            "on known items", "on unknown items"]  # fmt: skip
    lines = []
    for row in rows:
        cells = [title_of(row["method"]), row["split"]]
        cells += [" / ".join(_share(value) for value in row[name] or ()) for name in ("said", "passed", "knows")]
        gains = [f"{100 * row[name]:+.1f}" if name in row else "" for name in ("gain", "gain_known", "gain_unknown")]
        lines.append(cells + gains)
    return _markdown(head, lines)


LEGEND = """Accuracy in per cent on test items, each method in its own mode. Intervals: 95 %, bootstrap over seeds and
items, items clustered by the drawing they were made from; Wilson's over the drawings where all are right or all wrong.
*strict*: the tag content (or the whole completion) equals the label. *lenient*: the paper's evaluation, the label
occurs in the answer. *choice_letter*: the choice by its letter or text. *math*: one number, equal by value. *mean*: of
a task's parts. *knows*: accuracy by likelihood over the choices, whatever the model says. *pass@8*: any of eight
samples is right by the rule that was trained on. *tokens*: mean completion length. *paper*: Qwen2-VL-2B on the paper's
own sets (arXiv 2503.16188; classification: mean of eleven or five, lenient rule): the toy's numbers stand beside them,
they do not estimate them. Claims are decided by the paired difference, by the rule in data/claims.yaml; *smallest
visible*: what this design would see in four of five repetitions, in points."""
