"""Supervised fine-tuning, thin over trl.SFTTrainer: loss on the answer, or (the authors' code) on every token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from datasets import Dataset
from transformers import PreTrainedModel, ProcessorMixin
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from rftkit import processes
from rftkit.callbacks import RunLog
from rftkit.fused_head import labelled_positions_only
from rftkit.models import lora_config
from rftkit.prompts import target_completion
from rftkit.settings import METHODS, Settings
from rftkit.tasks import Example
from rftkit.trainer import attach, common_arguments, training_rows
from rftkit.vision import unwrapped, with_features


class Collator(DataCollatorForVisionLanguageModeling):
    """TRL's collator without image tokens in the loss, as in the released code."""

    def torch_call(self, examples):
        batch = super().torch_call(examples)
        batch["labels"][batch["input_ids"] == self.processor.image_token_id] = -100
        return batch


class VisionOnce:
    """Makes one of TRL's trainers run a frozen vision tower once per picture, as the GRPO trainer does."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        with self.accelerator.autocast():
            inputs = with_features(unwrapped(self.accelerator.unwrap_model(model)), inputs)
        with labelled_positions_only():
            return super().compute_loss(model, inputs, *args, **kwargs)


class VisionOnceSFTTrainer(VisionOnce, SFTTrainer):
    """trl.SFTTrainer with each picture seen once."""


def sft_rows(examples: Sequence[Example], mode: str, max_pixels: int | None) -> Dataset:
    """TRL's prompt-completion columns with images."""
    targets = [[{"role": "assistant", "content": target_completion(e.answer, mode)}] for e in examples]
    rows = training_rows(examples, mode, max_pixels).remove_columns(["answer", "choices"])
    return rows.add_column("completion", targets)


def shuffled_passes(rows: int, count: int, seed: int) -> list[int]:
    """`count` row numbers: shuffled passes over all rows, one after the other.

    Every step then has a full batch, also where the batch does not divide the shots, and a shorter run sees what a
    longer one saw first.
    """
    generator = torch.Generator().manual_seed(seed)
    passes = [torch.randperm(rows, generator=generator) for _ in range(-(-count // rows))]
    return torch.cat(passes)[:count].tolist()


def sft_trainer(
    settings: Settings, model: PreTrainedModel, processor: ProcessorMixin, examples: Sequence[Example], log: RunLog
) -> VisionOnceSFTTrainer:
    """An SFT trainer of a run. `sft` puts the loss on the answer, `sft_all` on the question and its choices too."""
    mode, answer_only = METHODS[settings.method].mode, settings.method == "sft"
    micro_batch, accumulated = processes.share(settings.sft_batch, settings.micro_batch, "examples")
    arguments = SFTConfig(
        **common_arguments(settings, log.folder),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulated,
        completion_only_loss=answer_only,
        max_length=None,
        train_sampling_strategy="sequential",
    )
    rows = sft_rows(examples, mode, settings.max_pixels)
    trainer = VisionOnceSFTTrainer(
        model=model,
        args=arguments,
        data_collator=Collator(processor, completion_only_loss=answer_only),
        train_dataset=rows.select(shuffled_passes(len(rows), settings.steps * settings.sft_batch, settings.seed)),
        processing_class=processor,
        peft_config=lora_config(settings.lora_rank) if settings.lora_rank else None,
    )
    return attach(trainer, log)
