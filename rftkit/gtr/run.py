"""One GTR run, from a start model to `gtr.json`: rollouts, updates, checkpoints, and whole episodes on fixed deals."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from peft import get_peft_model
from tqdm.auto import tqdm

from rftkit.common.chat_server import ChatServer
from rftkit.common.errors import Diverged
from rftkit.common.statistics import proportion
from rftkit.gtr.checkpoint import restore, save
from rftkit.gtr.correctors import Asked, Corrector, Exact, Past, along_plans, local_model, server, targets_of
from rftkit.gtr.measures import fixed_states, measures, on_fixed_states, told
from rftkit.gtr.play import parts_of, play_out
from rftkit.gtr.policy import Policy
from rftkit.gtr.rollout import roll_out
from rftkit.gtr.settings import GTRSettings, load_settings
from rftkit.gtr.trainer import Trainer
from rftkit.gtr.worlds import CardTable
from rftkit.models import load, lora_config
from rftkit.runs.beside import make_once, outcome
from rftkit.runs.fingerprint import git_revision, versions
from rftkit.runs.folder import CONFIG, METRICS, result_file, write_atomically, write_table

CHECKPOINT, FIXED = "checkpoint.pt", "fixed.csv"
EPISODES, REPLIES, STATES = "episodes.parquet", "replies.parquet", "states.parquet"
REPLIES_LOGGED = 16  # of each update
PAST_TEMPERATURE = 0.2


def run_gtr(out: Path, **given: Any) -> str:
    """Do a run, or finish a killed one, or find it complete; its success in words, and its folder."""
    settings = load_settings(**given)
    return outcome(settings, execute(settings, out), "success")


def execute(settings: GTRSettings, out: Path, on_row: Callable[[list[dict]], None] | None = None) -> Path:
    """As `run_gtr`; the folder alone.

    Args:
        on_row: called after each update with the measures on fixed states so far, for live plots.
    """
    return make_once(settings, out, lambda settings, folder: Training(settings, folder).run(on_row))


def run_arms(
    profile: str,
    environments: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    on_row: Callable[[list[dict]], None] | None = None,
) -> list[Path]:
    """Runs of arms of `data/gtr.yaml`, made or found; their folders."""
    every = [
        load_settings(profile, dataset=name, arm=arm, seed=seed)
        for name in environments for arm in arms for seed in seeds
    ]  # fmt: skip
    folders = []
    for number, settings in enumerate(every, 1):
        print(f"run {number} of {len(every)}: {settings.dataset}, {settings.arm}, seed {settings.seed}", flush=True)
        folders.append(execute(settings, out, on_row))
    return folders


class Training:
    """Everything that changes while a run goes on; all of it is in a checkpoint."""

    def __init__(self, settings: GTRSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.policy = start_policy(settings)
        self.trainer = Trainer(self.policy, settings)
        self.corrector = corrector_of(settings, self.policy)
        self.table = CardTable(settings.dataset, settings.envs, "train", early_stop=settings.early_stop)
        self.table.reset(seed=settings.seed)
        self.rng = np.random.default_rng([settings.seed, 1])
        self.totals = [0.0] * settings.envs  # rewards of the episodes that are going on
        self.done = 0  # updates
        self.rows: list[dict] = []  # of each update
        self.fixed: list[dict] = []  # of the fixed states, before the first update too
        self.states: list[dict] = []  # what was said of each of them then
        self.replies: list[dict] = []
        self.began = time.perf_counter()
        torch.manual_seed(settings.seed)

    def run(self, on_row: Callable[[list[dict]], None] | None = None) -> None:
        path = self.folder / CHECKPOINT
        if path.is_file():
            restore(self, path)
        if not self.fixed:
            self._look()
        for number in tqdm(range(self.done, self.settings.updates), initial=self.done, total=self.settings.updates,
                           desc=f"GTR {self.settings.dataset}"):  # fmt: skip
            self.rows.append(self._update(number + 1))
            self.done = number + 1
            self._look()
            self._write_tables()
            save(self, path)
            if on_row:
                on_row(self.fixed)
        self._finish()
        path.unlink(missing_ok=True)

    def _look(self) -> None:
        """Measure thoughts on the fixed states."""
        found, said = on_fixed_states(self.policy, fixed_states(self.settings), self.settings)
        self.fixed.append({"update": self.done} | found)
        self.states += [{"update": self.done} | row for row in said]

    def _update(self, number: int) -> dict[str, Any]:
        """A rollout and what is learnt from it, as a row of `metrics.csv`."""
        began = time.perf_counter()
        rollout = roll_out(self.policy, self.table, self.totals, self.settings, self.rng)
        sampled = time.perf_counter()
        targets = [None] * len(rollout.steps)
        if self.corrector:
            clone_action = self.settings.clone_action
            targets = targets_of(rollout.steps, self.corrector, self.policy, clone_action, self.rng)
            if self.settings.whole_plans:
                targets += along_plans(rollout.steps, self.policy, clone_action, self.rng)
        corrected = time.perf_counter()
        notes = self.trainer.update(rollout, targets, self.rng)
        if not math.isfinite(notes.get("loss", 0.0) + notes["grad_norm"]):
            rate = self.settings.learning_rate
            raise Diverged(
                f"training stopped: the loss is no number in update {number}; lower the learning rate ({rate:g})"
            )
        counts = dict(self.corrector.counts) if self.corrector else {}
        if self.corrector:
            self.corrector.observe(self.policy)
        self.replies += [
            {"update": number, "reward": step.reward, "advantage": step.advantage} | told(step)
            for step in rollout.steps[:REPLIES_LOGGED]
        ]
        returns = rollout.returns or [math.nan]
        return {
            "update": number, "steps": number * self.settings.rollout, "episodes": len(rollout.returns),
            "success": float(np.mean([total > 0 for total in returns])) if rollout.returns else math.nan,
            "return": float(np.mean(returns)), "length": len(rollout.steps) / max(1, len(rollout.returns)),
            **measures(self.policy, rollout.steps), **notes,
            **{f"corrector_{name}": count for name, count in counts.items()},
            "tokens_said": rollout.tokens, "sample_seconds": sampled - began,
            "correct_seconds": corrected - sampled, "update_seconds": time.perf_counter() - corrected,
        }  # fmt: skip

    def _write_tables(self) -> None:
        write_atomically(self.folder / METRICS, pd.DataFrame(self.rows).to_csv(index=False))
        write_atomically(self.folder / FIXED, pd.DataFrame(self.fixed).to_csv(index=False))
        write_table(self.folder / REPLIES, self.replies)
        write_table(self.folder / STATES, self.states)

    def _finish(self) -> None:
        """Play the fixed deals, save the model, and write what came out."""
        episodes, found = [], {}
        for part in parts_of(self.settings.dataset):
            rows, found[part] = play_out(self.policy, self.settings, part)
            episodes += rows
        write_table(self.folder / EPISODES, episodes)
        trained = self.policy.model
        trained.save_pretrained(self.folder / ("adapter" if self.settings.lora_rank else "model"))
        if not self.settings.lora_rank:
            self.policy.processor.save_pretrained(self.folder / "model")
        results = results_of(self.settings, episodes) | {"in_play": found}
        results |= {"fixed_before": self.fixed[0], "fixed_after": self.fixed[-1]}
        results["seconds"] = round(time.perf_counter() - self.began, 1)  # of the process that finished the run
        write_atomically(self.folder / result_file(self.settings.method), json.dumps(results, indent=1))


def results_of(settings: GTRSettings, episodes: list[dict]) -> dict[str, Any]:
    """What episodes came to: success by part with its interval, of all deals and of solvable ones, return, length."""
    table, parts = pd.DataFrame(episodes), {}
    for part, rows in table.groupby("split", sort=False):
        solvable = rows[rows["solvable"]]
        parts[part] = proportion(int(rows["success"].sum()), len(rows)) | {
            "solvable": proportion(int(solvable["success"].sum()), len(solvable)),
            "return": float(rows["return"].mean()),
            "length": float(rows["steps"].mean()),
        }
    head = {name: getattr(settings, name) for name in ("profile", "method", "arm", "dataset", "model", "seed")}
    return head | {"eval": parts, "versions": versions(), "git_revision": git_revision()}


def trained_policy(folder: Path) -> Policy:
    """The trained model of a complete run. Its value head is not kept."""
    settings = GTRSettings(**yaml.safe_load((folder / CONFIG).read_text()))
    if settings.lora_rank:
        named = {"quantize": settings.quantize, "adapter": folder / "adapter"}
        return Policy(*load(settings.model, device=settings.device, **named))
    return Policy(*load(str(folder / "model"), device=settings.device))


def start_policy(settings: GTRSettings) -> Policy:
    """The start model with what is trained of it in fp32: LoRA, or all but the vision tower."""
    torch.manual_seed(settings.seed)
    model, processor = load(settings.model, quantize=settings.quantize, device=settings.device)
    if settings.lora_rank:
        model = get_peft_model(model, lora_config(settings.lora_rank))
    else:
        model.requires_grad_(True)
        model.model.visual.requires_grad_(False)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return Policy(model, processor, settings.value_detached)


def corrector_of(settings: GTRSettings, policy: Policy) -> Corrector | None:
    if settings.corrector == "exact":
        return Exact()
    if settings.corrector == "past":
        return Past(policy, PAST_TEMPERATURE, settings.max_tokens)
    if settings.corrector == "local":
        return Asked(local_model(*load(settings.corrector_model, device=settings.device)), policy.side)
    if settings.corrector == "server":
        record = Path(settings.record) if settings.record else None
        client = ChatServer(settings.server, settings.corrector_model, record=record)
        return Asked(server(client), policy.side, client.counts)
    return None
