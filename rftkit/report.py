"""`rftkit report`: the table of a study out of its run folders, with intervals, beside the paper's numbers."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections import defaultdict
from pathlib import Path
from typing import Any

import mistune
import numpy as np

from rftkit.claims import decide, read_claims
from rftkit.errors import UserError
from rftkit.paths import DATA
from rftkit.results import PREDICTIONS, RESULTS, complete_runs, read_answers, read_results, write_atomically
from rftkit.settings import METHODS
from rftkit.stats import interval, resample
from rftkit.tasks.bundled import rule_of

Cell = tuple[float, float, float]  # accuracy and its interval, 0-1


def paper_base_to_new(row: str | None) -> dict[str, float] | None:
    """The paper's 11-set average of a method, in per cent: base, new and h (table 2 of arXiv 2503.16188 v6)."""
    tables = json.loads((DATA / "paper" / "think_or_not_tables.json").read_text())
    return tables["base_to_new"]["Average over 11"].get(row) if row else None


def load_runs(runs: Path) -> dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]]:
    """Complete runs under a folder by (profile, dataset, model) and method, each with its `folder`.

    Of runs with the same method and seed (other settings or code) the newest counts; those of a selection never do.
    """
    if not runs.is_dir():
        raise UserError(f"no folder '{runs}': give the --out of a study")
    sections: dict = defaultdict(lambda: defaultdict(list))
    newest = {}
    for folder in sorted(complete_runs(runs), key=lambda folder: (folder / RESULTS).stat().st_mtime):
        if "selection" in folder.relative_to(runs).parts or not (folder / PREDICTIONS).exists():
            continue
        result = read_results(folder) | {"folder": folder}
        dataset = result["dataset"] + (", few-shot" if "all" in result["eval"] else "")
        newest[result["profile"], dataset, result["model"], result["method"], result["seed"]] = result
    for (profile, dataset, model, method, _), result in sorted(newest.items(), key=lambda item: item[0]):
        sections[profile, dataset, model][method].append(result)
    if not sections:
        raise UserError(f"no complete runs under '{runs}': start rftkit study or rftkit run first")
    return {key: dict(methods) for key, methods in sorted(sections.items())}


def accuracies(runs: list[dict[str, Any]], mode: str, rule: str) -> dict[str, Cell]:
    """Mean accuracy of a method's runs on each split and its harmonic mean H, with bootstrap intervals."""
    found = resample(read_answers(runs, mode, rule))
    return {split: (mean, *interval(draws)) for split, (mean, draws) in found.items()}


def measured(runs: list[dict[str, Any]], split: str, measure: str, mode: str) -> float | None:
    """Mean over runs of a measure in `results.json` (0-1); None if no run has it."""
    found = [
        m["accuracy"]
        for run in runs
        for m in run["measures"]
        if (m["split"], m["measure"], m["mode"]) == (split, measure, mode)
    ]
    return float(np.mean(found)) if found else None


def table_rows(methods: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row a method, in the order of METHODS: accuracy cells by rule and split, knowledge, seconds, the paper's.

    Classification is scored strictly and by the paper's evaluation, the other tasks by their rule.
    """
    rows = []
    for name, method in METHODS.items():
        runs = methods.get(name)
        if not runs:
            continue
        splits, rule = list(runs[0]["eval"]), rule_of(runs[0]["dataset"])
        rules = ("strict", "lenient") if rule == "strict" else (rule,)
        seconds = [run["training"]["seconds"] for run in runs if run["training"]]
        rows.append(
            {
                "method": name,
                "title": method.title,
                "seeds": len(runs),
                "accuracy": {rule: accuracies(runs, method.mode, rule) for rule in rules},
                "likelihood": {s: measured(runs, s, "likelihood", "no_thinking") for s in splits},
                "pass@8": {s: measured(runs, s, "pass@8", method.mode) for s in splits},
                "tokens": float(np.mean([run["completion_length"] for run in runs])),
                "seconds": float(np.mean(seconds)) if seconds else 0.0,
                "paper": paper_base_to_new(method.paper) if "base" in splits else None,
            }
        )
    return rows


def _percent(cell: Cell | None) -> str:
    return "" if cell is None else f"{100 * cell[0]:.1f} [{100 * cell[1]:.1f}, {100 * cell[2]:.1f}]"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, accuracy in per cent with 95 % intervals."""
    first = rows[0]["accuracy"]
    cells_of = [(rule, split) for rule in first for split in first[rule]]
    known = list(rows[0]["likelihood"])
    head = ["method", "seeds", *(f"{rule} {'H' if split == 'h' else split}" for rule, split in cells_of)]
    head += [f"knows {s}" for s in known] + [f"pass@8 {' / '.join(known)}", "tokens", "train s", "paper base / new / H"]
    lines = []
    for row in rows:
        paper = row["paper"]
        cells = [row["title"], str(row["seeds"])]
        cells += [_percent(row["accuracy"][rule].get(split)) for rule, split in cells_of]
        cells += [_share(row["likelihood"].get(s)) for s in known]
        cells += [" / ".join(_share(row["pass@8"].get(s)) for s in known)]
        cells += [f"{row['tokens']:.1f}", f"{row['seconds']:.0f}"]
        cells += [f"{paper['base']:.1f} / {paper['new']:.1f} / {paper['h']:.1f}" if paper else ""]
        lines.append(cells)
    return _markdown(head, lines)


def claims_table(rows: list[dict[str, Any]]) -> str:
    """The decided claims (`rftkit.claims.decide`) as Markdown, differences in points of per cent."""
    head = ["claim of the paper", "difference here, strict", "p, corrected", "smallest visible", "seeds", "in the toy",
            "at paper scale"]  # fmt: skip
    lines = []
    for row in rows:
        mean, low, high = (100 * value for value in row["difference"])
        measure = {"h": "H"}.get(row["measure"], row["measure"])
        cells = [row["claim"], f"{measure} {mean:+.1f} [{low:+.1f}, {high:+.1f}]", f"{row['p']:.3f}"]
        lines.append([*cells, f"{100 * row['smallest']:.1f}", str(row["seeds"]), row["verdict"], "untested"])
    return _markdown(head, lines)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    table = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in table)


def write_report(runs: Path) -> tuple[str, Path]:
    """Write `report.md` and its figures into the runs' folder; return the tables and the report's path."""
    from rftkit.plots import accuracy_figure, claims_figure

    parts = []
    for (profile, dataset, model), methods in load_runs(runs).items():
        rows = table_rows(methods)
        table = markdown_table(rows)
        figure = f"report-{profile}-{dataset.replace(', ', '-')}-{Path(model).name}.png"
        accuracy_figure(rows).savefig(runs / figure, dpi=110, bbox_inches="tight")
        parts.append(f"## {dataset}, {model}, profile {profile}\n\n{table}\n\n![{dataset}]({figure})\n")
        if (profile, dataset) == ("nano", read_claims()["design"]["dataset"]) and (decided := decide(methods)):
            claims_figure(decided).savefig(runs / "report-claims.png", dpi=110, bbox_inches="tight")
            parts.append(f"{claims_table(decided)}\n\n![claims](report-claims.png)\n")
    text = "\n".join(parts)
    path = runs / "report.md"
    whole = f"# rftkit report\n\n{LEGEND}\n\n{text}"
    write_atomically(path, whole)
    write_atomically(path.with_suffix(".html"), as_html(whole, runs))
    return text, path


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
items, items clustered by the drawing they were made from. *strict*: the tag content (or the whole completion) equals
the label. *lenient*: the paper's evaluation, the label occurs in the answer. *choice_letter*: the choice by its letter
or text. *math*: one number, equal by value. *mean*: of a task's parts. *knows*: accuracy by likelihood over the
choices, whatever the model says. *pass@8*: any of eight samples is strictly right. *tokens*: mean completion length.
*paper*: Qwen2-VL-2B, average over the paper's eleven sets (arXiv 2503.16188), lenient rule, other data and models:
the toy's numbers stand beside them, they do not estimate them. Claims are decided by the paired difference, by the
rule in data/claims.yaml; *smallest visible*: what this design would see in four of five repetitions, in points."""
