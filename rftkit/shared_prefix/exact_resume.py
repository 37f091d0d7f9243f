"""Training that goes on from a checkpoint as if it had never stopped. Stock TRL's does so in GRPO's first epoch only.

What transformers restores is enough for adapters, optimizer and every random state. Three things are missing:

- *Weights trained in full.* transformers saves them under the names that a checkpoint on the hub has, and reads them
  under the model's own: nothing is read, with a warning. Here they are read as any model's are.
- *The order of examples.* TRL's `RepeatSampler` draws each epoch's order from one generator, which starts anew in the
  process that goes on: its epoch has the order of the first. Here the orders of past epochs are drawn first.
- *Completions in stock.* Where they serve several optimizer steps (`num_iterations`, `steps_per_generation`), stock TRL
  samples others after a checkpoint between these. Here such a checkpoint waits for the last of the steps.
"""

from __future__ import annotations

import torch
from peft import PeftModel
from transformers import TrainerCallback
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler


class ReadsItsCheckpoints:
    """Makes one of TRL's trainers read what it has saved, also where all weights are trained."""

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        model = self.model if model is None else model
        if isinstance(model, PeftModel) or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        saved = type(model).from_pretrained(resume_from_checkpoint, dtype=model.dtype)
        model.load_state_dict(saved.state_dict())


class ExactResumeTrainer(ReadsItsCheckpoints, GRPOTrainer):
    """trl.GRPOTrainer whose resumed runs repeat the undisturbed one."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_SaveBetweenGenerations(self))

    def _get_train_sampler(self, dataset=None):
        self._order = super()._get_train_sampler(dataset)
        return self._order

    def _init_training_state(self, *args, **kwargs):
        epochs, batches = super()._init_training_state(*args, **kwargs)
        if isinstance(order := getattr(self, "_order", None), RepeatSampler) and order.shuffle:
            for _ in range(epochs):
                torch.randperm(order.num_samples, generator=order.generator)
        return epochs, batches


class _SaveBetweenGenerations(TrainerCallback):
    """Puts off a checkpoint until no completions are left that a later step learns from."""

    def __init__(self, trainer: GRPOTrainer) -> None:
        self.trainer, self.due = trainer, False

    def on_step_end(self, args, state, control, **kwargs):
        serves = args.steps_per_generation * self.trainer.num_iterations  # micro-batches of a generation
        self.due |= control.should_save
        control.should_save = self.due and (self.trainer._step % serves == 0 or state.global_step >= state.max_steps)
        self.due &= not control.should_save
