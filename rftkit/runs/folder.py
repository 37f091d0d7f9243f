"""Run folders: their names, fingerprints and files. `results.json` is written last: it means the run is complete."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from filelock import FileLock, Timeout

from rftkit.common.errors import UserError
from rftkit.common.paths import ROOT
from rftkit.prompts import MODES
from rftkit.rewards import RULES
from rftkit.settings import METHODS, Settings, settings_of
from rftkit.tasks.example import PROTOCOLS, TASK_RULES, Example
from rftkit.tasks.registry import short_name

SCHEMA_VERSION = 1
RESULTS, PREDICTIONS = "results.json", "predictions.parquet"
METRICS, CURVE = "metrics.csv", "curve.csv"  # of training, step by step
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
# The code that trains and scores: a run made by other code is another run.
CODE = ("settings.py", "prompts.py", "rewards.py", "trainer.py", "sft.py", "models.py", "evaluate.py", "run.py",
        "shared_prefix", "tasks", "common/math_equal.py", "common/distributed.py", "common/processor.py")  # fmt: skip
# A run is the same run under whatever name its profile has, and however often it is looked at on the way.
NOT_IN_FINGERPRINT = ("profile", "eval_every", "eval_kl", "val_items", "check_memory", "report_to")
# What may differ between runs that are pooled: their seeds and base models, and how the machine was used.
NOT_IN_KIND = (*NOT_IN_FINGERPRINT, "seed", "model", "device", "micro_batch", "eval_batch", "save_every",
               "gradient_checkpointing", "share_prefix")  # fmt: skip
# What stands in a model's folder for people.
NOT_THE_MODEL = (".md", ".csv", "recipe.json", "zero_shot.json")


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def sha256_files(paths: Iterable[Path], leave_out: tuple[str, ...] = (".pyc",)) -> str:
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


def fingerprint(settings: Settings, model_sha: str, data_sha: str) -> str:
    """Twelve hex digits over configuration, model, data, code and library versions."""
    config = _config(settings, NOT_IN_FINGERPRINT)
    code = sha256_files(ROOT / "rftkit" / name for name in CODE)
    return _sha256_json([config, model_sha, data_sha, code, versions()])[:12]


def _config(settings: Settings, leave_out: Iterable[str]) -> dict[str, Any]:
    config = {key: value for key, value in asdict(settings).items() if key not in leave_out}
    for name in ("dataset", "eval_dataset"):  # a folder may move
        config[name] = config[name] and short_name(config[name])
    return config


def _sha256_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def data_title(dataset: str, eval_dataset: str | None) -> str:
    """How a run's data are named: DATASET, or TRAINED-to-TESTED."""
    return "-to-".join(short_name(name) for name in (dataset, eval_dataset) if name)


def run_folder(out: Path, settings: Settings, mark: str) -> Path:
    """`OUT/PROFILE/DATASET-METHOD-MODEL-sSEED-FINGERPRINT`.

    A control stands behind the method: `METHOD+CONTROL`; a protocol behind the set, if it is not the usual one.
    """
    dataset, model = data_title(settings.dataset, settings.eval_dataset), Path(settings.model).name
    dataset += "" if settings.protocol == Settings.protocol else f"-{settings.protocol}"
    method = settings.method + (f"+{settings.control}" if settings.control else "")
    return out / settings.profile / f"{dataset}-{method}-{model}-s{settings.seed}-{mark}"


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a run. Another process that wants to make it waits until this one has ended, however it ends; without
    `wait` it is told that it does not have it (False)."""
    place = folder.parent / ".locks"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / folder.name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            yield False
            return
        print(f"{folder.name}: another process is making this run; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield True
    finally:
        lock.release()


def is_complete(folder: Path) -> bool:
    return (folder / RESULTS).is_file()


def write_config(folder: Path, settings: Settings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.yaml", yaml.safe_dump(asdict(settings), sort_keys=False))


def read_settings(run: Path) -> Settings:
    """The settings in a run folder's `config.yaml`; UserError if it has not all of them: it is torn, or old."""
    try:
        content = yaml.safe_load((run / "config.yaml").read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict) or content.keys() != {field.name for field in fields(Settings)}:
        raise UserError(f"'{run}' is no run folder of this version: it has no config.yaml that can be read")
    return settings_of(content)


def write_results(folder: Path, settings: Settings, content: dict[str, Any], data_sha: str) -> dict[str, Any]:
    """Write `results.json`, the last act of a run."""
    head = ("task", "dataset", "eval_dataset", "method", "control", "protocol", "model", "profile", "seed", "scoring")
    results = {"schema_version": SCHEMA_VERSION} | {key: getattr(settings, key) for key in head} | content
    results |= {
        "versions": versions(),
        "git_revision": git_revision(),
        "config_sha256": _sha256_json(asdict(settings)),
        "kind_sha256": _sha256_json(_config(settings, NOT_IN_KIND)),  # runs with the same can be pooled
        "data_sha256": data_sha,
    }
    write_atomically(folder / RESULTS, json.dumps(results, indent=1))
    return results


def read_results(folder: Path) -> dict[str, Any]:
    """What `results.json` of a complete run holds; UserError if it is torn, or changed so that it cannot be used."""
    try:
        found = json.loads((folder / RESULTS).read_text())
    except (ValueError, RecursionError):
        found = None
    return checked_results(found, folder / RESULTS)


def checked_results(found: Any, path: Path) -> dict[str, Any]:
    """What was read from `path`; UserError if it is not what a run writes."""
    try:
        whole = _is_whole(found)
    except (ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError(f"'{path}' is not what a run writes: remove it and start the run again")
    return found


def _is_whole(found: dict[str, Any]) -> bool:
    """Whether texts and numbers are where others read them; where something is missing, Python's own errors say so."""
    parts, measures = found["eval"].values(), found["measures"]
    texts = [found[key] for key in ("profile", "dataset", "model", "mode", "scoring", "data_sha256", "config_sha256")]
    optional = (found.get(key) for key in ("eval_dataset", "control", "kind_sha256", "tests_sha256"))
    texts += [text for text in optional if text is not None]
    texts += [measure[key] for measure in measures for key in ("split", "mode", "measure")]
    shares = [row[key] for row in (*parts, *measures) for key in ("accuracy", "ci_low", "ci_high")]
    amounts = [found["seed"], found["seconds"], found["completion_length"], *(row["n"] for row in parts)]
    amounts += [found["training"]["seconds"]] if found["training"] else []
    known = (
        found["method"] in METHODS and found["task"] in TASK_RULES and found.get("protocol", "base_to_new") in PROTOCOLS
    )
    "".join(texts).encode()  # all of them texts, and such as can be written
    return (
        known
        and found["mode"] in MODES
        and found["scoring"] in RULES
        and type(found["seed"]) is int  # True is another
        and all(0 <= share <= 1 for share in shares)  # NaN is neither
        and all(0 <= amount < math.inf for amount in amounts)
        and {"versions", "git_revision"} <= found.keys()
        and not {"folder", "answers"} & found.keys()  # a report's own
    )


def read_predictions(folder: Path, *rules: str) -> pd.DataFrame:
    """The test answers of a complete run, an item and mode a row; UserError if they are torn, or changed.

    Args:
        rules: columns of scores that are needed.
    """
    path = folder / PREDICTIONS
    try:
        table = _predictions(path, path.stat().st_mtime_ns)
        whole = table is not None and all(table[rule].isin((0, 1)).all() for rule in rules)
    except (OSError, ValueError, LookupError, TypeError):  # pyarrow's own are among them
        whole = False
    if not whole:
        raise UserError(f"'{path}' is not what a run writes: remove {RESULTS} beside it and start the run again")
    return table


@lru_cache(maxsize=128)  # a report comes to each run several times
def _predictions(path: Path, changed: int) -> pd.DataFrame | None:
    """What is in the file that was changed at that time; None if it does not name each item and mode once."""
    table = pd.read_parquet(path)
    whole = len(table) and not table[["split", "id", "mode"]].duplicated().any() and "group" in table
    return table if whole else None


def answers_of(run: dict[str, Any], *rules: str) -> pd.DataFrame:
    """The test answers of a run (its results with their `folder`, or `answers` kept in an archive)."""
    return run["answers"] if "answers" in run else read_predictions(run["folder"], *rules)


def same_tests(*runs: dict[str, Any]) -> bool:
    """Whether runs were tested on the same items, as far as they say: items drawn anew have the names of others."""
    return len({run["tests_sha256"] for run in runs if "tests_sha256" in run}) < 2


def read_answers(runs: Iterable[dict[str, Any]], mode: str, rule: str) -> pd.DataFrame:
    """Test answers of runs (`answers_of`) in a mode: base, seed, split, id, group, correct by a rule.

    `base` is the pre-trained model.
    """
    tables = [answers_of(run, rule).assign(base=run["model"], seed=run["seed"]) for run in runs]
    table = pd.concat(tables).rename(columns={rule: "correct"})
    return table.loc[table["mode"] == mode, ["base", "seed", "split", "id", "group", "correct"]]


def complete_runs(out: Path) -> list[Path]:
    """All complete run folders under `out`, sorted by path."""
    return sorted(path.parent for path in out.rglob(RESULTS))


def git_revision() -> str | None:
    """The commit of the clone, with `+` if files differ; None outside git."""
    try:
        run = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **run).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")
