"""Runs of the methods beside the study's (GTR, SOPHIA): settings by profile and arm, folders, what they measured.

Their settings are dataclasses of their own; `profile`, `method`, `arm`, `dataset`, `model`, `seed` and `device` are the
same in all. Their code lies in the room called as the method.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from rftkit.common.errors import UserError
from rftkit.common.paths import OWN, ROOT
from rftkit.common.validation import checked
from rftkit.models import load_processor, resolve
from rftkit.runs.fingerprint import CODE, sha256_files, sha256_json, sha256_model, versions
from rftkit.runs.folder import CONFIG, is_complete, locked, read_results, result_file, write_atomically


def arm_settings(kind: type, claims: dict[str, Any], profile: str, overrides: dict[str, Any]) -> tuple[Any, list[str]]:
    """Settings of a `kind`, and its start models: the profile's, those for its set, those of its arm, then `overrides`.

    Args:
        claims: has `profiles` and `arms`. A profile may have `models`, which seeds take in turn, `datasets` and `arms`
            with settings of its own for some of them, and the number of `seeds` of a study.
        overrides: one that is None was not given.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    content = dict(_one_of(claims["profiles"], profile, "profile", kind.method))
    of_sets, of_arms, _ = content.pop("datasets", {}), content.pop("arms", {}), content.pop("seeds", None)
    content |= of_sets.get(given.get("dataset", kind.dataset), {})
    models = content.pop("models", [kind.model])
    if arm := given.get("arm"):
        content |= _one_of(claims["arms"], arm, "arm", kind.method) | of_arms.get(arm, {})
    merged = content | {"profile": profile} | given
    fields = kind.__pydantic_fields__
    for name in merged:
        if name not in fields:
            raise UserError(f"unknown setting '{name}' of method {kind.method}: choose one of {', '.join(fields)}")
    settings = checked(kind, merged)
    if "model" not in given:
        settings = checked(kind, merged | {"model": models[settings.seed % len(models)]})
    return settings, models


def _one_of(options: dict[str, dict], name: str, what: str, method: str) -> dict[str, Any]:
    if name not in options:
        raise UserError(f"unknown {what} '{name}' of method {method}: choose one of {', '.join(options)}")
    return options[name] or {}


def arm_folder(settings: Any, out: Path) -> Path:
    """The run folder of these settings: `OUT/PROFILE/DATASET-ARM-MODEL-sSEED-FINGERPRINT`."""
    mark = fingerprint(settings, ("profile", "device"))
    name = "-".join((Path(settings.dataset).name, settings.arm or settings.method, Path(settings.model).name))
    return out / settings.profile / f"{name}-s{settings.seed}-{mark}"


def fingerprint(settings: Any, without: Sequence[str]) -> str:
    """Of settings without some of them, the start model, what else is read (`inputs`), the code and the packages."""
    code = sha256_files(ROOT / "rftkit" / name for name in (*CODE, settings.method))
    config = {name: value for name, value in asdict(settings).items() if name not in without}
    inputs = [sha256_model(resolve(settings.model)), *getattr(settings, "inputs", ())]
    return sha256_json([config, inputs, code, versions()])[:12]


def make_once(settings: Any, out: Path, make: Callable[[Any, Path], None]) -> Path:
    """The folder of a run, which `make` fills or finishes unless it is complete."""
    folder = arm_folder(settings, out)
    with locked(folder):
        if not is_complete(folder):
            load_processor(settings.model)  # a model that cannot be had is refused before anything is written
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / CONFIG, yaml.safe_dump(asdict(settings), sort_keys=False))
            make(settings, folder)
    return folder


def outcome(settings: Any, folder: Path, measured: str) -> str:
    """What a complete run measured, in words, and its folder."""
    found = read_found(folder, settings.method)["eval"]
    parts = (f"{part} {100 * row['accuracy']:.1f} % of {row['n']}" for part, row in found.items())
    return f"{settings.dataset}, {settings.arm or settings.method}, {measured}: {', '.join(parts)}\n{folder}"


def read_found(folder: Path, method: str) -> dict[str, Any]:
    """The results of a complete run of `method`; UserError if they are truncated, or changed."""
    path = folder / result_file(method)
    try:
        found = json.loads(path.read_bytes())
        whole = all({"accuracy", "n"} <= row.keys() for row in found["eval"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(f"'{path}' is not what a run writes: remove it and start the run again")
    return found


def accuracies(folder: Path) -> dict[str, float]:
    """The accuracy (of agents: success, 0-1) of a complete run by part, whatever its method."""
    for method in OWN:
        if (folder / result_file(method)).is_file():
            return {part: row["accuracy"] for part, row in read_found(folder, method)["eval"].items()}
    return {part: row.accuracy for part, row in read_results(folder).parts.items()}
