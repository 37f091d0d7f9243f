"""Which runs belong together: the sections of a report, by profile, data set and model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rftkit.common.errors import UserError
from rftkit.common.paths import BUNDLED
from rftkit.runs.archive import is_archive, kept_results, read_archive
from rftkit.runs.folder import PREDICTIONS, RESULTS, complete_runs, data_title, read_results
from rftkit.settings import read_claims

PROTOCOL_TITLES = {
    "base_to_new": "",
    "new_to_base": ", halves swapped",
    "few_shot": ", few-shot",
    "open_set": ", few-shot without choices",
}


def load_runs(*places: Path) -> dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]]:
    """Complete runs under some folders by (profile, dataset, model) and method, each with its `folder`; those of an
    archive with their `answers`.

    Of a method's runs on a set those count that have the settings most of them have, and the test items, of runs with
    the same seed the newest, or if both are kept that of the archive named first; those of a selection never do. Runs
    kept before they said so count as usual ones.
    """
    for place in places:
        if not place.is_dir():
            raise UserError(f"no folder '{place}': give the --out of a study")
    sections: dict = defaultdict(lambda: defaultdict(list))
    by_method: dict = defaultdict(list)
    found = [found for place in reversed(places) for found in _runs_under(place)]
    for _, result in sorted(found, key=lambda found: found[0]):
        dataset = data_title(result["dataset"], result.get("eval_dataset"))
        dataset += PROTOCOL_TITLES[result.get("protocol", "base_to_new")]
        method = "+".join(filter(None, (result["method"], result.get("control"))))
        by_method[result["profile"], dataset, method].append(result)
    for (profile, dataset, method), runs in sorted(by_method.items()):
        usual = _as_most(_as_most(runs, "kind_sha256"), "tests_sha256")
        newest = {_place(run): run for run in sorted(usual, key=lambda run: "kind_sha256" in run)}
        for (model, _), result in sorted(newest.items(), key=lambda item: item[0]):
            sections[profile, dataset, model][method].append(result)
    if not sections:
        named = ", ".join(f"'{place}'" for place in places)
        raise UserError(f"no complete runs under {named}: start rftkit study or rftkit run first")
    return {key: dict(methods) for key, methods in sorted(sections.items())}


def _as_most(runs: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The runs, oldest first, that have under `key` what most models and seeds have, or nothing; of equally many the
    later begun."""
    places = defaultdict(set)
    for run in runs:
        if key in run:
            places[run[key]].add(_place(run))
    usual = max(reversed(places), key=lambda value: len(places[value]), default=None)
    return [run for run in runs if run.get(key, usual) == usual]


def _place(run: dict[str, Any]) -> tuple[str, int]:
    return run["model"], run["seed"]


def _runs_under(place: Path) -> list[tuple[float, dict[str, Any]]]:
    """Complete runs with their answers, each with its time, but for those of a selection; all else is newer than what
    is kept, whenever that was copied."""
    if is_archive(place):
        return [(0.0, run) for run in read_archive(place)]
    return [((folder / RESULTS).stat().st_mtime, read_results(folder) | {"folder": folder})
            for folder in _folders_under(place)]  # fmt: skip


def _folders_under(place: Path) -> list[Path]:
    return [folder for folder in complete_runs(place)
            if "selection" not in folder.relative_to(place).parts and (folder / PREDICTIONS).exists()]  # fmt: skip


def pooled(sections: dict) -> dict:
    """Sections of several base models of one kind on one set, put together."""
    return {key: methods for key, methods in families(sections).items() if key not in sections}


def families(sections: dict) -> dict:
    """Sections with those of the design's base models (`data/claims.yaml`) put together, and those of other models of
    one recipe; all their names in the key."""
    bases, found = read_claims()["design"]["bases"], defaultdict(lambda: defaultdict(dict))
    for (profile, dataset, model), methods in sections.items():
        family = "design" if model in bases else json.dumps(recipe_of(model) or model)
        found[profile, dataset][family][model] = methods
    return {(*place, ", ".join(of)): _together(of) for place, by_family in found.items() for of in by_family.values()}


def by_dose(sections: dict) -> list[tuple[str, dict[float, dict[str, list[dict[str, Any]]]]]]:
    """Where models that differ in their share of answers not as asked (`vague`) ran: profile, set and size, and the
    methods by that share, each with the runs of those bases and seeds that all shares have."""
    found: dict = defaultdict(lambda: defaultdict(dict))
    for (profile, dataset, model), methods in sections.items():
        if made := recipe_of(model):
            others = json.dumps(made | {"vague": None})
            found[profile, dataset, others][made["vague"]][model] = methods
    return [
        (f"{profile}, {dataset}, size {json.loads(others).get('size')}", _common(dict(sorted(doses.items()))))
        for (profile, dataset, others), doses in found.items()
        if len(doses) > 1
    ]


def _common(doses: dict[float, dict[str, dict]]) -> dict[float, dict[str, list[dict[str, Any]]]]:
    """Runs by dose, of those by dose and model: such as all doses have, by method, base (the seed that it was made
    with) and seed; and those of untrained models."""
    together = {dose: _together(of) for dose, of in doses.items()}

    def places(runs: list[dict[str, Any]]) -> list[tuple[int, int]]:
        return [((_recipe(run["model"]) or {}).get("seed"), run["seed"]) for run in runs]

    def kept(name: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        shared = set.intersection(*(set(places(of.get(name, []))) for of in together.values()))
        return (
            runs if name == "zero_shot" else [r for r, place in zip(runs, places(runs), strict=True) if place in shared]
        )

    return {dose: {name: kept(name, runs) for name, runs in of.items()} for dose, of in together.items()}


def _together(of: dict[str, dict[str, list]]) -> dict[str, list]:
    """Methods with the runs of all models."""
    names = dict.fromkeys(name for methods in of.values() for name in methods)
    return {name: [run for methods in of.values() for run in methods.get(name, [])] for name in names}


def is_headline(profile: str, dataset: str, models: str, together: dict) -> bool:
    """Whether the claims are decided here: on the design's set, its halves swapped or not, over all of its base models
    that ran."""
    design, names = read_claims()["design"], set(models.split(", "))
    wider = (set(key[2].split(", ")) for key in together if key[:2] == (profile, dataset))
    on_it = profile in ("nano", "nano-swapped") and dataset.partition(",")[0] == design["dataset"]
    return on_it and names <= set(design["bases"]) and not any(names < others for others in wider)


def recipe_of(model: str) -> dict[str, Any] | None:
    """What a model was made by (`rftkit nano pretrain`), but for what tells base models of one recipe apart; None if
    that is not known."""
    made = _recipe(model)
    return made and {name: made[name] for name in sorted(made.keys() - {"seed", "start"})}


def _recipe(model: str) -> dict[str, Any] | None:
    for folder in (BUNDLED / model, Path(model)):
        with suppress(OSError, ValueError):
            made = json.loads((folder / "recipe.json").read_text())
            return made if isinstance(made, dict) and "vague" in made else None
    return None


def short_names(models: Iterable[str]) -> dict[str, str]:
    """The last part of each model's name or path; as many parts more as tell it from the others."""
    parts = {model: Path(model).parts for model in models}

    def alone(count: int, own: tuple[str, ...]) -> bool:
        return sum(other[-count:] == own[-count:] for other in parts.values()) == 1

    count = {model: next((n for n in range(1, len(own)) if alone(n, own)), len(own)) for model, own in parts.items()}
    return {model: str(Path(*own[-count[model] :])) for model, own in parts.items()}


def others(places: Sequence[Path], sections: dict) -> tuple[int, list[Path]]:
    """How many complete runs under some folders do not count (`load_runs`), and the folders of those not kept."""
    counted = [run for methods in sections.values() for runs in methods.values() for run in runs]
    kept = sum(len(kept_results(place)) for place in {place.resolve() for place in places} if is_archive(place))
    every = [folder for place in places if not is_archive(place) for folder in _folders_under(place)]
    folders = list({folder.resolve(): folder for folder in every}.values())  # one place may lie within another
    shown = {run["folder"].resolve() for run in counted if "folder" in run}
    return kept + len(folders) - len(counted), [folder for folder in folders if folder.resolve() not in shown]
