"""Which runs belong together: the sections of a report, by profile, data set and start model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from rftkit.common.errors import UserError
from rftkit.common.paths import KEPT, model_folder
from rftkit.runs.archive import is_archive, read_archive
from rftkit.runs.changed import as_set
from rftkit.runs.folder import PREDICTIONS, RESULTS, complete_runs, data_title, read_results
from rftkit.runs.results import Run
from rftkit.settings import read_claims

PROTOCOL_TITLES = {
    "base_to_new": "",
    "new_to_base": ", halves swapped",
    "few_shot": ", few-shot",
    "open_set": ", few-shot without choices",
}
SMOKE = "smoke"  # a profile whose numbers mean nothing, so that its runs decide nothing


class Section(NamedTuple):
    """Whose runs stand in one table: those of a profile on a set, from one start model or several."""

    profile: str
    dataset: str  # with what else tells it from others, such as a protocol
    models: tuple[str, ...]


Methods = dict[str, list[Run]]  # by `Run.label`
Sections = dict[Section, Methods]


@dataclass(frozen=True)
class SetAside:
    """A complete run that does not count, and the run with its start model and seed that counts in its place."""

    run: Run
    instead: Run | None  # None: it has other settings or test items than most


def load_runs(*places: Path) -> Sections:
    """Complete runs under some folders, by section and method; those of an archive have their answers with them.

    A run with other settings than its profile's is a method of its own (`Run.label`). Of a method's runs on a set those
    count that have the test items most of them have; where a profile is not known, the settings too. Of runs with the
    same seed the newest counts, or if both are archived that of the archive named first. Those of a selection never do.
    """
    return sort_out(*places)[0]


def check_places(places: Iterable[Path]) -> None:
    for place in places:
        if not place.is_dir():
            raise UserError(f"no folder '{place}': give the --out of a study")


def sort_out(*places: Path, or_none: bool = False) -> tuple[Sections, list[SetAside]]:
    """`load_runs`, and the runs that do not count; UserError if none does, unless there may be none."""
    check_places(places)
    dated = {}
    for place in reversed(places):
        dated |= _runs_under(place)  # one place may lie within another
    runs = [run for _, run in sorted(dated.values(), key=lambda found: found[0])]
    counted, aside = [], []
    for _, of_method in sorted(_grouped(runs, lambda run: (run.profile, _section_of(run).dataset, run.label)).items()):
        count = _that_count(of_method)
        counted += count.values()
        aside += [SetAside(run, count.get(run.pair)) for run in of_method if run is not count.get(run.pair)]
    if not counted and not or_none:
        named = ", ".join(f"'{place}'" for place in places)
        raise UserError(f"no complete runs under {named}: start rftkit study or rftkit run first")
    return by_section(counted), aside


def by_section(runs: Iterable[Run]) -> Sections:
    """Runs by section and method, those of each start model by themselves."""
    found = _grouped(runs, _section_of)
    return {section: _by_method(found[section]) for section in sorted(found)}


def archived_methods(dataset: str) -> Methods:
    """The runs of the archived study on a set, by method; none if it has none there."""
    found = families(load_runs(KEPT)).items()
    return next((methods for section, methods in found if section.dataset == dataset), {})


def all_runs(sections: Mapping[Any, Methods]) -> list[Run]:
    """The runs of all sections (or sets) and methods, in their order."""
    return [run for methods in sections.values() for runs in methods.values() for run in runs]


def _grouped(runs: Iterable[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    groups = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return dict(groups)


def _by_method(runs: Iterable[Run]) -> Methods:
    return _grouped(runs, lambda run: run.label)


def _section_of(run: Run) -> Section:
    dataset = data_title(run.dataset, run.eval_dataset) + PROTOCOL_TITLES[run.protocol]
    return Section(run.profile, dataset, (run.model,))


def _that_count(runs: list[Run]) -> dict[tuple[str, int], Run]:
    """Of a method's runs on a set, oldest first, those that `load_runs` counts, by start model and seed."""
    usual = _as_most(_as_most(runs, _kind), attrgetter("tests_sha256"))
    newest = {run.pair: run for run in sorted(usual, key=lambda run: run.kind_sha256 is not None)}
    return {pair: newest[pair] for pair in sorted(newest)}


def _kind(run: Run) -> str | None:
    """What runs share that may be pooled; None of runs archived before they said so, which count as usual ones."""
    return run.kind_sha256 if run.changed is None else run.changed


def _as_most(runs: list[Run], of: Callable[[Run], Any]) -> list[Run]:
    """The runs, oldest first, for which `of` is what it is for most models and seeds, or None; of equals the later."""
    said = _grouped(runs, of)
    known = [value for value in reversed(said) if value is not None]
    usual = max(known, key=lambda value: len({run.pair for run in said[value]}), default=None)
    return [run for run in runs if of(run) in (None, usual)]


def _runs_under(place: Path) -> dict[Any, tuple[float, Run]]:
    """Complete runs by what tells them apart, each with its time; all others are newer than what is archived, whenever
    that was copied."""
    if is_archive(place):
        archived = map(as_set, read_archive(place))
        return {(place.resolve(), number): (0.0, run) for number, run in enumerate(archived)}
    folders = [folder for folder in complete_runs(place) if (folder / PREDICTIONS).exists()]
    trained = [folder for folder in folders if "selection" not in folder.relative_to(place).parts]
    return {f.resolve(): ((f / RESULTS).stat().st_mtime, as_set(read_results(f))) for f in trained}


def that_decide(sections: Sections) -> Sections:
    """Sections but for those of smoke runs."""
    return {section: methods for section, methods in sections.items() if section.profile != SMOKE}


def families(sections: Sections) -> Sections:
    """Sections with those of the design's start models (`data/claims.yaml`) put together, and those of other models of
    one recipe."""
    bases = read_claims()["design"]["bases"]

    def family(run: Run) -> tuple[str, str, str]:
        made = "design" if run.model in bases else json.dumps(recipe_of(run.model) or run.model)
        return run.profile, _section_of(run).dataset, made

    together = {}
    for (profile, dataset, _), runs in _grouped(all_runs(sections), family).items():
        models = dict.fromkeys(run.model for run in runs)
        together[Section(profile, dataset, tuple(models))] = _by_method(runs)
    return together


def by_dose(sections: Sections) -> list[tuple[str, dict[float, Methods]]]:
    """Where models that differ in their share of answers not as asked (`vague`) ran: profile, set and size, and the
    methods by that share. Of trained models only the runs whose start model (by the seed that it was made with) and
    seed all shares have."""
    recipes = {run.model: recipe_of(run.model, own=True) for run in all_runs(sections)}

    def vague(run: Run) -> float:
        return recipes[run.model]["vague"]

    def but_for_dose(run: Run) -> tuple[str, str]:
        section, made = _section_of(run), recipe_of(run.model)
        title = f"{section.profile}, {section.dataset}, size {made.get('size')}"
        return title, json.dumps(made | {"vague": None})

    def place(run: Run) -> tuple[str, int | None, int]:
        return run.label, recipes[run.model].get("seed"), run.seed

    found = []
    made_known = [run for run in all_runs(sections) if recipes[run.model]]
    for (title, _), runs in _grouped(made_known, but_for_dose).items():
        shares, common = sorted(set(map(vague, runs))), []
        for of_place in _grouped(runs, place).values():
            if of_place[0].method == "zero_shot" or len(set(map(vague, of_place))) == len(shares):
                common += of_place
        by_vague = _grouped(common, vague)
        if len(shares) > 1:
            found.append((title, {share: _by_method(by_vague.get(share, [])) for share in shares}))
    return found


def is_headline(section: Section, together: Sections) -> bool:
    """Whether the claims are decided here: on the design's set, its halves swapped or not, over all of its start models
    that ran."""
    design, own = read_claims()["design"], set(section.models)
    wider = [set(other.models) for other in together if other[:2] == section[:2] and own < set(other.models)]
    on_it = section.profile in ("nano", "nano-swapped") and section.dataset.partition(",")[0] == design["dataset"]
    return on_it and own <= set(design["bases"]) and not wider


def recipe_of(model: str, own: bool = False) -> dict[str, Any] | None:
    """What a model was made by (`rftkit nano pretrain`); None if that is not known.

    Args:
        own: with what tells start models of one recipe apart.
    """
    folder, made = model_folder(model) or Path(model), None
    with suppress(OSError, ValueError):
        made = json.loads((folder / "recipe.json").read_text())
    if not isinstance(made, dict) or "vague" not in made:
        return None
    return {name: made[name] for name in sorted(made) if own or name not in ("seed", "start")}


def short_names(models: Iterable[str]) -> dict[str, str]:
    """The last part of each model's name or path; as many parts more as tell it from the others."""
    parts = {model: Path(model).parts for model in models}
    names = {}
    for model, own in parts.items():
        count = 1
        while count < len(own) and sum(other[-count:] == own[-count:] for other in parts.values()) > 1:
            count += 1
        names[model] = str(Path(*own[-count:]))
    return names


def model_names(sections: Sections) -> dict[str, str]:
    """`short_names` of all start models."""
    return short_names(run.model for run in all_runs(sections))
