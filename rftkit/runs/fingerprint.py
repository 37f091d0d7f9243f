"""What makes a run the run it is: digests of its configuration, model, data and code, and versions."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rftkit.common.paths import ROOT
from rftkit.settings import Settings
from rftkit.tasks.example import Example
from rftkit.tasks.registry import short_name

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
# The code that trains and scores: a run made by other code is another run.
CODE = ("settings.py", "prompts.py", "rewards.py", "trainer.py", "sft.py", "models.py", "evaluate.py", "run.py",
        "shared_prefix", "tasks", "common/mathematics", "common/distributed.py", "common/processor.py")  # fmt: skip
# A run is the same run under whatever name its profile has, and however often it is looked at on the way.
NOT_IN_FINGERPRINT = ("profile", "eval_every", "eval_kl", "val_items", "check_memory", "report_to")
# How the machine was used.
MACHINE = ("device", "micro_batch", "eval_batch", "save_every", "gradient_checkpointing", "share_prefix")
# What may differ between runs that are pooled: their seeds and base models, and how the machine was used.
NOT_IN_KIND = (*NOT_IN_FINGERPRINT, "seed", "model", *MACHINE)
# What stands in a model's folder for people.
NOT_THE_MODEL = (".md", ".csv", "recipe.json", "zero_shot.json")


def sha256_files(paths: Iterable[Path], leave_out: tuple[str, ...] = (".pyc", ".md")) -> str:
    """One digest over the names and contents of files, folders included, but for those whose names end so."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            if not file.name.endswith(leave_out):
                with file.open("rb") as content:
                    digest.update(file.name.encode() + b"\0" + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def sha256_examples(examples: Iterable[Example]) -> str:
    """One digest over what is asked and answered: texts, splits, groups, and pictures as files or as pixels."""
    digest = hashlib.sha256()
    for example in examples:
        fields = [example.id, example.question, example.answer, example.choices, example.split, example.group]
        fields += [example.unit, example.precision] if example.unit or example.precision is not None else []
        digest.update(json.dumps(fields).encode())
        for image in example.images:
            content = image.read_bytes() if isinstance(image, Path) else image
            digest.update(content if isinstance(content, bytes) else content.tobytes())
    return digest.hexdigest()


def sha256_model(path: str) -> str:
    """A digest of what a model's folder holds to be run; of a hub model, its name (the hub keeps the rest)."""
    folder = Path(path)
    return sha256_files([folder], NOT_THE_MODEL) if folder.is_dir() else hashlib.sha256(path.encode()).hexdigest()


@lru_cache
def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


@lru_cache
def installed() -> dict[str, str]:
    """What machines that make the runs of one study must share: versions, and the code that trains and scores."""
    return versions() | {"code": code_sha256()}


def code_sha256() -> str:
    return sha256_files(ROOT / "rftkit" / name for name in CODE)


def fingerprint(settings: Settings, model_sha: str, data_sha: str) -> str:
    """Twelve hex digits over configuration, model, data, code and library versions."""
    config = _config(settings, NOT_IN_FINGERPRINT)
    return sha256_json([config, model_sha, data_sha, code_sha256(), versions()])[:12]


def kind_sha256(settings: Settings) -> str:
    """A digest that runs share which may be pooled."""
    return sha256_json(_config(settings, NOT_IN_KIND))


def _config(settings: Settings, leave_out: Iterable[str]) -> dict[str, Any]:
    config = {key: value for key, value in asdict(settings).items() if key not in leave_out}
    for name in ("dataset", "eval_dataset"):  # a folder may move
        config[name] = config[name] and short_name(config[name])
    if not config["blank"]:  # younger than runs that were archived, which are of the same kind without it
        del config["blank"]
    return config


def sha256_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def git_revision() -> str | None:
    """The commit of the clone, with `+` if files differ; None outside git."""
    try:
        run = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **run).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")
