"""Which runs belong together: the sections of a report, by profile, data set and model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rftkit.errors import UserError
from rftkit.paths import BUNDLED
from rftkit.results import PREDICTIONS, RESULTS, complete_runs, data_title, read_results
from rftkit.settings import read_claims

PROTOCOL_TITLES = {
    "base_to_new": "",
    "new_to_base": ", halves swapped",
    "few_shot": ", few-shot",
    "open_set": ", few-shot without choices",
}


def load_runs(*places: Path) -> dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]]:
    """Complete runs under some folders by (profile, dataset, model) and method, each with its `folder`.

    Of runs with the same method and seed (other settings or code) the newest counts; those of a selection never do.
    """
    for place in places:
        if not place.is_dir():
            raise UserError(f"no folder '{place}': give the --out of a study")
    sections: dict = defaultdict(lambda: defaultdict(list))
    newest = {}
    found = [folder for place in places for folder in _runs_under(place)]
    for folder in sorted(found, key=lambda folder: (folder / RESULTS).stat().st_mtime):
        result = read_results(folder) | {"folder": folder}
        dataset = data_title(result["dataset"], result.get("eval_dataset"))
        dataset += PROTOCOL_TITLES[result.get("protocol", "base_to_new")]
        method = "+".join(filter(None, (result["method"], result.get("control"))))
        newest[result["profile"], dataset, result["model"], method, result["seed"]] = result
    for (profile, dataset, model, method, _), result in sorted(newest.items(), key=lambda item: item[0]):
        sections[profile, dataset, model][method].append(result)
    if not sections:
        named = ", ".join(f"'{place}'" for place in places)
        raise UserError(f"no complete runs under {named}: start rftkit study or rftkit run first")
    return {key: dict(methods) for key, methods in sorted(sections.items())}


def _runs_under(place: Path) -> list[Path]:
    """Complete runs with their answers, but for those of a selection."""
    return [folder for folder in complete_runs(place)
            if "selection" not in folder.relative_to(place).parts and (folder / PREDICTIONS).exists()]  # fmt: skip


def pooled(sections: dict) -> dict:
    """Sections of several base models of one recipe on one set, put together."""
    return {key: methods for key, methods in _families(sections).items() if key not in sections}


def by_dose(sections: dict) -> list[tuple[str, str, dict[float, dict[str, list[dict[str, Any]]]]]]:
    """Where models that differ in their share of answers not as asked (`vague`) ran: profile, set, and the methods by
    that share."""
    found: dict = defaultdict(dict)
    for (profile, dataset, models), methods in _families(sections).items():
        if made := recipe_of(models.partition(", ")[0]):
            found[profile, dataset, json.dumps(made | {"vague": None})][made["vague"]] = methods
    return [(*place[:2], dict(sorted(doses.items()))) for place, doses in found.items() if len(doses) > 1]


def recipe_of(model: str) -> dict[str, Any] | None:
    """What a model was made by (`rftkit nano pretrain`), but for what tells base models of one recipe apart; None if
    that is not known."""
    for folder in (BUNDLED / model, Path(model)):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            made = json.loads((folder / "recipe.json").read_text())
            return {"vague": made["vague"]} | {name: made[name] for name in sorted(made.keys() - {"seed", "start"})}
    return None


def _families(sections: dict) -> dict:
    """Sections with those of base models of one recipe, or of the design (`data/claims.yaml`), put together; all their
    names in the key."""
    bases, found = read_claims()["design"]["bases"], defaultdict(lambda: defaultdict(dict))
    for (profile, dataset, model), methods in sections.items():
        family = json.dumps(recipe_of(model) or ("design" if model in bases else model))
        found[profile, dataset][family][model] = methods
    return {
        (*place, ", ".join(of)): {
            name: [run for methods in of.values() for run in methods.get(name, [])]
            for name in dict.fromkeys(name for methods in of.values() for name in methods)
        }
        for place, families in found.items()
        for of in families.values()
    }


def count_older(places: Sequence[Path], sections: dict) -> int:
    counted = sum(len(runs) for methods in sections.values() for runs in methods.values())
    return sum(len(_runs_under(place)) for place in places) - counted
