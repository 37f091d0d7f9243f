"""Direct preference optimisation (arXiv 2305.18290; paper, table 18), thin over trl.DPOTrainer.

What SFT learns, each answer beside a wrong one: a negative gradient without sampling and without a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from transformers import PreTrainedModel, ProcessorMixin, set_seed
from trl import DPOConfig, DPOTrainer

from rftkit import processes
from rftkit.callbacks import RunLog
from rftkit.errors import UserError
from rftkit.evaluate import PASS_SAMPLES, generate, pass_batch
from rftkit.models import lora_config
from rftkit.rewards import score
from rftkit.settings import METHODS, Settings, completion_limit
from rftkit.sft import VisionOnce, sft_rows, shuffled_passes
from rftkit.tasks import Example
from rftkit.trainer import attach, common_arguments


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
            max_pixels=settings.max_pixels,
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
    rows = sft_rows(examples, METHODS[settings.method].mode, settings.max_pixels).rename_column("completion", "chosen")
    rejected = rejected_answers(settings, model, processor, examples)
    rows = rows.add_column("rejected", [[{"role": "assistant", "content": text}] for text in rejected])
    trainer = VisionOnceDPOTrainer(
        model=model,
        args=arguments,
        train_dataset=rows.select(shuffled_passes(len(rows), settings.steps * settings.sft_batch, settings.seed)),
        processing_class=processor,
        peft_config=lora_config(settings.lora_rank) if settings.lora_rank else None,
    )
    return attach(trainer, log)
