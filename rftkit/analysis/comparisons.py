"""Where thinking pays, and for whom: comparisons of `data/claims.yaml` over sets (`sets`) and model sizes (`size`)."""

from __future__ import annotations

import json
from collections import defaultdict

from rftkit.analysis.claims import Comparison, Difference, compared, correct, paper_difference, undecided
from rftkit.analysis.paper import paper_size_difference
from rftkit.runs.collect import Section, Sections, families, recipe_of, short_names
from rftkit.runs.record import Run
from rftkit.settings import METHODS, read_claims
from rftkit.tasks.drawn.scenes import LEVELS, kind_of, level_of
from rftkit.tasks.registry import DRAWN


def set_rows(sections: Sections) -> dict[str, list[Comparison]]:
    """Each comparison's rows by its name: one for each profile, set and kind of start model that ran both methods.

    A row is of H, or of the mean of the parts, and corrected over the rows of its comparison; `verdict` says who is
    ahead; `beside` has the parts.
    """
    short, tables = _short_names(sections), {}
    for comparison in read_claims()["sets"]["comparisons"]:
        name, first, second = comparison["name"], comparison["first"], comparison["second"]
        rows = []
        for section, methods in families(sections).items():
            if found := compared(comparison, methods):
                *parts, overall = found
                row = Comparison.of(found[overall], claim=name, place=_title(section, short), measure=overall)
                row.profile, row.dataset = section.profile, section.dataset
                row.beside = {part: found[part].interval for part in parts}
                row.smallest_beside = {part: found[part].smallest for part in parts}
                row.paper = paper_difference(methods[first], methods[second])
                rows.append(row)
        correct(rows)
        for row in rows:
            row.verdict = undecided(row) or f"{METHODS[first if row.difference[0] > 0 else second].title} ahead"
        if rows:
            tables[name] = rows
    return tables


def kind_rows(sections: Sections) -> list[Comparison]:
    """The first comparison of `set_rows`, uncorrected, by kind of scene: a row for each profile, drawn task, family of
    start models and kind; `beside` has the levels."""
    comparison, short, rows = read_claims()["sets"]["comparisons"][0], _short_names(sections), []
    for section, methods in families(sections).items():
        task = DRAWN.get(next(iter(methods.values()))[0].task)
        if task is None:
            continue
        kinds = compared(comparison, methods, kind_of)
        kinds.pop("mean", None)
        levels = compared(comparison, methods, lambda name: f"{kind_of(name)} {level_of(name)}")
        for kind, found in kinds.items():
            claim = kind + " (not trained on)" * (kind in task.untrained)
            row = Comparison.of(found, claim=claim, place=_title(section, short))
            row.beside = {f"level {n}": levels[f"{kind} {n}"].interval for n in LEVELS if f"{kind} {n}" in levels}
            rows.append(row)
    return rows


def size_rows(sections: Sections) -> list[Comparison]:
    """Whether larger start models profit more from thinking: the first comparison of `set_rows` on the largest of one
    recipe minus that on the smallest, uncorrected, a row for each profile and set.

    `beside` has the comparison on each of these models by itself; `paper` is what the paper's 7B model gains by
    thinking minus what its 2B model does.
    """
    comparison, short, rows = read_claims()["sets"]["comparisons"][0], _short_names(sections), []
    for by_size in _by_size(sections):
        if len(by_size) < 2:
            continue
        (small, run, of_small), (large, _, of_large) = by_size[min(by_size)], by_size[max(by_size)]
        measure = list(of_small)[-1]
        few, many = of_small[measure], of_large[measure]
        difference = Difference(few.runs + many.runs, many.mean - few.mean, many.draws - few.draws)
        row = Comparison.of(difference, claim="Larger models profit more from thinking", measure=measure)
        row.dataset, row.parameters = small.dataset, (min(by_size), max(by_size))
        row.place = f"{small.dataset}, profile {small.profile}"
        row.paper = paper_size_difference(run.task, run.protocol)
        for model in (*small.models, *large.models):
            own = compared(comparison, sections[Section(small.profile, small.dataset, (model,))])
            row.beside |= {short[model]: own[measure].interval} if own else {}
        rows.append(row)
    return rows


def _by_size(sections: Sections) -> list[dict[int, tuple[Section, Run, dict[str, Difference]]]]:
    """For each profile, set and recipe: the families that ran the first comparison by their number of parameters, with
    a run and what the comparison found."""
    comparison, bases = read_claims()["sets"]["comparisons"][0], set(read_claims()["design"]["bases"])
    found: dict = defaultdict(dict)
    # The design's start models last: they stand for their size, whatever else was made by their recipe.
    for section, methods in sorted(families(sections).items(), key=lambda item: set(item[0].models) <= bases):
        made = recipe_of(section.models[0]) or {}
        if "parameters" in made and (differences := compared(comparison, methods)):
            recipe = json.dumps({key: value for key, value in made.items() if key not in ("size", "parameters")})
            run = methods[comparison["first"]][0]
            found[section.profile, section.dataset, recipe][made["parameters"]] = section, run, differences
    return list(found.values())


def _title(section: Section, short: dict[str, str]) -> str:
    return f"{section.dataset}, {', '.join(short[model] for model in section.models)}, profile {section.profile}"


def _short_names(sections: Sections) -> dict[str, str]:
    return short_names(model for section in sections for model in section.models)
