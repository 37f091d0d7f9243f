"""GTR (arXiv 2503.08525): PPO on the action, and beside it cloning of the thoughts that a corrector mended.

L = L_PPO (the last rollout) + weight * L_SFT (all steps so far, as DAgger has it). With corrector `none` it is RL4VLM
(arXiv 2405.10292), without `ppo` it is SFT on corrected thoughts.

Where this departs from the released code:
- The prompt that is scored is the one that was sampled from; there it is the first prompt of all.
- Rollouts come from many environments at once; the number of steps is the same.
- The value head is in proportion to the model (`policy.Policy`); the vision tower is not trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import nn

from rftkit.gtr.policy import Policy
from rftkit.gtr.rollout import Rollout, Step, Target, like_lengths, step_log_probs
from rftkit.gtr.settings import GTRSettings

MOST_RATIO = 10.0  # where a ratio of a batch is above, only the clipped term counts (released code)
LAST_RATE = 1e-9
VALUE_WEIGHT = 0.5  # of the value loss
NOTES = ("ratio_off", "clipped", "loss", "clone_loss", "grad_norm")  # of each optimizer step, logged as means


def policy_loss(ratio: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """PPO's clipped loss of each step [N] (arXiv 1707.06347, equation 7)."""
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantage
    return -(clipped if (ratio > MOST_RATIO).any() else torch.minimum(ratio * advantage, clipped))


def value_loss(value: torch.Tensor, old: torch.Tensor, target: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Half the squared error of each value [N]; with a clip the larger of it and that of the value kept near `old`."""
    error = (value - target).square()
    if clip is not None:
        error = torch.maximum(error, (old + (value - old).clamp(-clip, clip) - target).square())
    return 0.5 * error


class Trainer:
    """The optimizer and the pool of what is to be cloned; one `update` per rollout.

    Args:
        pool: an entry for each step so far, None where there is nothing to clone.
    """

    def __init__(self, policy: Policy, settings: GTRSettings) -> None:
        self.policy, self.settings = policy, settings
        self.pool: list[Target | None] = []
        self.weights = [p for p in policy.model.parameters() if p.requires_grad]
        groups = [
            {"params": self.weights, "lr": settings.learning_rate},
            {"params": list(policy.value.parameters()), "lr": settings.value_rate or settings.learning_rate},
        ]
        self.optimizer = torch.optim.Adam(groups, eps=1e-7)
        turn = settings.schedule
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, turn, LAST_RATE) if turn else None

    def update(self, rollout: Rollout, targets: Sequence[Target | None], rng: Generator) -> dict[str, float]:
        """Learn from a rollout, and from the targets of its steps beside those before; the update's measures."""
        settings, steps = self.settings, rollout.steps
        self.pool = [*(self.pool if settings.dagger else []), *targets]
        notes: dict[str, list[float]] = {name: [] for name in NOTES}
        for _ in range(settings.epochs):
            order = rng.permutation(len(steps))
            for start in range(0, len(steps), settings.minibatch):
                part = [steps[row] for row in order[start : start + settings.minibatch]]
                self._step(part, rng, notes)
        if self.schedule:
            self.schedule.step()
        return {name: float(np.mean(values)) for name, values in notes.items() if values} | {
            "ratio_first": notes["ratio_off"][0] if notes["ratio_off"] else 0.0,
            "pool": len(self.pool),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    def _step(self, steps: list[Step], rng: Generator, notes: dict[str, list[float]]) -> None:
        """One optimizer step on a mini-batch of steps, each paired with an entry of the pool."""
        settings, kept = self.settings, None
        drawn = (self.pool[row] for row in rng.integers(len(self.pool), size=len(steps)))
        paired = [target for target in drawn if target is not None]
        if paired:
            self._clone(paired, notes)
            if settings.clone_norm is not None:  # its gradient clipped by itself, and added below
                nn.utils.clip_grad_norm_(self.weights, settings.clone_norm)
                kept = [None if p.grad is None else p.grad.clone() for p in self.weights]
                self.optimizer.zero_grad(set_to_none=True)
        if settings.ppo:
            self._reinforce(steps, notes)
        norm = nn.utils.clip_grad_norm_(self.weights, settings.grad_norm)
        for weight, gradient in zip(self.weights, kept or (), strict=False):
            if gradient is not None:
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        notes["grad_norm"].append(float(norm))

    def _reinforce(self, steps: list[Step], notes: dict[str, list[float]]) -> None:
        settings, device, total = self.settings, self.policy.model.device, 0.0
        off, clipped = [], []
        for part in like_lengths(steps, settings.micro_batch):
            old, advantage, old_value, target = torch.tensor(
                [[s.log_prob, s.advantage, s.value, s.target_return] for s in part], device=device
            ).T
            log_probs, value = self.policy.score([s.state for s in part], [s.reply for s in part], settings.temperature)
            new = step_log_probs(log_probs, [s.thought for s in part], settings.thought_weight)
            ratio = (new - old).exp()
            losses = policy_loss(ratio, advantage, settings.clip)
            losses = losses + VALUE_WEIGHT * value_loss(value, old_value, target, settings.value_clip)
            loss = losses.sum() / len(steps)
            loss.backward()
            total += loss.item()
            off += (ratio - 1).abs().tolist()
            clipped += ((ratio - 1).abs() > settings.clip).tolist()
        notes["loss"].append(total)
        notes["ratio_off"].append(float(np.mean(off)))
        notes["clipped"].append(float(np.mean(clipped)))

    def _clone(self, targets: list[Target], notes: dict[str, list[float]]) -> None:
        """Cross-entropy of the targets' counted tokens, their mean, times its weight."""
        tokens, total = sum(target.count for target in targets), 0.0
        for part in like_lengths(targets, self.settings.micro_batch):
            log_probs, _ = self.policy.score([t.state for t in part], [t.reply[: t.count] for t in part])
            loss = -log_probs.sum() / tokens
            (self.settings.clone_weight * loss).backward()
            total += loss.item()
        notes["clone_loss"].append(total)
