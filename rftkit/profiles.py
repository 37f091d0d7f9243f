"""Profiles: YAML files with the settings of a study, those of the kit in `notebooks/profiles`."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from rftkit.common.errors import UserError
from rftkit.common.paths import BUNDLED, PROFILES


def load_profile(name: str) -> dict[str, Any]:
    """The content of a profile, by name (`notebooks/profiles/NAME.yaml`) or by path."""
    path = _path_of(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise UserError(f"no profile '{name}': choose one of {known}, or give the path of a YAML file")
    try:
        content = deepcopy(_parsed(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"profile '{path}' is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise UserError(f"profile '{path}' is not a YAML mapping")
    like = content.pop("like", None)
    if like is None:
        return content
    if like == path.stem or not (PROFILES / f"{like}.yaml").is_file():  # of the kit's own, so that there is no circle
        raise UserError(f"'like' of profile '{path}' must name another profile of the kit, not '{like}'")
    return {key: value for key, value in load_profile(like).items() if key != "profile"} | content


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """Parsed once: a study asks for the settings of hundreds of runs."""
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"'{twice[0]}' stands in it twice")
        return super().construct_mapping(node, deep)


def _path_of(name: str) -> Path:
    return PROFILES / f"{name}.yaml" if (PROFILES / f"{name}.yaml").is_file() else Path(name)


def study_seeds(profile: str) -> int:
    """How many seeds a study with this profile has, from `study: {seeds: 10}`: 1 if not given."""
    part = load_profile(profile).get("study", {})
    seeds = part.get("seeds", 1) if isinstance(part, dict) and part.keys() <= {"seeds"} else None
    if type(seeds) is not int or seeds < 1:
        raise UserError(f"'study' of profile '{profile}' must hold a number of seeds, as in study: {{seeds: 5}}")
    return seeds


def base_model(profile: str, models: Any, seed: int) -> str:
    """The model that a seed starts from: a profile's, or of a list the one whose turn it is.

    A folder beside the profile is found from wherever the profile is used.
    """
    every = models if isinstance(models, list) else [models]
    if not every or not all(isinstance(model, str) and model for model in every):
        raise UserError("'model' of a profile must be a name or a list of names, as in model: [nano-s, my/model]")
    model = every[seed % len(every)]
    beside = _path_of(profile).parent / model
    there = (beside / "config.json").is_file() and not (BUNDLED / model / "config.json").is_file()
    return str(beside.resolve()) if there else model
