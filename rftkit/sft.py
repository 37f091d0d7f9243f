"""Supervised fine-tuning, thin over trl.SFTTrainer: loss on the answer, or (the authors' code) on every token.

And direct preference optimisation (arXiv 2305.18290; paper, table 18), thin over trl.DPOTrainer: what SFT learns, each
answer beside a wrong one. A negative gradient without sampling and without a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from datasets import Dataset
from transformers import PreTrainedModel, ProcessorMixin, set_seed
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from rftkit.common import distributed as processes
from rftkit.common.errors import UserError
from rftkit.evaluate import PASS_SAMPLES, generate, pass_batch
from rftkit.models import lora_config
from rftkit.prompts import target_completion
from rftkit.rewards import READ, score
from rftkit.runs.log import RunLog
from rftkit.settings import METHODS, Settings, completion_limit
from rftkit.shared_prefix.exact_resume import ReadsItsCheckpoints
from rftkit.shared_prefix.trl_patches import labelled_positions_only
from rftkit.shared_prefix.vision import unwrapped, with_features
from rftkit.tasks.example import Example
from rftkit.trainer import attach, common_arguments, training_rows


class Collator(DataCollatorForVisionLanguageModeling):
    """TRL's collator without image tokens in the loss, as in the released code."""

    def torch_call(self, examples):
        batch = super().torch_call(examples)
        batch["labels"][batch["input_ids"] == self.processor.image_token_id] = -100
        return batch


class VisionOnce(ReadsItsCheckpoints):
    """Makes one of TRL's trainers run a frozen vision tower once per picture, as the GRPO trainer does."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        with self.accelerator.autocast():
            inputs = with_features(unwrapped(self.accelerator.unwrap_model(model)), inputs)
        with labelled_positions_only():
            return super().compute_loss(model, inputs, *args, **kwargs)


class VisionOnceSFTTrainer(VisionOnce, SFTTrainer):
    """trl.SFTTrainer with each picture seen once."""


def sft_rows(examples: Sequence[Example], mode: str) -> Dataset:
    """TRL's prompt-completion columns with images, as in `training_rows`."""
    targets = [[{"role": "assistant", "content": target_completion(e.answer, mode)}] for e in examples]
    rows = training_rows(examples, mode).remove_columns([*READ])
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
    rows = sft_rows(examples, mode)
    trainer = VisionOnceSFTTrainer(
        model=model,
        args=arguments,
        data_collator=Collator(processor, completion_only_loss=answer_only),
        train_dataset=rows.select(shuffled_passes(len(rows), settings.steps * settings.sft_batch, settings.seed)),
        processing_class=processor,
        peft_config=lora_config(settings.lora_rank) if settings.lora_rank else None,
    )
    return attach(trainer, log, examples)


class VisionOnceDPOTrainer(VisionOnce, DPOTrainer):
    """trl.DPOTrainer that runs a frozen vision tower once per picture."""


def rejected_answers(
    settings: Settings, model: PreTrainedModel, processor: ProcessorMixin, examples: Sequence[Example]
) -> list[str]:
    """A wrong completion for each example, by the run's scoring rule, by `settings.rejected`.

    `random`: another of its choices; where it has none, another example's answer. `model`: the first wrong one of eight
    that the untrained model draws, whatever is wrong about it; where all are right, a random one.
    """
    mode, rng = METHODS[settings.method].mode, Random(settings.seed)

    def is_wrong(text: str, example: Example) -> bool:
        return not score(text, example, mode, settings.scoring).accuracy

    answers, rejected = sorted({e.answer for e in examples}), []
    for example in examples:
        wrong = [choice for choice in example.choices or answers if is_wrong(choice, example)]
        if not wrong:
            raise UserError(f"'{example.id}' has no wrong answer to set beside the right one")
        rejected.append(rng.choice(wrong))
    if settings.rejected == "model":
        set_seed(settings.seed)  # the same completions when a killed run goes on
        drawn = generate(
            model,
            processor,
            examples,
            mode,
            max_tokens=completion_limit(settings, mode),
            samples=PASS_SAMPLES,
            temperature=settings.temperature,
            batch_size=pass_batch(settings.eval_batch),
            progress="wrong answers",
        )
        for place, (example, answer) in enumerate(zip(examples, drawn, strict=True)):
            rejected[place] = next((text for text in answer.texts if is_wrong(text, example)), rejected[place])
    return rejected


def dpo_trainer(
    settings: Settings, model: PreTrainedModel, processor: ProcessorMixin, examples: Sequence[Example], log: RunLog
) -> VisionOnceDPOTrainer:
    """A DPO trainer of a run. The reference is the untrained model; beta is TRL's and DPO's usual 0.1."""
    pairs, accumulated = processes.share(settings.sft_batch, settings.micro_batch, "examples")
    arguments = DPOConfig(
        **common_arguments(settings, log.folder),
        per_device_train_batch_size=pairs,
        gradient_accumulation_steps=accumulated,
        max_length=None,
        train_sampling_strategy="sequential",
    )
    rows = sft_rows(examples, METHODS[settings.method].mode).rename_column("completion", "chosen")
    rejected = rejected_answers(settings, model, processor, examples)
    rows = rows.add_column("rejected", [[{"role": "assistant", "content": text}] for text in rejected])
    trainer = VisionOnceDPOTrainer(
        model=model,
        args=arguments,
        train_dataset=rows.select(shuffled_passes(len(rows), settings.steps * settings.sft_batch, settings.seed)),
        processing_class=processor,
        peft_config=lora_config(settings.lora_rank) if settings.lora_rank else None,
    )
    return attach(trainer, log, examples)
