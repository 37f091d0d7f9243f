"""Runs of the methods beside the study (GTR, SOPHIA): their settings by profile and arm, their folders, their outcome.

Their settings are dataclasses of their own; `profile`, `method`, `arm`, `dataset`, `model`, `seed` and `device` are the
same in all. Their code lies in the room called as the method.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from rftkit.common.errors import UserError
from rftkit.common.paths import ROOT
from rftkit.common.validation import checked
from rftkit.models import load_processor, resolve
from rftkit.runs.fingerprint import CODE, sha256_files, sha256_json, sha256_model, versions
from rftkit.runs.folder import locked, write_atomically


def arm_settings(kind: type, claims: dict[str, Any], profile: str, overrides: dict[str, Any]) -> tuple[Any, list[str]]:
    """Settings of a `kind`, and its start models: the profile's, those for its set, those of its arm, then `overrides`.

    Args:
        claims: has `profiles` and `arms`. A profile may have `models`, which seeds take in turn, and `datasets`.
        overrides: one that is None was not given.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    content = dict(_one_of(claims["profiles"], profile, "profile", kind.method))
    models, of_sets = content.pop("models", [kind.model]), content.pop("datasets", {})
    content |= of_sets.get(given.get("dataset", kind.dataset), {})
    if arm := given.get("arm"):
        content |= _one_of(claims["arms"], arm, "arm", kind.method)
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


def result_file(settings: Any) -> str:
    """The file that is written last: with it a run is complete."""
    return f"{settings.method}.json"


def make_once(settings: Any, out: Path, make: Callable[[Any, Path], None]) -> Path:
    """The folder of a run, which `make` fills or finishes unless it is complete."""
    code = sha256_files(ROOT / "rftkit" / name for name in (*CODE, settings.method))
    config = {name: value for name, value in asdict(settings).items() if name not in ("profile", "device")}
    mark = sha256_json([config, sha256_model(resolve(settings.model)), code, versions()])[:12]
    name = "-".join((Path(settings.dataset).name, settings.arm or settings.method, Path(settings.model).name))
    folder = out / settings.profile / f"{name}-s{settings.seed}-{mark}"
    with locked(folder):
        if not (folder / result_file(settings)).is_file():
            load_processor(settings.model)  # a model that cannot be had is refused before anything is written
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "config.yaml", yaml.safe_dump(asdict(settings), sort_keys=False))
            make(settings, folder)
    return folder


def outcome(settings: Any, folder: Path, measured: str) -> str:
    """What a complete run measured, in words, and its folder."""
    found = json.loads((folder / result_file(settings)).read_text())["eval"]
    parts = (f"{part} {100 * row['accuracy']:.1f} % of {row['n']}" for part, row in found.items())
    return f"{settings.dataset}, {settings.arm or settings.method}, {measured}: {', '.join(parts)}\n{folder}"
