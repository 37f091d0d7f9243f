"""`rftkit report`: the table of a study out of its run folders, with intervals, beside the paper's numbers."""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mistune
import numpy as np

from rftkit.archive import write_archive
from rftkit.claims import decide, dose_rows
from rftkit.controls import claims_with_controls, control_differences, elicitation_rows
from rftkit.paper import paper_numbers, paper_sets
from rftkit.results import read_answers, write_atomically
from rftkit.sections import count_older, load_runs, pooled, short_names
from rftkit.settings import METHODS, read_claims
from rftkit.stats import estimates
from rftkit.tasks.bundled import rule_of_task

Cell = tuple[float, float, float]  # accuracy and its interval, 0-1


def accuracies(runs: list[dict[str, Any]], mode: str, rule: str) -> dict[str, Cell]:
    """Mean accuracy of a method's runs on each split and its harmonic mean H, with intervals."""
    return estimates(read_answers(runs, mode, rule))


def _numbers(place: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean accuracies of table rows by name, PLACE/METHOD/RULE/SPLIT."""
    return {
        "/".join((place, row["method"], rule, split)): cell[0]
        for row in rows
        for rule, cells in row["accuracy"].items()
        for split, cell in cells.items()
    }


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
        splits, rule, task = list(runs[0]["eval"]), rule_of_task(runs[0]["task"]), runs[0]["task"]
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
    """The decided claims (`rftkit.claims.decide`) as Markdown, differences in points of per cent."""
    head = ["claim of the paper", "difference here", "p, corrected", "smallest visible", "seeds", "in the toy",
            "at paper scale"]  # fmt: skip
    lines = []
    for row in rows:
        mean, low, high = (100 * value for value in row["difference"])
        measure = {"h": "H"}.get(row["measure"], row["measure"])
        cells = [row["claim"], f"{measure} {mean:+.1f} [{low:+.1f}, {high:+.1f}]", f"{row['p']:.3f}"]
        lines.append([*cells, f"{100 * row['smallest']:.1f}", _counted(row["runs"]), row["verdict"], "untested"])
    return _markdown(head, lines)


def dose_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `claims.dose_rows` as Markdown: a claim a row, a column a share of answers not as asked."""
    doses = sorted({row["vague"] for row in rows})
    lines: dict[tuple[str, str], dict[float, str]] = {}
    for row in rows:
        cell = f"{_points(row['difference'])} {row['verdict']}, {_counted(row['runs'])}"
        lines.setdefault((row["models"], f"{row['claim']} ({row['measure']})"), {})[row["vague"]] = cell
    head = ["models", "difference, points; seeds", *(f"vague {dose:g}" for dose in doses)]
    return _markdown(head, [[*place, *(cells.get(dose, "") for dose in doses)] for place, cells in lines.items()])


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    table = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in table)


def controls_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `controls.control_differences` as Markdown, in points of per cent."""
    head = ["control", "seeds", "base", "new", "H"]
    lines = []
    for row in rows:
        cells = [title_of(f"{row['method']}+{row['control']}"), _counted(row["runs"])]
        lines.append(cells + [_points(row.get(measure)) for measure in ("base", "new", "h")])
    return _markdown(head, lines)


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
    head = ["method", "part", "says, before and after", "knows, before and after", "gained on known items",
            "gained on unknown items"]  # fmt: skip
    lines = []
    for row in rows:
        cells = [title_of(row["method"]), row["split"]]
        cells += [" / ".join(_share(value) for value in row[name]) for name in ("said", "knows")]
        lines.append(cells + [f"{100 * row[name]:+.1f}" for name in ("gain_known", "gain_unknown")])
    return _markdown(head, lines)


def write_report(places: Path | Sequence[Path], out: Path | None = None, keep: Path | None = None) -> tuple[str, Path]:
    """Write `report.md`, `report.html`, `report.json` and figures; return the tables and the report's path.

    Args:
        places: folders of runs, pooled: several people's seeds count as so many seeds.
        out: where to write; None: into the folder of the runs, or the one that holds them all.
        keep: a folder to keep these runs in, small (`rftkit.archive`).
    """
    from rftkit.plots import dose_figure

    places = [places] if isinstance(places, Path) else list(places)
    sections = load_runs(*places)
    if keep:
        write_archive([run for methods in sections.values() for runs in methods.values() for run in runs], keep)
    together, names = pooled(sections), short_names(model for _, _, model in sections)
    runs = out or Path(os.path.commonpath([place.resolve() for place in places]))
    runs.mkdir(parents=True, exist_ok=True)
    parts, numbers = [], {}
    for key, methods in (together | sections).items():
        profile, dataset, model = key
        title = dataset, ", ".join(names.get(name, name) for name in model.split(", ")), profile
        rows = table_rows(methods)
        numbers |= _numbers("/".join((profile, *title[:2])), rows)
        parts += _section(title, methods, rows, _is_headline(*key, together), runs)
    if doses := dose_rows(sections):
        dose_figure(doses).savefig(runs / "report-doses.png", dpi=110, bbox_inches="tight")
        write_atomically(runs / "report-doses.json", json.dumps(doses, indent=1))
        parts.append(f"## Effect against dose\n\n{dose_table(doses)}\n\n![doses](report-doses.png)\n")
    if older := count_older(places, sections):
        parts.append(f"{older} older runs of the same method and seed are not counted.\n")
    text = "\n".join(parts)
    path = runs / "report.md"
    whole = f"# rftkit report\n\n{LEGEND}\n\n{text}"
    write_atomically(path, whole)
    write_atomically(path.with_suffix(".html"), as_html(whole, runs))
    write_atomically(path.with_suffix(".json"), json.dumps(numbers, indent=1))
    return text, path


def _section(title: tuple[str, str, str], methods: dict, rows: list[dict], headline: bool, folder: Path) -> list[str]:
    """The tables of a dataset, a base model or several, and a profile; their figures go into the folder."""
    from rftkit.plots import accuracy_figure, claims_figure

    dataset, model, profile = title
    parts = [f"## {dataset}, {model}, profile {profile}\n"]
    figure = "report-" + re.sub(r"[^A-Za-z0-9]+", "-", f"{profile}-{dataset}-{model}") + ".png"
    if plain := [row for row in rows if "+" not in row["method"]]:
        accuracy_figure(plain).savefig(folder / figure, dpi=110, bbox_inches="tight")
        parts.append(f"{markdown_table(plain)}\n\n![{dataset}]({figure})\n")
    if headline and (decided := decide(methods)):
        claims = figure.replace("report-", "report-claims-")
        claims_figure(decided).savefig(folder / claims, dpi=110, bbox_inches="tight")
        parts.append(f"{claims_table(decided)}\n\n![claims]({claims})\n")
    if differences := control_differences(methods):
        parts.append(f"Controls, minus the method itself:\n\n{controls_table(differences)}\n")
    if headline and (changed := claims_with_controls(methods)):
        table = claims_with_controls_table(changed)
        parts.append(f"The claims with controls in place (*: of two trained methods one has it):\n\n{table}\n")
    if elicited := elicitation_rows(methods):
        parts.append(f"Elicited or learnt?\n\n{elicitation_table(elicited)}\n")
    return parts


def _is_headline(profile: str, dataset: str, models: str, together: dict) -> bool:
    """Whether the claims are decided here: on the design's set, its halves swapped or not, over all of its base models
    that ran."""
    design, names = read_claims()["design"], set(models.split(", "))
    wider = (set(key[2].split(", ")) for key in together if key[:2] == (profile, dataset))
    on_it = profile in ("nano", "nano-swapped") and dataset.partition(",")[0] == design["dataset"]
    return on_it and names <= set(design["bases"]) and not any(names < others for others in wider)


def as_html(text: str, folder: Path) -> str:
    """A Markdown report as one HTML page, its figures inside."""
    body = mistune.create_markdown(plugins=["table"])(text)

    def inside(found: re.Match) -> str:
        return f'src="data:image/png;base64,{b64encode((folder / found[1]).read_bytes()).decode()}"'

    return PAGE.format(body=re.sub(r'src="([^":]+\.png)"', inside, body))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>rftkit report</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }}
table {{ border-collapse: collapse; font-size: 13px }}
th, td {{ border-bottom: 1px solid #ccc; padding: .3em .6em; text-align: left }}
img {{ max-width: 100% }}
</style></head><body>{body}</body></html>
"""
LEGEND = """Accuracy in per cent on test items, each method in its own mode. Intervals: 95 %, bootstrap over seeds and
items, items clustered by the drawing they were made from; Wilson's over the drawings where all are right or all wrong.
*strict*: the tag content (or the whole completion) equals the label. *lenient*: the paper's evaluation, the label
occurs in the answer. *choice_letter*: the choice by its letter or text. *math*: one number, equal by value. *mean*: of
a task's parts. *knows*: accuracy by likelihood over the choices, whatever the model says. *pass@8*: any of eight
samples is strictly right. *tokens*: mean completion length. *paper*: Qwen2-VL-2B on the paper's own sets (arXiv
2503.16188; classification: mean of eleven or five, lenient rule): the toy's numbers stand beside them, they do not
estimate them. Claims are decided by the paired difference, by the rule in data/claims.yaml; *smallest visible*: what
this design would see in four of five repetitions, in points."""
