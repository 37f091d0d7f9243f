"""The QLoRA GRPO trainer for one GPU (or CPU), thin over trl.GRPOTrainer.

The advantage and the loss are TRL's (`GRPOTrainer._generate_and_score_completions` and `_compute_loss`). `lesson.py`
writes both out, small enough to read.

Where training departs from the paper (arXiv 2503.16188, section 3; the whole table stands in notebooks/DEPARTURES.md):
- LoRA in fp32 on the language model, over an NF4 or bf16 base. The paper trains all weights.
- A constant learning rate: a run of n steps is then the beginning of a longer one.
- No reference model unless `beta` is above 0.
- The reward compares the parsed answer with the label (`rewards.py`). The released code runs math-verify on all text.
- Prompt and picture are computed once a group (`shared_prefix/`); the numbers are those of stock TRL.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PrinterCallback, ProcessorMixin, Trainer
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig

from rftkit.common import distributed as processes
from rftkit.common.errors import Diverged, UserError
from rftkit.models import lora_config
from rftkit.prompts import conversation
from rftkit.rewards import READ, reward_functions
from rftkit.runs.log import RunLog
from rftkit.settings import METHODS, Settings, completion_limit
from rftkit.shared_prefix.generation import no_picture_drawn
from rftkit.shared_prefix.sharing import SharedPrefixTrainer
from rftkit.tasks.example import Example
from rftkit.tasks.late import open_late

CHECKPOINTS = "checkpoints"


class RFTTrainer(SharedPrefixTrainer):
    """Shared-prefix GRPO that knows how long sampling took.

    With `negatives` off it is self-training instead: completions with full reward have advantage 1, all others 0, so
    the right ones of the model's own are imitated and nothing is pushed down (RAFT, arXiv 2504.11343).
    """

    negatives = True

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._generate_seconds = 0.0

    def _generate(self, *args, **kwargs):
        began = time.perf_counter()
        with no_picture_drawn(self.model):
            generated = super()._generate(*args, **kwargs)
        self._generate_seconds += time.perf_counter() - began
        return generated

    def _calculate_rewards(self, *args, **kwargs):
        self._rewards = super()._calculate_rewards(*args, **kwargs)  # [completions of all processes, rewards]
        return self._rewards

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        if not self.negatives:
            right = (self._rewards.mean(1) == 1).float()
            first = self.accelerator.process_index * len(inputs)
            batch["advantages"] = right[first : first + len(inputs)]
            self._logs["advantages"].extend(right.tolist())  # in place of the group's: it holds one batch
        return batch

    def take_generate_seconds(self) -> float:
        """Seconds spent on sampling since the last call."""
        seconds, self._generate_seconds = self._generate_seconds, 0.0
        return seconds


def training_rows(examples: Sequence[Example], mode: str) -> Dataset:
    """TRL's columns: prompt (conversation), images, and what the rewards read (`rewards.READ`).

    Images are numbers here, counted through all examples; `open_late` opens them.
    """
    numbers = count()
    rows = {
        "prompt": [conversation(example, mode) for example in examples],
        "images": [[next(numbers) for _ in example.images] for example in examples],
        **{name: [getattr(example, name) for example in examples] for name in READ},
    }
    return Dataset.from_dict(rows)


def common_arguments(settings: Settings, folder: Path) -> dict:
    """What SFT and GRPO share of the arguments of transformers' Trainer."""
    if settings.report_to and find_spec(settings.report_to) is None:
        raise UserError(f"report_to {settings.report_to}: the package is not there: pip install {settings.report_to}")
    on_cpu = settings.device == "cpu" or not torch.cuda.is_available()
    return {
        "output_dir": str(folder / CHECKPOINTS),
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "seed": settings.seed,
        "logging_steps": 1,
        "save_steps": settings.save_every,
        "save_total_limit": 2,
        "report_to": [settings.report_to] if settings.report_to else [],
        "disable_tqdm": True,
        "use_cpu": on_cpu,
        "bf16": not on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "gradient_checkpointing": settings.gradient_checkpointing,
    }


def grpo_trainer(
    settings: Settings, model: PreTrainedModel, processor: ProcessorMixin, examples: Sequence[Example], log: RunLog
) -> RFTTrainer:
    """A GRPO trainer of a run: paper's advantage (group mean and standard deviation), on-policy, mode's rewards."""
    mode = METHODS[settings.method].mode
    prompts, size = settings.prompts_per_step, settings.num_generations
    processes.share(prompts, 1, "questions")  # a group stays in one process
    micro_batch, accumulated = processes.share(prompts * size, settings.micro_batch, "completions")
    arguments = GRPOConfig(
        **common_arguments(settings, log.folder),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulated,
        num_generations=settings.num_generations,
        max_completion_length=completion_limit(settings, mode),
        temperature=settings.temperature,
        beta=settings.beta,
        loss_type=settings.loss_type,
    )
    if len(examples) < settings.prompts_per_step:
        raise UserError(
            f"{len(examples)} training examples are fewer than prompts_per_step {settings.prompts_per_step}"
        )
    trainer = RFTTrainer(
        model=model,
        reward_funcs=reward_functions(mode, settings.scoring, settings.reward, settings.seed),
        args=arguments,
        train_dataset=training_rows(examples, mode),
        processing_class=processor,
        peft_config=lora_config(settings.lora_rank) if settings.lora_rank else None,
        share_prefix=settings.share_prefix,
    )
    trainer.negatives = settings.negatives
    return attach(trainer, log, examples)


def attach(trainer: Trainer, log: RunLog, examples: Sequence[Example]) -> Trainer:
    """Our step log in place of transformers' printing, what is trained in fp32, and pictures opened late.

    TRL casts the adapters of a quantised model to bf16, where a step of 1e-6 changes almost no weight.
    """
    for parameter in trainer.model.parameters():
        if parameter.requires_grad and parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
    trainer.remove_callback(PrinterCallback)
    log.trainer = trainer
    trainer.add_callback(log)
    trainer.data_collator = open_late(trainer.data_collator, examples)
    return trainer


def train(trainer: Trainer, folder: Path) -> PreTrainedModel | PeftModel:
    """Train, from the last whole checkpoint if there is one, and return the trained model."""
    checkpoint = processes.from_main(last_checkpoint, folder / CHECKPOINTS)
    if checkpoint and int(checkpoint.rpartition("-")[2]) >= trainer.args.max_steps:
        trainer._load_from_checkpoint(checkpoint)  # all steps are done; train() would do one more
        return trainer.model
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except RuntimeError as error:
        gpu_gone = "device-side assert" in str(error)  # so a GPU says it, and does nothing more for this process
        if not gpu_gone and "probability tensor" not in str(error):
            raise
        raise (UserError if gpu_gone else Diverged)(
            f"training stopped: the model's probabilities are {'probably ' if gpu_gone else ''}no numbers after step "
            f"{trainer.state.global_step}; lower the learning rate ({trainer.args.learning_rate:g}) or train in fp32"
        ) from None
    return trainer.model


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; truncated ones are removed.

    transformers writes `trainer_state.json` last, so a checkpoint that was being written when the run was killed has
    none, or a truncated one.
    """
    while folder.is_dir() and (path := get_last_checkpoint(str(folder))):
        try:
            json.loads((Path(path) / "trainer_state.json").read_text())
            return path
        except (OSError, ValueError):
            shutil.rmtree(path)
    return None
