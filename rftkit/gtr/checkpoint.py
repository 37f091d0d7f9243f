"""Checkpoints of a GTR run: all that changes while it goes on, so that a killed run ends with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rftkit.common.errors import UserError
from rftkit.gtr.rollout import Target
from rftkit.gtr.rules import State, game_named

FIELDS = ("cards", "faces", "formula", "dealer", "turn", "look")  # of a state, beside its game


def save(training: Any, path: Path) -> None:
    """Write a checkpoint of a `run.Training` after an update, atomically. It holds plain values and tensors only."""
    trainer, policy = training.trainer, training.policy
    content = {
        "done": training.done,
        "weights": {n: w for n, w in policy.named_parameters() if w.requires_grad},
        "optimizer": trainer.optimizer.state_dict(),
        "schedule": trainer.schedule and trainer.schedule.state_dict(),
        "pool": [t and [_plain(t.state), t.reply, t.count] for t in trainer.pool],
        "corrector": training.corrector and training.corrector.state(),
        "states": [_plain(state) for state in training.table.states],
        "totals": training.totals,
        "random": [training.table.np_random.bit_generator.state, training.rng.bit_generator.state],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "tables": [training.rows, training.fixed, training.states, training.replies],
    }
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    temporary.replace(path)


def restore(training: Any, path: Path) -> None:
    """Put a checkpoint back into a `run.Training` that was made anew."""
    try:
        saved = torch.load(path, weights_only=True, map_location=training.policy.model.device)
    except Exception as error:  # of truncated files torch raises all kinds
        raise UserError(f"'{path}' is truncated: delete it to start from the beginning") from error
    trainer = training.trainer
    with torch.no_grad():
        for name, weight in training.policy.named_parameters():
            if weight.requires_grad:
                weight.copy_(saved["weights"][name])
    trainer.optimizer.load_state_dict(saved["optimizer"])
    if trainer.schedule:
        trainer.schedule.load_state_dict(saved["schedule"])
    trainer.pool = [e and Target(_state(e[0]), e[1], e[2]) for e in saved["pool"]]
    if training.corrector:
        training.corrector.restore(saved["corrector"])
    training.table.states = [_state(plain) for plain in saved["states"]]
    training.totals, training.done = saved["totals"], saved["done"]
    training.table.np_random.bit_generator.state, training.rng.bit_generator.state = saved["random"]
    training.rows, training.fixed, training.states, training.replies = saved["tables"]
    torch.set_rng_state(saved["torch"].cpu())
    if saved["cuda"]:
        torch.cuda.set_rng_state_all([state.cpu() for state in saved["cuda"]])


def _plain(state: State) -> list:
    return [state.game.name, *(getattr(state, name) for name in FIELDS)]


def _state(plain: list) -> State:
    name, *values = plain
    values = [tuple(value) if isinstance(value, list) else value for value in values]
    return State(game_named(name), **dict(zip(FIELDS, values, strict=True)))
