"""`rftkit report`: the table of a study out of its run folders, with intervals, beside the paper's numbers."""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from zlib import crc32

import mistune
from matplotlib.figure import Figure
from pandas import DataFrame

from rftkit.analysis.claims import decide, dose_rows
from rftkit.analysis.comparisons import kind_rows, set_rows, size_rows
from rftkit.analysis.controls import claims_with_controls, control_differences, elicitation_rows
from rftkit.analysis.methods import MethodRow, method_rows
from rftkit.analysis.paper_claims import claim_rows
from rftkit.common.errors import UserError
from rftkit.report import tables
from rftkit.report.figures import accuracy_figure, claims_figure, dose_figure
from rftkit.runs.archive import write_archive
from rftkit.runs.collect import Methods, Section, Sections, is_headline, load_runs, others, pooled, short_names
from rftkit.runs.folder import write_atomically

HEADING = "# rftkit report"
NAMED = 10  # runs that are not counted


def write_report(places: Path | Sequence[Path], out: Path | None = None, keep: Path | None = None) -> tuple[str, Path]:
    """Write `report.md`, `report.html`, `report.json` and figures; return the tables and the report's path.

    Args:
        places: folders of runs, pooled: several people's seeds count as so many seeds.
        out: where to write; None: into the folder of the runs, or the one that holds them all.
        keep: a folder to archive these runs in (`rftkit.runs.archive`).

    Raises:
        UserError: of parts that could not be made, such as runs tested on different items, once the rest is written.
    """
    places = [places] if isinstance(places, Path) else list(places)
    sections = load_runs(*places)
    if keep:
        write_archive([run for methods in sections.values() for runs in methods.values() for run in runs], keep)
    folder = out or Path(os.path.commonpath([place.resolve() for place in places]))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.md"
    if path.exists() and not path.read_bytes().startswith(HEADING.encode()):
        raise UserError(f"'{path}' is not a report's: move it, or name another --out")
    parts, numbers, failed = _sections(sections, folder)
    for title, make in ACROSS.items():
        try:
            parts += [f"## {title}\n", *found] if (found := make(sections, folder, places)) else []
        except UserError as error:
            failed.append(f"{title}: {error}")
    parts += _not_counted(places, sections)
    text = "\n".join([*parts, *(f"**Not reported: {line}**\n" for line in failed)])
    whole = f"{HEADING}\n\n{tables.LEGEND}\n\n{text}"
    write_atomically(path, whole)
    write_atomically(path.with_suffix(".html"), as_html(whole, folder))
    write_atomically(path.with_suffix(".json"), json.dumps(numbers, indent=1))
    if failed:
        raise UserError("; ".join(failed) + f"; the rest is in {path}")
    return text, path


def _sections(sections: Sections, folder: Path) -> tuple[list[str], dict[str, float], list[str]]:
    """What is said of each section, the mean accuracies by PLACE/METHOD/RULE/PART, and what could not be made."""
    together, short = pooled(sections), short_names(model for section in sections for model in section.models)
    parts, numbers, failed = [], {}, []
    for section, methods in (together | sections).items():
        models = ", ".join(short[model] for model in section.models)
        try:
            rows = method_rows(methods)
            parts += _section(section, models, methods, rows, is_headline(section, together), folder)
            numbers |= _numbers(f"{section.profile}/{section.dataset}/{models}", rows)
        except UserError as error:
            failed.append(f"{section.dataset}, {models}, profile {section.profile}: {error}")
    return parts, numbers, failed


def _numbers(place: str, rows: list[MethodRow]) -> dict[str, float]:
    numbers = {}
    for row in rows:
        for rule, by_part in row.accuracy.items():
            numbers |= {f"{place}/{row.label}/{rule}/{part}": mean for part, (mean, _, _) in by_part.items()}
    return numbers


def _not_counted(places: Sequence[Path], sections: Sections) -> list[str]:
    count, folders = others(places, sections)
    if not count:
        return []
    why = "older of the same model and seed, or of other settings or test items than most"
    named = [f"`{folder}`" for folder in folders[:NAMED]] + ["..."] * (len(folders) > NAMED)
    return ["\n- ".join([f"Not counted (runs: {count}): {why}.", *named]) + "\n"]


def _table(folder: Path, name: str, rows: list, table: Callable[[list], DataFrame], around: str = "{}\n") -> list[str]:
    """The text of a table, whose rows are written for `claims.read_rows`; nothing without rows."""
    if not rows:
        return []
    write_atomically(folder / f"report-{name}.json", json.dumps(rows, indent=1, default=asdict))
    return [around.format(tables.markdown(table(rows)))]


def _claims(sections: Sections, folder: Path, places: Sequence[Path]) -> list[str]:
    around = "{}\n\n*same side*, *other side*: counted, not decided.\n"
    return _table(folder, "claims", claim_rows(sections, places), tables.paper_claims_table, around)


def _set_by_set(sections: Sections, folder: Path, _) -> list[str]:
    """The tables of `comparisons.set_rows`, if there are several sets or kinds of models."""
    by_comparison, parts = set_rows(sections), []
    if max(map(len, by_comparison.values()), default=0) < 2:
        return []
    for name, rows in by_comparison.items():
        figure = _figure("sets", name.lower())
        _save(claims_figure(rows), folder / figure)
        parts.append(f"### {name}\n\n{tables.markdown(tables.sets_table(rows))}\n\n![{name}]({figure})\n")
    write_atomically(folder / "report-sets.json", json.dumps(by_comparison, indent=1, default=asdict))
    return parts


def _kind_by_kind(sections: Sections, folder: Path, _) -> list[str]:
    around = "Thinking before the answer, minus not thinking:\n\n{}\n"
    return _table(folder, "kinds", kind_rows(sections), tables.kinds_table, around)


def _sizes(sections: Sections, folder: Path, _) -> list[str]:
    return _table(folder, "sizes", size_rows(sections), tables.size_table)


def _doses(sections: Sections, folder: Path, _) -> list[str]:
    if rows := dose_rows(sections):
        _save(dose_figure(rows), folder / "report-doses.png")
    return _table(folder, "doses", rows, tables.dose_table, "{}\n\n![doses](report-doses.png)\n")


# What is compared across sections: what makes its tables, and its figures into a folder, of runs in some places.
ACROSS = {
    "Claims of the paper with a number": _claims,
    "Set by set": _set_by_set,
    "Kind by kind": _kind_by_kind,
    "Do larger models profit more from thinking?": _sizes,
    "Effect against dose": _doses,
}


def _section(
    section: Section, models: str, methods: Methods, rows: list[MethodRow], headline: bool, folder: Path
) -> list[str]:
    """The tables of a section; its figures go into the folder."""
    parts = [f"## {section.dataset}, {models}, profile {section.profile}\n"]
    figure = _figure(section.profile, f"{section.dataset}-{models}")
    # Controls stand beside their methods, if these ran.
    if plain := [row for row in rows if "+" not in row.label or row.label.partition("+")[0] not in methods]:
        _save(accuracy_figure(plain), folder / figure)
        parts.append(f"{tables.markdown(tables.methods_table(plain))}\n\n![{section.dataset}]({figure})\n")
    if headline and (decided := decide(methods)):
        claims = figure.replace("report-", "report-claims-")
        _save(claims_figure(decided), folder / claims)
        parts.append(f"{tables.markdown(tables.claims_table(decided))}\n\n![claims]({claims})\n")
    found = {"Controls, minus the method itself:": (tables.controls_table, control_differences(methods))}
    if headline:
        title = "The claims with controls in place (*: of two trained methods one has it):"
        found[title] = tables.claims_with_controls_table, claims_with_controls(methods)
    found["Elicited or learnt?"] = tables.elicitation_table, elicitation_rows(methods)
    for title, (table, compared) in found.items():
        if compared:
            parts.append(f"{title}\n\n{tables.markdown(table(compared))}\n")
    return parts


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _figure(*parts: str) -> str:
    """The file name of a figure; what has no ASCII letters is told apart by a digest."""
    name = "-".join(("report", *parts))
    digest = "" if name.isascii() else f"-{crc32(name.encode()):08x}"
    return re.sub(r"[^A-Za-z0-9._]+", "-", name) + f"{digest}.png"


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
