"""SOPHIA's off-policy update (paper, section 3.3): the likelihood of selected trajectories given picture and question.

The paper sets the importance ratio pi/mu to 1. Its gradient is then that of supervised fine-tuning on these rows, so
the trainer is the kit's SFT trainer. Beside it: each trajectory weighted by min(pi/mu, cap), where mu is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import PreTrainedModel, ProcessorMixin
from trl import SFTConfig

from rftkit.common import distributed as processes
from rftkit.common.errors import UserError
from rftkit.models import lora_config
from rftkit.prompts import conversation
from rftkit.runs.log import RunLog
from rftkit.settings import Settings
from rftkit.sft import Collator, VisionOnceSFTTrainer, shuffled_passes
from rftkit.shared_prefix.vision import unwrapped, with_features
from rftkit.sophia.speak import about
from rftkit.tasks.example import Example
from rftkit.trainer import attach, common_arguments


@dataclass(frozen=True)
class Row:
    """What is learnt: a completion behind an example's pictures and what is asked about them.

    `log_mu` is the log-probability that the reasoner gave the completion, in nats.
    """

    example: Example
    asked: list[dict[str, Any]]
    completion: str
    log_mu: float = 0.0


def trajectory(example: Example, text: str, caption: str | None = None, log_mu: float = 0.0) -> Row:
    """A selected reasoning behind picture and question; with a caption, the thought begins with it (an ablation)."""
    if caption is not None:
        text = text.replace("<think>", f"<think> {caption},", 1)
    return Row(example, conversation(example, "thinking"), text, log_mu)


def caption_row(example: Example, prompt: str, caption: str) -> Row:
    """A caption behind its picture and the caption prompt: mixed in, it keeps a model seeing."""
    return Row(example, about(example, prompt), caption)


def in_order(rows: int, captions: int, share: float, steps: int, batch: int, seed: int) -> list[int]:
    """Row numbers of all steps: shuffled passes over the trajectories, and in each batch a share (0-1) of captions,
    which are numbered behind the trajectories."""
    mixed = round(share * batch) if captions else 0
    own, seen = shuffled_passes(rows, steps * (batch - mixed), seed), []
    if mixed:
        seen = [rows + number for number in shuffled_passes(captions, steps * mixed, seed + 1)]
    taken: list[int] = []
    for step in range(steps):
        taken += own[step * (batch - mixed) : (step + 1) * (batch - mixed)] + seen[step * mixed : (step + 1) * mixed]
    return taken


class WeightedTrainer(VisionOnceSFTTrainer):
    """Weights each row's gradient by min(pi/mu, cap): pi is the model's own probability of the whole completion."""

    cap = 1.0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        log_mu, labels = inputs.pop("log_mu"), inputs.pop("labels")
        with self.accelerator.autocast():
            inputs = with_features(unwrapped(self.accelerator.unwrap_model(model)), inputs)
            outputs = model(**inputs)
        loss = weighted_loss(outputs.logits, labels, log_mu.to(labels.device), self.cap, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def weighted_loss(logits, labels, log_mu, cap: float, tokens: int | None = None) -> torch.Tensor:
    """Minus the weighted mean log-probability a token.

    Args:
        logits: [B, T, V].
        labels: [B, T], -100 where nothing is learnt.
        log_mu: [B], of each completion.
        cap: of the weights, which no gradient goes through.
        tokens: labels in the whole batch; those of these rows if None.
    """
    labels = labels[:, 1:]
    log_probs = -F.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels, reduction="none", ignore_index=-100)
    own = log_probs.sum(1)  # [B]
    weights = (own.detach() - log_mu).clamp(max=0.0 if cap == 1 else float(torch.tensor(cap).log())).exp()
    return -(weights * own).sum() / ((labels != -100).sum() if tokens is None else tokens)


def update_trainer(
    run: Settings,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rows: Sequence[Row],
    order: Sequence[int],
    log: RunLog,
    cap: float | None = None,
) -> VisionOnceSFTTrainer:
    """A trainer of the update; `trainer.train` trains with it, and goes on from its last checkpoint.

    Args:
        run: steps, rate, batch (`sft_batch`), LoRA rank, seed and device.
        order: row numbers, `run.sft_batch` for each step (`in_order`).
        cap: of the importance ratio; None: the ratio is 1.
    """
    if not rows:
        raise UserError("nothing was selected, so there is nothing to learn: lower alpha, or ask for more pictures")
    numbers = count()
    table = Dataset.from_dict(
        {
            "prompt": [row.asked for row in rows],
            "images": [[next(numbers) for _ in row.example.images] for row in rows],
            "completion": [[{"role": "assistant", "content": row.completion}] for row in rows],
        }
    )
    micro_batch, accumulated = processes.share(run.sft_batch, run.micro_batch, "examples")
    arguments = SFTConfig(
        **common_arguments(run, log.folder),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulated,
        completion_only_loss=True,
        max_length=None,
        train_sampling_strategy="sequential",
    )
    trainer = (VisionOnceSFTTrainer if cap is None else WeightedTrainer)(
        model=model,
        args=arguments,
        data_collator=Collator(processor, completion_only_loss=True),
        train_dataset=table.select(order),
        processing_class=processor,
        peft_config=lora_config(run.lora_rank) if run.lora_rank else None,
    )
    attach(trainer, log, [row.example for row in rows])
    if cap is not None:
        first = {images[0]: row.log_mu for images, row in zip(table["images"], rows, strict=True)}
        trainer.cap, trainer.data_collator = cap, _with_log_mu(trainer.data_collator, first)
    return trainer


def _with_log_mu(collate: Callable, log_mu: dict[int, float]) -> Callable:
    """A collator that also tells the `log_mu` of each row, found by the number of its first picture."""

    def together(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        found = torch.tensor([log_mu[row["images"][0]] for row in rows])
        batch = collate(rows)
        batch["log_mu"] = found
        return batch

    return together
