"""Tables of a report: what the analysis found as data frames of texts, and these as Markdown.

Accuracy is in per cent, differences are in points, both with 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from rftkit.analysis.claims import NAMES, Comparison, Pair
from rftkit.analysis.controls import ControlledClaim, Elicitation
from rftkit.analysis.methods import MethodRow, title_of
from rftkit.settings import read_claims


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown; what a row lacks is left empty."""
    rows = table.fillna("").to_numpy().tolist()
    lines = [list(table.columns), ["---"] * len(table.columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


# A unit's form, what a number is multiplied with, and what stands behind it.
UNITS = {
    "points": ("+.1f", 100, ""),
    "per cent": (".1f", 100, ""),
    "%": (".1f", 100, " %"),
    "times": (".1f", 1, " times"),
}


def _number(value: tuple[float, ...] | float | str | None, unit: str) -> str:
    """A number, or a mean with its interval; nothing for None, a word as it is."""
    if value is None or isinstance(value, str):
        return value or ""
    form, scale, behind = UNITS[unit]
    first, *ends = (f"{scale * number:{form}}" for number in (value if isinstance(value, tuple) else (value,)))
    return first + behind + (f" [{', '.join(ends)}]" if ends else "")


points, percent = partial(_number, unit="points"), partial(_number, unit="per cent")


def shares(values: Iterable[float | None]) -> str:
    return " / ".join(map(percent, values))


def counted(runs: Sequence[Pair]) -> str:
    """How many seeds, and of how many start models if there are several."""
    models = {model for model, _ in runs}
    return f"{len(runs)} on {len(models)} bases" if len(models) > 1 else str(len(runs))


def _named(measure: str) -> str:
    return NAMES.get(measure, measure)


def methods_table(rows: list[MethodRow]) -> pd.DataFrame:
    """A method a row, at most eight columns: accuracy by the rule of training, what it knows and took, and the paper's.

    Intervals are in the figure; these, other rules and pass@8 in `long_methods_table`.
    """
    rule, *_ = rows[0].accuracy
    parts = list(rows[0].likelihood)
    shown = [[part] for part in parts] if len(parts) < 3 else [parts]  # levels share a column
    shown += [[part] for part in rows[0].accuracy[rule] if part not in parts]  # H, or the mean
    columns = max((list(row.paper) for row in rows), key=len)
    again = max((list(row.rerun) for row in rows), key=len)
    rerun = f"; Fine-R1's rerun: {' / '.join(again)}" if again else ""
    averaged = f", mean of {rows[0].paper_sets} sets:" if rows[0].paper_sets else ""
    table = []
    for row in rows:
        cells = {"method": row.title, "seeds": counted(row.runs)}
        for some in shown:
            cells[" / ".join(map(_named, some))] = shares(row.accuracy[rule][part][0] for part in some)
        cells[f"knows {' / '.join(parts)}"] = shares(row.likelihood.get(part) for part in parts)
        cells["tokens / training s"] = f"{row.tokens:.1f} / {row.seconds:.0f}"
        if columns:
            numbers = [" / ".join(f"{value:.1f}" for value in found.values()) for found in (row.paper, row.rerun)]
            cells[f"paper{averaged} {' / '.join(columns)}{rerun}"] = "; ".join(filter(None, numbers))
        table.append(cells)
    return pd.DataFrame(table)


def long_methods_table(rows: list[MethodRow]) -> pd.DataFrame:
    """A method a row: accuracy by rule and part with intervals, what it knows, pass@8, what it took."""
    parts = list(rows[0].likelihood)
    table = []
    for row in rows:
        cells = {"method": row.title, "seeds": counted(row.runs)}
        for rule, by_part in row.accuracy.items():
            cells |= {f"{rule} {_named(part)}": percent(cell) for part, cell in by_part.items()}
        cells |= {f"knows {part}": percent(row.likelihood.get(part)) for part in parts}
        cells[f"pass@8 {' / '.join(parts)}"] = shares(row.passed.get(part) for part in parts)
        cells |= {"tokens": f"{row.tokens:.1f}", "training s": f"{row.seconds:.0f}"}
        table.append(cells)
    return pd.DataFrame(table)


def methods_beside(rows: list[MethodRow], archived: list[MethodRow]) -> pd.DataFrame:
    """A method a row: its accuracy here and in the archived study, in per cent."""
    table, theirs = [], {row.label: row for row in archived}
    for row in rows:
        rule, *_ = row.accuracy
        if other := theirs.get(row.label):
            cells = {"method": row.title, "seeds here": counted(row.runs), "seeds archived": counted(other.runs)}
            for part, (mean, _, _) in row.accuracy[rule].items():
                cells[f"{_named(part)}: here / archived"] = shares((mean, other.accuracy[rule][part][0]))
            table.append(cells)
    return pd.DataFrame(table)


def claims_beside(rows: list[Comparison], archived: list[Comparison]) -> pd.DataFrame:
    """A claim a row: its difference and verdict here and in the archived study, and whether the verdicts agree."""
    table, theirs = [], {row.claim: row for row in archived}
    for row in rows:
        if other := theirs.get(row.claim):
            cells = {"claim of the paper": row.claim, "here": _difference(row), "archived": _difference(other)}
            agrees = "yes" if row.verdict == other.verdict else "no"
            table.append(cells | {"verdict here": row.verdict, "verdict archived": other.verdict, "agree": agrees})
    return pd.DataFrame(table)


def knows_table(rows: list[MethodRow]) -> pd.DataFrame:
    """A method and part a row: how often the likeliest choice is right, and what is said (by the rule of training)."""
    table = []
    for row in rows:
        rule, *_ = row.accuracy
        for part, knows in row.likelihood.items():
            says = percent(row.accuracy[rule][part][0])
            table.append({"method": row.title, "part": part, "knows": percent(knows), "says": says})
    return pd.DataFrame(table)


def changes_table(changes: dict[str, dict[str, float]]) -> pd.DataFrame:
    """A method a row, a column a part of the model (`weight_change.mean_changes`), in per cent."""
    return (100 * pd.DataFrame(changes).rename(columns=title_of).T).round(2)


def table_of(rows: Sequence[Any], columns: dict[str, Callable[[Any], str]]) -> pd.DataFrame:
    return pd.DataFrame({title: [cell(row) for row in rows] for title, cell in columns.items()})


def _difference(row: Comparison) -> str:
    return f"{_named(row.measure)} {points(row.difference)}"


def _by_column(row: Comparison) -> str:
    return ", ".join(f"{column} {points(value)}" for column, value in row.paper.items())


def _beside(row: Comparison) -> str:
    return "; ".join(f"{name} {points(cell)}" for name, cell in row.beside.items())


# Of a row that is corrected for the others of its table.
DECIDED = {
    "difference here": _difference,
    "p, corrected": lambda row: f"{row.p:.3f}",
    "smallest visible": lambda row: f"{100 * row.smallest:.1f}",
    "seeds": lambda row: counted(row.runs),
    "in the toy": lambda row: row.verdict,
    "at paper scale": lambda row: "untested",
}


def claims_table(rows: list[Comparison]) -> pd.DataFrame:
    """The decided claims (`claims.decide`)."""
    columns = {
        "claim of the paper": lambda row: row.claim,
        "paper, 2B": lambda row: "".join(map(points, row.paper.values())),  # one, or none
    }
    return table_of(rows, columns | DECIDED)


def sets_table(rows: list[Comparison]) -> pd.DataFrame:
    """The rows of one comparison over sets (`comparisons.set_rows`)."""
    columns = {"set and models": lambda row: row.place, "paper, 2B": _by_column}
    return table_of(rows, columns | DECIDED | {"parts, uncorrected": _beside})


def blank_table(rows: list[Comparison]) -> pd.DataFrame:
    """The rows of `comparisons.blank_rows`."""
    columns = {"set and models": lambda row: row.place, "claim": lambda row: row.claim}
    return table_of(rows, columns | DECIDED | {"parts, uncorrected": _beside})


def dose_table(rows: list[Comparison]) -> pd.DataFrame:
    """A claim a row, a column a share of answers not as asked (`claims.dose_rows`)."""
    columns = {
        "models": lambda row: row.place,
        "difference, points; seeds": lambda row: f"{row.claim} ({row.measure})",
        "dose": lambda row: f"vague {row.vague:g}",
        "cell": lambda row: f"{points(row.difference)} {row.verdict}, {counted(row.runs)}",
    }
    long = table_of(sorted(rows, key=lambda row: row.vague), columns)
    place = list(columns)[:2]
    wide = [part.set_index("dose")["cell"].rename(of) for of, part in long.groupby(place, sort=False)]
    return pd.DataFrame(wide).rename_axis(place).reset_index()


def kinds_table(rows: list[Comparison]) -> pd.DataFrame:
    """A kind of scene a row, a column a level (`comparisons.kind_rows`)."""
    columns = {
        "set and models": lambda row: row.place,
        "kind": lambda row: row.claim,
        "seeds": DECIDED["seeds"],
        "all levels": lambda row: points(row.difference),
    }
    return table_of(rows, columns).join(_intervals(rows).sort_index(axis=1))


def size_table(rows: list[Comparison]) -> pd.DataFrame:
    """The rows of `comparisons.size_rows`."""
    columns = {
        "set": lambda row: row.place,
        "parameters": lambda row: " and ".join(f"{size / 1e6:.1f} M" for size in row.parameters),
        "seeds": DECIDED["seeds"],
        "what the larger gains by thinking, minus what the smaller does": _difference,
        "p, uncorrected": DECIDED["p, corrected"],
        "paper, 7B minus 2B": _by_column,
        "at paper scale": DECIDED["at paper scale"],
        "what each gains by thinking": _beside,
    }
    return table_of(rows, columns)


def paper_claims_table(rows: list[Comparison]) -> pd.DataFrame:
    """The rows of `paper_claims.claim_rows`."""
    columns = {
        "claim of the paper": lambda row: row.claim,
        "on; in the paper": lambda row: "; ".join(filter(None, (row.place, *row.paper))),
        "paper": lambda row: "".join(_number(value, row.unit) for value in row.paper.values()),
        "here": lambda row: _number(row.difference, row.unit),
        "smallest visible": lambda row: _number(row.smallest, row.unit).lstrip("+"),
        "seeds": lambda row: counted(row.runs) if row.runs else "",
        "by": lambda row: row.by,
        "in the toy": lambda row: row.verdict,
        "at paper scale": DECIDED["at paper scale"],
    }
    return table_of(rows, columns)


def _intervals(rows: Sequence[Comparison]) -> pd.DataFrame:
    """What stands beside rows, a column each."""
    return pd.DataFrame([{name: points(cell) for name, cell in row.beside.items()} for row in rows])


def controls_table(rows: list[Comparison]) -> pd.DataFrame:
    """A control a row, minus the method itself (`controls.control_differences`)."""
    columns = {"control": lambda row: title_of(row.claim), "seeds": DECIDED["seeds"]}
    return table_of(rows, columns).join(_intervals(rows).rename(columns=_named))


def claims_with_controls_table(rows: list[ControlledClaim]) -> pd.DataFrame:
    """A claim a row, a column a control (`controls.claims_with_controls`); * marks mixed ones."""
    titles = {None: "as it is"} | {name: control["title"] for name, control in read_claims()["controls"].items()}

    def cell(name: str | None, row: ControlledClaim) -> str:
        return points(row.differences.get(name)) + " *" * (name in row.mixed)

    columns = {"claim of the paper": lambda row: f"{row.claim} ({row.measure})"}
    for name, title in titles.items():
        if any(name in row.differences for row in rows):
            columns[title] = partial(cell, name)
    return table_of(rows, columns)


def elicitation_table(rows: list[Elicitation]) -> pd.DataFrame:
    """A method and part a row (`controls.elicitation_rows`)."""
    columns = {
        "method": lambda row: title_of(row.label),
        "part": lambda row: row.part,
        "says, before and after": lambda row: shares(row.said),
        "pass@8, before and after": lambda row: shares(row.passed or ()),
        "knows, before and after": lambda row: shares(row.knows or ()),
        "gained": lambda row: points(row.gain),
        "on known items": lambda row: points(row.gain_known),
        "on unknown items": lambda row: points(row.gain_unknown),
    }
    return table_of(rows, columns)


LEGEND = """Accuracy in per cent on test items, each method in its own mode, by the rule it was trained with unless a
column names another. Intervals (in the figures, and in the tables of all numbers): 95 %, bootstrap over seeds and
items, items clustered by the drawing they were made from; Wilson's over the drawings where all are right or all
wrong. *strict*: the tag content (or the whole completion) equals the label. *lenient*: the paper's evaluation, the
label occurs in the answer. *choice_letter*: the choice by its letter, text or value. *math*: the same value, whole.
*mean*: of a task's parts. *knows*: accuracy by likelihood over the choices, whatever the model says. *pass@8*: any of
eight samples is right by the rule that was trained on. *tokens*: mean completion length. *training s*: seconds.
*paper*: Qwen2-VL-2B on the paper's own sets (arXiv 2503.16188; classification: mean of eleven or five, lenient rule):
the toy's numbers stand beside them, they do not estimate them. *Fine-R1's rerun*: the same methods run by others with
Qwen2.5-VL-3B on six sets (arXiv 2602.07605). It agrees that not thinking is better and that SFT forgets. It finds no
gain of RL on unseen classes. Claims are decided by the paired difference, by the
rule in data/claims.yaml; *smallest visible*: what this design would see in four of five repetitions, in points."""
