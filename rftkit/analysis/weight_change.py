"""How far training moved the weights, part by part (paper, table 4)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from rftkit.common.errors import UserError
from rftkit.common.paths import LOGS
from rftkit.models import load
from rftkit.runs.collect import Methods
from rftkit.runs.folder import read_results, write_atomically
from rftkit.tasks.registry import short_name

PIECE = re.compile("mlp|attn|norm|ln_q")  # what a weight's name says it belongs to; ln_q is a norm


def parameter_change(folder: Path) -> dict[str, float]:
    """The L1 norm of a run's change of weights over that of the weights it began with, for each part of the model.

    Parts are named as in the paper: `visual` and `language`, and of each `mlp_`, `norm_` and `attn_`. The paper does
    not say what its own L1 numbers are divided by: orders can be compared, sizes cannot.
    """
    model = read_results(folder).model
    base, _ = load(model, device="cpu")
    if (folder / "model").is_dir():
        trained, _ = load(str(folder / "model"), device="cpu")
    elif (folder / "adapter").is_dir():
        with_adapter, _ = load(model, adapter=str(folder / "adapter"), device="cpu")
        trained = with_adapter.merge_and_unload()
    else:
        raise UserError(f"'{folder.name}' has no trained weights: name a run of a method that trains")
    after, moved = dict(trained.named_parameters()), []
    for name, weight in base.named_parameters():
        tower = "visual" if ".visual." in name else "language"
        piece = PIECE.search(name)
        parts = [tower, f"{piece[0].replace('ln_q', 'norm')}_{tower}"] if piece else [tower]
        change, before = (after[name] - weight).abs().sum().item(), weight.abs().sum().item()
        moved += [{"part": part, "change": change, "before": before} for part in parts]
    norms = pd.DataFrame(moved).groupby("part", sort=False).sum()
    return (norms["change"] / norms["before"]).to_dict()


def mean_changes(methods: Methods) -> dict[str, dict[str, float]]:
    """`parameter_change` of each method that trains, the mean of one run on each start model: the first seed's."""
    found = {}
    for name, runs in methods.items():
        first = {run.model: run.folder for run in reversed(runs) if run.training}
        if first:
            found[name] = pd.DataFrame(map(parameter_change, first.values())).mean().to_dict()
    return found


def write_changes(changes: dict[str, dict[str, float]], folder: Path, dataset: str) -> Path:
    """Write `mean_changes` of a set into the folder of a profile's runs."""
    path = folder / f"weights-{short_name(dataset)}.json"
    write_atomically(path, json.dumps(changes, indent=1))
    return path


def archived_changes(dataset: str) -> dict[str, dict[str, float]]:
    """`mean_changes` of archived runs on a set; none if there are none."""
    path = LOGS / f"weights-{short_name(dataset)}.json"
    return json.loads(path.read_text()) if path.is_file() else {}
