"""Where thinking pays, and for whom: comparisons of `data/claims.yaml` over sets (`sets`) and model sizes (`size`)."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from rftkit.analysis.claims import Comparison, Difference, compared, correct, paper_difference
from rftkit.analysis.methods import title_of
from rftkit.analysis.paper import paper_size_difference
from rftkit.runs.collect import Section, Sections, families, model_names, recipe_of, that_decide
from rftkit.settings import METHODS, read_claims
from rftkit.tasks.drawn.scenes import LEVELS, kind_of, level_of
from rftkit.tasks.registry import DRAWN


def set_rows(sections: Sections) -> dict[str, list[Comparison]]:
    """Each comparison's rows by its name: one for each profile, set and kind of start model that ran both methods.

    A row is of H, or of the mean of the parts, and corrected over the rows of its comparison; `verdict` says who is
    ahead; `beside` has the parts.
    """
    names, tables = model_names(sections), {}
    for comparison in read_claims()["sets"]["comparisons"]:
        rows = []
        for section, methods in families(that_decide(sections)).items():
            if found := compared(comparison, methods):
                *parts, overall = found
                row = _row(section, names, found[overall], comparison["name"])
                row.profile, row.dataset, row.measure = section.profile, section.dataset, overall
                row.paper = paper_difference(comparison, methods)
                row.beside = {part: found[part].interval for part in parts}
                row.smallest_beside = {part: found[part].smallest for part in parts}
                rows.append(row)
        first, second = METHODS[comparison["first"]].title, METHODS[comparison["second"]].title
        correct(rows, [(f"{first} ahead", f"{second} ahead")] * len(rows))
        if rows:
            tables[comparison["name"]] = rows
    return tables


def blank_rows(sections: Sections) -> list[Comparison]:
    """What is learnt without a picture (`no_image`): a row for each set and comparison that ran both methods."""
    asked, names, rows, verdicts = read_claims()["no_image"], model_names(sections), [], []
    for section, methods in families(that_decide(sections)).items():
        for comparison in asked["comparisons"] if section.dataset in asked["sets"] else ():
            if found := compared(comparison, methods):
                *_, measure = found
                row = _row(section, names, found[measure], comparison["name"])
                row.measure, row.beside = measure, {part: found[part].interval for part in found if part != measure}
                rows.append(row)
                verdicts.append([f"{title_of(comparison[side])} ahead" for side in ("first", "second")])
    correct(rows, verdicts)
    return rows


def _row(section: Section, names: dict[str, str], found: Difference, claim: str) -> Comparison:
    models = ", ".join(names[model] for model in section.models)
    place = f"{section.dataset}, {models}, profile {section.profile}"
    return Comparison.of(found, claim=claim, place=place)


def kind_rows(sections: Sections) -> list[Comparison]:
    """The first comparison of `set_rows`, uncorrected, by kind of scene: a row for each profile, drawn task, family of
    start models and kind; `beside` has the levels."""
    comparison, names, rows = read_claims()["sets"]["comparisons"][0], model_names(sections), []
    for section, methods in families(sections).items():
        task = DRAWN.get(next(iter(methods.values()))[0].task)
        if task is None:
            continue
        kinds = compared(comparison, methods, kind_of)
        kinds.pop("mean", None)
        levels = compared(comparison, methods, lambda name: f"{kind_of(name)} {level_of(name)}")
        for kind, found in kinds.items():
            row = _row(section, names, found, kind + " (not trained on)" * (kind in task.untrained))
            row.beside = {f"level {n}": levels[f"{kind} {n}"].interval for n in LEVELS if f"{kind} {n}" in levels}
            rows.append(row)
    return rows


def size_rows(sections: Sections) -> list[Comparison]:
    """Whether larger start models profit more from thinking: the first comparison of `set_rows` on the largest of one
    recipe minus that on the smallest, uncorrected, a row for each profile and set.

    `beside` has the comparison on each of these models by itself; `paper` is what the paper's 7B model gains by
    thinking minus what its 2B model does.
    """
    comparison, names, rows = read_claims()["sets"]["comparisons"][0], model_names(sections), []
    for by_size in _by_size(sections, comparison):
        if len(by_size) < 2:
            continue
        sizes = min(by_size), max(by_size)
        (small, few), (large, many) = by_size[sizes[0]], by_size[sizes[1]]
        *_, measure = few
        draws = many[measure].draws - few[measure].draws
        runs = few[measure].runs + many[measure].runs
        difference = Difference(runs, many[measure].mean - few[measure].mean, draws)
        row = Comparison.of(difference, claim="Larger models profit more from thinking", measure=measure)
        row.dataset, row.parameters = small.dataset, sizes
        row.place = f"{small.dataset}, profile {small.profile}"
        for model in (*small.models, *large.models):
            methods = sections[Section(small.profile, small.dataset, (model,))]
            if own := compared(comparison, methods):
                row.beside[names[model]] = own[measure].interval
                run = methods[comparison["first"]][0]
                row.paper = paper_size_difference(run.task, run.protocol)
        rows.append(row)
    return rows


def _by_size(sections: Sections, comparison: dict[str, Any]) -> list[dict[int, tuple[Section, dict[str, Difference]]]]:
    """For each profile, set and recipe: the families that ran a comparison, and what it found, by their number of
    parameters."""
    bases = set(read_claims()["design"]["bases"])
    found: dict = defaultdict(dict)
    # The design's start models last: they stand for their size, whatever else was made by their recipe.
    together = families(that_decide(sections))
    for section, methods in sorted(together.items(), key=lambda item: set(item[0].models) <= bases):
        made = recipe_of(section.models[0]) or {}
        if "parameters" in made and (differences := compared(comparison, methods)):
            recipe = json.dumps({key: value for key, value in made.items() if key not in ("size", "parameters")})
            found[section.profile, section.dataset, recipe][made["parameters"]] = section, differences
    return list(found.values())
