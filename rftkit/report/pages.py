"""`rftkit report`: the table of a study out of its run folders, with intervals, beside the paper's numbers."""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import mistune

from rftkit.analysis.claims import decide, dose_rows
from rftkit.analysis.comparisons import kind_rows, set_rows, size_rows
from rftkit.analysis.controls import claims_with_controls, control_differences, elicitation_rows
from rftkit.analysis.paper_claims import claim_rows
from rftkit.common.errors import UserError
from rftkit.report.tables import (
    LEGEND,
    claims_table,
    claims_with_controls_table,
    controls_table,
    dose_table,
    elicitation_table,
    kinds_table,
    markdown_table,
    paper_claims_table,
    sets_table,
    size_table,
    table_rows,
)
from rftkit.runs.archive import write_archive
from rftkit.runs.collect import is_headline, load_runs, others, pooled, short_names
from rftkit.runs.folder import write_atomically

HEADING = "# rftkit report"
NAMED = 10  # runs that are not counted


def write_report(places: Path | Sequence[Path], out: Path | None = None, keep: Path | None = None) -> tuple[str, Path]:
    """Write `report.md`, `report.html`, `report.json` and figures; return the tables and the report's path.

    Args:
        places: folders of runs, pooled: several people's seeds count as so many seeds.
        out: where to write; None: into the folder of the runs, or the one that holds them all.
        keep: a folder to keep these runs in, small (`rftkit.runs.archive`).

    Raises:
        UserError: of parts that could not be made, such as runs tested on different items, once the rest is written.
    """
    places = [places] if isinstance(places, Path) else list(places)
    sections = load_runs(*places)
    if keep:
        write_archive([run for methods in sections.values() for runs in methods.values() for run in runs], keep)
    together, names = pooled(sections), short_names(model for _, _, model in sections)
    runs = out or Path(os.path.commonpath([place.resolve() for place in places]))
    runs.mkdir(parents=True, exist_ok=True)
    path = runs / "report.md"
    if path.exists() and not path.read_bytes().startswith(HEADING.encode()):
        raise UserError(f"'{path}' is not a report's: move it, or name another --out")
    parts, numbers, failed = [], {}, []
    for key, methods in (together | sections).items():
        profile, dataset, model = key
        title = dataset, ", ".join(names.get(name, name) for name in model.split(", ")), profile
        try:
            rows = table_rows(methods)
            parts += _section(title, methods, rows, is_headline(*key, together), runs)
            numbers |= _numbers("/".join((profile, *title[:2])), rows)
        except UserError as error:
            failed.append(f"{dataset}, {title[1]}, profile {profile}: {error}")
    for title, make in ACROSS.items():
        try:
            parts += [f"## {title}\n", *found] if (found := make(sections, runs, places)) else []
        except UserError as error:
            failed.append(f"{title}: {error}")
    count, folders = others(places, sections)
    if count:
        why = "older of the same model and seed, or of other settings or test items than most"
        named = [f"`{folder}`" for folder in folders[:NAMED]] + ["..."] * (len(folders) > NAMED)
        parts.append("\n- ".join([f"Not counted (runs: {count}): {why}.", *named]) + "\n")
    text = "\n".join([*parts, *(f"**Not reported: {line}**\n" for line in failed)])
    whole = f"{HEADING}\n\n{LEGEND}\n\n{text}"
    write_atomically(path, whole)
    write_atomically(path.with_suffix(".html"), as_html(whole, runs))
    write_atomically(path.with_suffix(".json"), json.dumps(numbers, indent=1))
    if failed:
        raise UserError("; ".join(failed) + f"; the rest is in {path}")
    return text, path


def _numbers(place: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean accuracies of table rows by name, PLACE/METHOD/RULE/SPLIT."""
    return {
        "/".join((place, row["method"], rule, split)): cell[0]
        for row in rows
        for rule, cells in row["accuracy"].items()
        for split, cell in cells.items()
    }


def _set_by_set(sections: dict, folder: Path, _) -> list[str]:
    """The tables of `comparisons.set_rows`, if there are several sets or kinds of models."""
    from rftkit.report.figures import claims_figure

    compared, parts = set_rows(sections), []
    if max(map(len, compared.values()), default=0) < 2:
        return []
    for name, rows in compared.items():
        figure = _figure("sets", name.lower())
        claims_figure(rows).savefig(folder / figure, dpi=110, bbox_inches="tight")
        parts.append(f"### {name}\n\n{sets_table(rows)}\n\n![{name}]({figure})\n")
    write_atomically(folder / "report-sets.json", json.dumps(compared, indent=1))
    return parts


def _kind_by_kind(sections: dict, folder: Path, _) -> list[str]:
    """The table of `comparisons.kind_rows`."""
    if not (kinds := kind_rows(sections)):
        return []
    write_atomically(folder / "report-kinds.json", json.dumps(kinds, indent=1))
    return [f"Thinking before the answer, minus not thinking:\n\n{kinds_table(kinds)}\n"]


def _sizes(sections: dict, folder: Path, _) -> list[str]:
    """The table of `comparisons.size_rows`."""
    if not (sizes := size_rows(sections)):
        return []
    write_atomically(folder / "report-sizes.json", json.dumps(sizes, indent=1))
    return [f"{size_table(sizes)}\n"]


def _doses(sections: dict, folder: Path, _) -> list[str]:
    """The table of `claims.dose_rows`."""
    from rftkit.report.figures import dose_figure

    if not (doses := dose_rows(sections)):
        return []
    dose_figure(doses).savefig(folder / "report-doses.png", dpi=110, bbox_inches="tight")
    write_atomically(folder / "report-doses.json", json.dumps(doses, indent=1))
    return [f"{dose_table(doses)}\n\n![doses](report-doses.png)\n"]


def _claims(sections: dict, folder: Path, places: Sequence[Path]) -> list[str]:
    """The table of `paper_claims.claim_rows`."""
    if not (rows := claim_rows(sections, places)):
        return []
    write_atomically(folder / "report-claims.json", json.dumps(rows, indent=1))
    return [f"{paper_claims_table(rows)}\n\n*same side*, *other side*: counted, not decided.\n"]


# What is compared across sections: what makes its tables, and its figures into a folder, of runs in some places.
ACROSS = {
    "Claims of the paper with a number": _claims,
    "Set by set": _set_by_set,
    "Kind by kind": _kind_by_kind,
    "Do larger models profit more from thinking?": _sizes,
    "Effect against dose": _doses,
}


def _section(title: tuple[str, str, str], methods: dict, rows: list[dict], headline: bool, folder: Path) -> list[str]:
    """The tables of a dataset, a base model or several, and a profile; their figures go into the folder."""
    from rftkit.report.figures import accuracy_figure, claims_figure

    dataset, model, profile = title
    parts = [f"## {dataset}, {model}, profile {profile}\n"]
    figure = _figure(profile, f"{dataset}-{model}")
    # Controls stand beside their methods, if these ran.
    if plain := [row for row in rows if "+" not in row["method"] or row["method"].partition("+")[0] not in methods]:
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
