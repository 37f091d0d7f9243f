"""`rftkit report`: the table of a study out of its run folders, with intervals, beside the paper's numbers."""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import mistune
from matplotlib.figure import Figure
from mistune.toc import add_toc_hook, render_toc_ul
from pandas import DataFrame

from rftkit.analysis.arms import as_designed, verdict_rows
from rftkit.analysis.claims import Comparison, decide, dose_rows, without_runs
from rftkit.analysis.comparisons import blank_rows, kind_rows, set_rows, size_rows
from rftkit.analysis.controls import claims_with_controls, control_differences, elicitation_rows
from rftkit.analysis.methods import MethodRow, method_rows, title_of
from rftkit.analysis.paper_claims import claim_rows
from rftkit.common.errors import UserError
from rftkit.common.progress import ticking
from rftkit.report import guided, offpolicy, tables
from rftkit.report.arms import ArmsPage
from rftkit.report.figures import accuracy_figure, claims_figure, dose_figure
from rftkit.runs.archive import write_archive
from rftkit.runs.arms import ArmRun, archive_arm_runs, arm_runs
from rftkit.runs.collect import (
    Methods,
    Sections,
    SetAside,
    all_runs,
    archived_methods,
    check_places,
    families,
    is_headline,
    model_names,
    sort_out,
)
from rftkit.runs.folder import write_atomically

HEADING = "# rftkit report"
BESIDE = (guided.PAGE, offpolicy.PAGE)  # methods beside the study's
Tell = Callable[[str], object]  # says what is being done
NAMED = 10  # lines about runs that are not counted


def write_report(places: Path | Sequence[Path], out: Path | None = None, keep: Path | None = None) -> tuple[str, Path]:
    """Write `report.md`, `report.html`, `report.json` and figures; return the tables and the report's path.

    Args:
        places: folders of runs, pooled: several people's seeds count as so many seeds.
        out: where to write; None: into the folder of the runs, or into `report` in the one that holds several.
        keep: a folder to archive these runs in (`rftkit.runs.archive`).

    Raises:
        UserError: of parts that could not be made, such as runs tested on different items, once the rest is written.
    """
    places = [places] if isinstance(places, Path) else list(places)
    check_places(places)
    beside = {page: as_designed(arm_runs(page.name, places), page.method) for page in BESIDE}
    sections, aside = sort_out(*places, or_none=any(beside.values()))
    if keep and sections:
        write_archive(all_runs(sections), keep)
    for page, runs in beside.items():
        if keep and runs:
            archive_arm_runs(page.name, runs, keep)
    folder = out or places[0]
    if out is None and len(places) > 1:  # in a folder of its own, so that `class/*` never names the report's files
        folder = Path(os.path.commonpath([place.resolve() for place in places])) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.md"
    if path.exists() and not path.read_bytes().startswith(HEADING.encode()):
        raise UserError(f"'{path}' is not a report's: move it, or name another --out")
    with ticking(desc="report", disable=None, bar_format="{desc} ({elapsed})", leave=False) as bar:
        parts, numbers, failed = _parts(
            sections, places, folder, lambda doing: bar.set_description_str(f"report: {doing}")
        )
    parts += [part for page, runs in beside.items() for part in _arms(page, runs, folder)]
    text = "\n".join([*parts, *_not_counted(aside), *(f"**Not reported: {line}**\n" for line in failed)])
    whole = f"{HEADING}\n\n{tables.LEGEND}\n\n{text}"
    write_atomically(path, whole)
    write_atomically(path.with_suffix(".html"), as_html(whole, folder))
    write_atomically(path.with_suffix(".json"), json.dumps(numbers, indent=1))
    if failed:
        raise UserError("; ".join(failed) + f"; the rest is in {path}")
    return text, path


def _parts(
    sections: Sections, places: Sequence[Path], folder: Path, tell: Tell
) -> tuple[list[str], dict[str, float], list[str]]:
    """What is said of sections and across them, mean accuracies by PLACE/METHOD/RULE/PART, and what failed."""
    parts, numbers, failed = _sections(sections, folder, tell)
    for across in _across(places):
        tell(across.title)
        try:
            parts += _compared(across, sections, folder)
        except UserError as error:
            failed.append(f"{across.title}: {error}")
    return parts, numbers, failed


def _not_counted(aside: Sequence[SetAside]) -> list[str]:
    """Which runs were set aside, and for which others."""
    if not aside:
        return []
    methods = defaultdict(list)  # by where they are and why they are set aside
    for one in aside:
        run, other = one.run, one.instead
        twice = f"seed {run.seed} from {Path(run.model).name}: `{other.source}` counts, not " if other else ""
        why = "" if other else ": other settings or test items than most"
        methods[f"- {twice}`{run.source}`{why}"].append(title_of(run.label))
    lines = [f"{line} ({', '.join(dict.fromkeys(titles))})" for line, titles in methods.items()]
    first = f"Not counted (runs: {len(aside)}). Of a seed one run counts: each person needs others"
    return [f"{first} (`--first-seed`).", *lines[:NAMED], *["- ..."] * (len(lines) > NAMED), ""]


def _sections(sections: Sections, folder: Path, tell: Tell) -> tuple[list[str], dict[str, float], list[str]]:
    """What is said of each section, the mean accuracies by PLACE/METHOD/RULE/PART, and what could not be made."""
    together, short = families(sections), model_names(sections)
    several = {section: methods for section, methods in together.items() if section not in sections}
    parts, numbers, failed = [], {}, []
    for section, methods in (several | sections).items():
        names = section.profile, section.dataset, ", ".join(short[model] for model in section.models)
        try:
            tell(f"{names[1]}, {names[2]}: methods")
            rows = method_rows(methods)
            parts += _section(names, methods, rows, is_headline(section, together), folder, tell)
            for row in rows:
                place = "/".join((*names, row.label))
                for rule, by_part in row.accuracy.items():
                    numbers |= {f"{place}/{rule}/{part}": mean for part, (mean, _, _) in by_part.items()}
        except UserError as error:
            failed.append(f"{section.dataset}, {names[-1]}, profile {section.profile}: {error}")
    return parts, numbers, failed


def _arms(page: ArmsPage, runs: Sequence[ArmRun], folder: Path) -> list[str]:
    """What is said of a method beside the study's."""
    if not runs:
        return []
    rows, decided = page.rows(runs), verdict_rows(runs, page.method)
    write_atomically(folder / f"report-{page.name}.json", json.dumps(decided, indent=1, default=asdict))
    figures = [_figure(draw(runs, rows), title, folder, page.name, title) for title, draw in page.figures.items()]
    parts = [f"## {page.heading}\n", f"{page.legend}\n", *_table(rows, page.table, figure="\n\n".join(figures))]
    return parts + _table(decided, page.verdicts)


class Across(NamedTuple):
    """What is compared across sections."""

    title: str
    name: str  # of its files
    rows: Callable[[Sections], list[Comparison] | dict[str, list[Comparison]]]  # of one table, or of several by name
    table: Callable[[list[Comparison]], DataFrame]
    figure: Callable[[list[Comparison]], Figure] | None = None
    before: str = ""  # a line above the table
    after: str = ""  # and one below


def _across(places: Sequence[Path]) -> list[Across]:
    """What a report compares across sections.

    Args:
        places: where the runs are.
    """
    claims = partial(claim_rows, places=places)
    counted = "*same side*, *other side*: counted, not decided."
    minus = "Thinking before the answer, minus not thinking:"
    return [
        Across("Claims of the paper with a number", "claims", claims, tables.paper_claims_table, after=counted),
        Across("Set by set", "sets", _several_sets, tables.sets_table, claims_figure),
        Across("Kind by kind", "kinds", kind_rows, tables.kinds_table, before=minus),
        Across("Do larger models profit more from thinking?", "sizes", size_rows, tables.size_table),
        Across("No picture, no gain?", "blank", blank_rows, tables.blank_table),
        Across("Effect against dose", "doses", dose_rows, tables.dose_table, dose_figure),
    ]


def _several_sets(sections: Sections) -> dict[str, list[Comparison]]:
    """The tables of `set_rows`; none if each is of one set and one kind of models."""
    by_comparison = set_rows(sections)
    return by_comparison if max(map(len, by_comparison.values()), default=0) > 1 else {}


def _compared(across: Across, sections: Sections, folder: Path) -> list[str]:
    """The text of tables, whose rows are written for `claims.read_rows`; nothing without rows."""
    found = across.rows(sections)
    if not found:
        return []
    parts = [f"## {across.title}\n"]
    for name, rows in found.items() if isinstance(found, dict) else [("", found)]:
        figure = ""
        if across.figure:
            figure = _figure(across.figure(rows), name or across.name, folder, across.name, name.lower())
        parts += [f"### {name}\n"] if name else []
        parts += _table(rows, across.table, across.before, figure, across.after)
    write_atomically(folder / f"report-{across.name}.json", json.dumps(found, indent=1, default=asdict))
    return parts


def _table(rows: list, table: Callable, before: str = "", figure: str = "", after: str = "") -> list[str]:
    """A table and what stands around it; nothing without rows."""
    parts = (before, tables.markdown(table(rows)), figure, after) if rows else ()
    return [f"{part}\n" for part in parts if part]


def _section(
    names: tuple[str, str, str], methods: Methods, rows: list[MethodRow], headline: bool, folder: Path, tell: Tell
) -> list[str]:
    """The tables of a section, named by profile, set and models; its figures go into the folder."""
    profile, dataset, models = names
    parts = [f"## {dataset}, {models}, profile {profile}\n"]
    # Controls stand beside their methods, if these ran.
    plain = [row for row in rows if "+" not in row.label or row.label.partition("+")[0] not in methods]
    if plain:
        figure = _figure(accuracy_figure(plain), dataset, folder, *names)
        parts += _table(plain, tables.methods_table, figure=figure)
    tell(f"{dataset}, {models}: claims")
    decided = decide(methods) if headline else []
    if decided:
        figure = _figure(claims_figure(decided), "claims", folder, "claims", *names)
        parts += _table(decided, tables.claims_table, figure=figure)
    if headline and (lacking := without_runs(methods, decided)):
        parts.append(f"Not decided, for want of runs: {'; '.join(lacking)}.\n")
    if headline:
        tell(f"{dataset}, {models}: the archived study beside it")
        parts += _beside_archived(dataset, methods, plain, decided)
    tell(f"{dataset}, {models}: controls")
    parts += _table(control_differences(methods), tables.controls_table, "Controls, minus the method itself:")
    if headline:
        tell(f"{dataset}, {models}: claims with controls in place")
        title = "The claims with controls in place (*: of two trained methods one has it):"
        parts += _table(claims_with_controls(methods), tables.claims_with_controls_table, title)
    tell(f"{dataset}, {models}: elicited or learnt")
    parts += _table(elicitation_rows(methods), tables.elicitation_table, "Elicited or learnt?")
    return parts + _table(plain, tables.long_methods_table, "All numbers of the first table:")


def _beside_archived(dataset: str, methods: Methods, rows: list[MethodRow], decided: list[Comparison]) -> list[str]:
    """A study of fewer seeds beside the archived one, and how to make the others; nothing beside one as large."""
    archived = archived_methods(dataset)
    if not decided or max(map(len, methods.values())) >= (seeds := max(map(len, archived.values()), default=0)):
        return []
    verdicts = tables.claims_beside(decided, decide(archived))
    agree = f"Verdicts that agree: {sum(verdicts['agree'] == 'yes')} of {len(verdicts)}."
    return [
        f"### Beside the archived study of {seeds} seeds\n",
        f"{tables.markdown(tables.methods_beside(rows, method_rows(archived)))}\n",
        f"{tables.markdown(verdicts)}\n",
        f"{agree} All {seeds} seeds: `make study SEEDS={seeds}`, or `rftkit study --seeds {seeds}`.\n",
    ]


def _figure(figure: Figure, title: str, folder: Path, *names: str) -> str:
    """Save a figure, and show it in Markdown. Of its file's name what has no ASCII letters becomes a digest."""
    name = "-".join(filter(None, ("report", *names)))
    digest = "" if name.isascii() else f"-{crc32(name.encode()):08x}"
    file = re.sub(r"[^A-Za-z0-9._]+", "-", name) + f"{digest}.png"
    figure.savefig(folder / file, dpi=110, bbox_inches="tight")
    return f"![{title}]({file})"


def as_html(text: str, folder: Path) -> str:
    """A Markdown report as one HTML page, with a list of its parts, its figures inside."""
    page = mistune.create_markdown(plugins=["table"])
    add_toc_hook(page, min_level=2, max_level=3)
    body, state = page.parse(text)
    body = body.replace("</h1>", f"</h1>\n<nav>{render_toc_ul(state.env['toc_items'])}</nav>", 1)

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
