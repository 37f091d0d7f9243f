"""Tables of a report: what the analysis found as data frames of texts, and these as Markdown.

Accuracy is in per cent, differences are in points, both with 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from rftkit.analysis.claims import NAMES, Comparison, Interval, Pair
from rftkit.analysis.controls import ControlledClaim, ControlRow, Elicitation
from rftkit.analysis.methods import MethodRow, title_of
from rftkit.settings import read_claims


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown; what a row lacks is left empty."""
    rows = table.fillna("").to_numpy().tolist()
    lines = [list(table.columns), ["---"] * len(table.columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _percent(cell: Interval | None) -> str:
    return "" if cell is None else f"{100 * cell[0]:.1f} [{100 * cell[1]:.1f}, {100 * cell[2]:.1f}]"


def _points(cell: Interval | None) -> str:
    return "" if cell is None else f"{100 * cell[0]:+.1f} [{100 * cell[1]:+.1f}, {100 * cell[2]:+.1f}]"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _shares(values: Iterable[float | None]) -> str:
    return " / ".join(map(_share, values))


def _counted(runs: Sequence[Pair]) -> str:
    """How many seeds, and of how many start models if there are several."""
    models = {model for model, _ in runs}
    return f"{len(runs)} on {len(models)} bases" if len(models) > 1 else str(len(runs))


def _named(measure: str) -> str:
    return NAMES.get(measure, measure)


def methods_table(rows: list[MethodRow]) -> pd.DataFrame:
    """A method a row: accuracy by rule and part, what it knows, what it took, and the paper's accuracy."""
    parts = list(rows[0].likelihood)
    columns = max((list(row.paper) for row in rows), key=len)
    averaged = f", mean of {rows[0].paper_sets} sets:" if rows[0].paper_sets else ""
    table = []
    for row in rows:
        cells = {"method": row.title, "seeds": _counted(row.runs)}
        for rule, by_part in row.accuracy.items():
            cells |= {f"{rule} {_named(part)}": _percent(cell) for part, cell in by_part.items()}
        cells |= {f"knows {part}": _share(row.likelihood.get(part)) for part in parts}
        cells[f"pass@8 {' / '.join(parts)}"] = _shares(row.passed.get(part) for part in parts)
        cells |= {"tokens": f"{row.tokens:.1f}", "train s": f"{row.seconds:.0f}"}
        if columns:
            numbers = [f"{row.paper[column]:.1f}" for column in columns if column in row.paper]
            cells[f"paper{averaged} {' / '.join(columns)}"] = " / ".join(numbers)
        table.append(cells)
    return pd.DataFrame(table)


def _decided(row: Comparison) -> dict[str, str]:
    """The cells of a row that is corrected for the others of its table."""
    return {
        "difference here": f"{_named(row.measure)} {_points(row.difference)}",
        "p, corrected": f"{row.p:.3f}",
        "smallest visible": f"{100 * row.smallest:.1f}",
        "seeds": _counted(row.runs),
        "in the toy": row.verdict,
        "at paper scale": "untested",
    }


def claims_table(rows: list[Comparison]) -> pd.DataFrame:
    """The decided claims (`claims.decide`)."""
    table = []
    for row in rows:
        paper = ", ".join(f"{100 * value:+.1f}" for value in row.paper.values())
        table.append({"claim of the paper": row.claim, "paper, 2B": paper} | _decided(row))
    return pd.DataFrame(table)


def dose_table(rows: list[Comparison]) -> pd.DataFrame:
    """A claim a row, a column a share of answers not as asked (`claims.dose_rows`)."""
    doses = [f"vague {dose:g}" for dose in sorted({row.vague for row in rows})]
    table: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        place = row.place, f"{row.claim} ({row.measure})"
        cell = f"{_points(row.difference)} {row.verdict}, {_counted(row.runs)}"
        table.setdefault(place, {})[f"vague {row.vague:g}"] = cell
    frame = pd.DataFrame(table.values(), columns=doses)
    places = pd.DataFrame(table.keys(), columns=["models", "difference, points; seeds"])
    return pd.concat([places, frame], axis=1)


def _by_column(paper: dict[str, float]) -> str:
    return ", ".join(f"{column} {100 * value:+.1f}" for column, value in paper.items())


def _beside(row: Comparison) -> str:
    return "; ".join(f"{name} {_points(cell)}" for name, cell in row.beside.items())


def sets_table(rows: list[Comparison]) -> pd.DataFrame:
    """The rows of one comparison over sets (`comparisons.set_rows`)."""
    table = []
    for row in rows:
        place = {"set and models": row.place, "paper, 2B": _by_column(row.paper)}
        table.append(place | _decided(row) | {"parts, uncorrected": _beside(row)})
    return pd.DataFrame(table)


def kinds_table(rows: list[Comparison]) -> pd.DataFrame:
    """A kind of scene a row, a column a level (`comparisons.kind_rows`)."""
    levels = sorted({level for row in rows for level in row.beside})
    table = []
    for row in rows:
        cells = {"set and models": row.place, "kind": row.claim, "seeds": _counted(row.runs)}
        cells["all levels"] = _points(row.difference)
        table.append(cells | {level: _points(row.beside.get(level)) for level in levels})
    return pd.DataFrame(table)


def size_table(rows: list[Comparison]) -> pd.DataFrame:
    """The rows of `comparisons.size_rows`."""
    table = []
    for row in rows:
        difference = f"{_named(row.measure)} {_points(row.difference)}"
        table.append(
            {
                "set": row.place,
                "parameters": " and ".join(f"{size / 1e6:.1f} M" for size in row.parameters),
                "seeds": _counted(row.runs),
                "what the larger gains by thinking, minus what the smaller does": difference,
                "p, uncorrected": f"{row.p:.3f}",
                "paper, 7B minus 2B": _by_column(row.paper),
                "at paper scale": "untested",
                "what each gains by thinking": _beside(row),
            }
        )
    return pd.DataFrame(table)


def paper_claims_table(rows: list[Comparison]) -> pd.DataFrame:
    """The rows of `paper_claims.claim_rows`."""
    table = []
    for row in rows:
        ((where, paper),) = row.paper.items()
        table.append(
            {
                "claim of the paper": row.claim,
                "on; in the paper": "; ".join(filter(None, (row.place, where))),
                "paper": paper if isinstance(paper, str) else _measure((paper,), row.unit),
                "here": _measure(row.difference, row.unit),
                "smallest visible": "" if row.smallest is None else _measure((row.smallest,), row.unit).lstrip("+"),
                "seeds": _counted(row.runs) if row.runs else "",
                "by": row.by,
                "in the toy": row.verdict,
                "at paper scale": "untested",
            }
        )
    return pd.DataFrame(table)


def _measure(numbers: tuple[float, ...], unit: str) -> str:
    """A number, with its interval if it has one, in `points`, `%` or `times`."""
    form, scale = {"points": ("+.1f", 100), "%": (".1f", 100), "times": (".1f", 1)}[unit]
    first, *ends = (f"{scale * number:{form}}" for number in numbers)
    first += {"points": "", "%": " %", "times": " times"}[unit]
    return f"{first} [{', '.join(ends)}]" if ends else first


def controls_table(rows: list[ControlRow]) -> pd.DataFrame:
    """A control a row, minus the method itself (`controls.control_differences`)."""
    table = []
    for row in rows:
        cells = {_named(measure): _points(cell) for measure, cell in row.differences.items()}
        table.append({"control": title_of(row.label), "seeds": _counted(row.runs)} | cells)
    return pd.DataFrame(table)


def claims_with_controls_table(rows: list[ControlledClaim]) -> pd.DataFrame:
    """A claim a row, a column a control (`controls.claims_with_controls`); * marks mixed ones."""
    titles = {None: "as it is"} | {name: control["title"] for name, control in read_claims()["controls"].items()}
    table = []
    for row in rows:
        cells = {"claim of the paper": f"{row.claim} ({row.measure})"}
        for name in titles.keys() & row.differences.keys():
            cells[titles[name]] = _points(row.differences[name]) + " *" * (name in row.mixed)
        table.append(cells)
    frame = pd.DataFrame(table)
    return frame[["claim of the paper", *(title for title in titles.values() if title in frame)]]


def elicitation_table(rows: list[Elicitation]) -> pd.DataFrame:
    """A method and part a row (`controls.elicitation_rows`)."""
    table = []
    for row in rows:
        table.append(
            {
                "method": title_of(row.label),
                "part": row.part,
                "says, before and after": _shares(row.said),
                "pass@8, before and after": _shares(row.passed or ()),
                "knows, before and after": _shares(row.knows or ()),
                "gained": f"{100 * row.gain:+.1f}",
                "on known items": "" if row.gain_known is None else f"{100 * row.gain_known:+.1f}",
                "on unknown items": "" if row.gain_unknown is None else f"{100 * row.gain_unknown:+.1f}",
            }
        )
    return pd.DataFrame(table)


LEGEND = """Accuracy in per cent on test items, each method in its own mode. Intervals: 95 %, bootstrap over seeds and
items, items clustered by the drawing they were made from; Wilson's over the drawings where all are right or all wrong.
*strict*: the tag content (or the whole completion) equals the label. *lenient*: the paper's evaluation, the label
occurs in the answer. *choice_letter*: the choice by its letter or text. *math*: one number, equal by value. *mean*: of
a task's parts. *knows*: accuracy by likelihood over the choices, whatever the model says. *pass@8*: any of eight
samples is right by the rule that was trained on. *tokens*: mean completion length. *paper*: Qwen2-VL-2B on the paper's
own sets (arXiv 2503.16188; classification: mean of eleven or five, lenient rule): the toy's numbers stand beside them,
they do not estimate them. Claims are decided by the paired difference, by the rule in data/claims.yaml; *smallest
visible*: what this design would see in four of five repetitions, in points."""
