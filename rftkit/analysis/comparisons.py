"""Where thinking pays, and for whom: comparisons of `data/claims.yaml` over sets (`sets`) and model sizes (`size`)."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from rftkit.analysis.claims import cell, compared, correct, paper_difference, smallest_seen, summary, undecided
from rftkit.analysis.paper import paper_size_difference
from rftkit.runs.collect import families, recipe_of, short_names
from rftkit.settings import METHODS, read_claims
from rftkit.tasks.drawn.scenes import LEVELS, kind_of, level_of
from rftkit.tasks.registry import DRAWN


def set_rows(sections: dict) -> dict[str, list[dict[str, Any]]]:
    """Each comparison's rows by its name: one for each profile, set and kind of base model that ran both methods.

    A row says of `measure` (H, or the mean of the parts) what one of `claims.decide` does, corrected over the rows of
    its comparison; `verdict` says who is ahead; `parts` has the differences of the parts with their 95 % intervals, and
    `smallest_of_parts` the smallest visible, both uncorrected, and `paper` the paper's with Qwen2-VL-2B (-1..1).
    """
    names = short_names(model for _, _, models in sections for model in models.split(", "))
    tables = {}
    for comparison in read_claims()["sets"]["comparisons"]:
        rows = []
        for (profile, dataset, models), methods in families(sections).items():
            if found := compared(comparison, methods):
                *parts, overall = found
                title = f"{dataset}, {', '.join(names[model] for model in models.split(', '))}, profile {profile}"
                row = {"claim": title, "profile": profile, "set": dataset, "measure": overall}
                row |= summary(found[overall])
                row["parts"] = {part: cell(found[part]) for part in parts}
                row["smallest_of_parts"] = {part: smallest_seen(found[part][2]) for part in parts}
                rows.append(row | {"paper": paper_difference(*(methods[comparison[s]] for s in ("first", "second")))})
        correct(rows)
        for row in rows:
            ahead = METHODS[comparison["first" if row["difference"][0] > 0 else "second"]].title
            row["verdict"] = undecided(row) or f"{ahead} ahead"
        if rows:
            tables[comparison["name"]] = rows
    return tables


def kind_rows(sections: dict) -> list[dict[str, Any]]:
    """The first comparison of `set_rows` by kind and level of scene, a row for each profile, drawn task, family of base
    models and kind; `all` and `levels` are (mean, low, high), -1..1, with 95 % intervals, uncorrected."""
    comparison, rows = read_claims()["sets"]["comparisons"][0], []
    names = short_names(model for _, _, model in sections)
    for (profile, dataset, models), methods in families(sections).items():
        if dataset in DRAWN and (found := compared(comparison, methods, kind_of)):
            cells = compared(comparison, methods, lambda name: f"{kind_of(name)} {level_of(name)}")
            title = f"{dataset}, {', '.join(names[model] for model in models.split(', '))}, profile {profile}"
            for kind in (part for part in found if part != "mean"):
                levels = {level: cell(cells[f"{kind} {level}"]) for level in LEVELS if f"{kind} {level}" in cells}
                row = {"section": title, "kind": kind, "untrained": kind in DRAWN[dataset].untrained}
                rows.append(row | {"runs": found[kind][0], "all": cell(found[kind]), "levels": levels})
    return rows


def size_rows(sections: dict) -> list[dict[str, Any]]:
    """Whether larger base models profit more from thinking: the first comparison of `set_rows` on the largest of one
    recipe minus that on the smallest, a row for each profile and set; p and smallest visible uncorrected.

    `alone` has the comparison on each of these models by itself: (mean, low, high), -1..1, with a 95 % interval;
    `paper` is what the paper's 7B model gains by thinking minus what its 2B model does, by column.
    """
    comparison, found, rows = read_claims()["sets"]["comparisons"][0], defaultdict(dict), []
    bases = set(read_claims()["design"]["bases"])
    # The design's base models last: they stand for their size, whatever else was made by their recipe.
    ordered = sorted(families(sections).items(), key=lambda item: set(item[0][2].split(", ")) <= bases)
    for (profile, dataset, models), methods in ordered:
        made = recipe_of(models.partition(", ")[0])
        if made and "parameters" in made and (draws := compared(comparison, methods)):
            recipe = json.dumps({key: value for key, value in made.items() if key not in ("size", "parameters")})
            run = methods[comparison["first"]][0]
            found[profile, dataset, recipe][made["parameters"]] = models.split(", "), *list(draws.items())[-1], run
    names = short_names(model for _, _, model in sections)
    for (profile, dataset, _), sizes in found.items():
        if len(sizes) > 1:
            (few, measure, one, run), (many, _, other, _) = sizes[min(sizes)], sizes[max(sizes)]
            row = {"claim": f"{dataset}, profile {profile}", "set": dataset, "measure": measure}
            paper = paper_size_difference(run["task"], run.get("protocol"))
            row |= {"parameters": (min(sizes), max(sizes)), "paper": paper}
            row |= summary((one[0] + other[0], other[1] - one[1], other[2] - one[2]))
            alone = {model: compared(comparison, sections[profile, dataset, model]) for model in (*few, *many)}
            row["alone"] = {names[model]: cell(draws[measure]) for model, draws in alone.items() if draws}
            rows.append(row)
    return rows
