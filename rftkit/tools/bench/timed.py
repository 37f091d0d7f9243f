"""The two trainers `rftkit bench` compares, each with a clock."""

from __future__ import annotations

import io
import sys
import time
from contextlib import redirect_stdout

import psutil
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from rftkit.shared_prefix.sharing import SharedPrefixTrainer

PHASES = ["step", "sampling", "scoring", "update"]


class Timed:
    """Mixin of a GRPO trainer that splits the seconds of a step into sampling, scoring and update.

    Scoring is what comes between: fetching data, preprocessing, rewards and advantages. It also counts the patches the
    vision tower and the tokens the language model is run on.
    """

    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
        self.rows = arguments["train_dataset"]
        self.add_callback(Finish(self))
        self.start()
        inner = self.model.get_base_model().model
        inner.visual.register_forward_pre_hook(self._count_patches, with_kwargs=True)
        inner.language_model.register_forward_pre_hook(self._count_tokens, with_kwargs=True)

    def _count_patches(self, module, args, kwargs) -> None:
        self.counts["vision_rows"] += len(args[0] if args else kwargs["hidden_states"])

    def _count_tokens(self, module, args, kwargs) -> None:
        rows, width = kwargs["inputs_embeds"].shape[:2]
        self.counts["lm_tokens"] += rows * width

    def one_step(self, step: int, size: int, seed: int) -> dict[str, float]:
        """One optimizer step on the `size` prompts of that step; its seconds by phase and its counts."""
        self.start()
        self.train_dataset = self.rows.select(range(step * size, (step + 1) * size))
        torch.manual_seed(seed + step)
        with redirect_stdout(io.StringIO()):  # the trainers' own log
            self.train()
        return self.seconds | self.counts

    def start(self) -> None:
        self.seconds, self.counts = dict.fromkeys(PHASES, 0.0), {"vision_rows": 0, "lm_tokens": 0}

    def get_batch_samples(self, *args, **kwargs):
        self.began = _now()
        found = super().get_batch_samples(*args, **kwargs)
        self.seconds["scoring"] += _now() - self.began
        return found

    def _generate(self, *args, **kwargs):
        began = _now()
        found = super()._generate(*args, **kwargs)
        self.seconds["sampling"] += _now() - began
        return found

    def _generate_and_score_completions(self, *args, **kwargs):
        began, sampled = _now(), self.seconds["sampling"]
        found = super()._generate_and_score_completions(*args, **kwargs)
        self.seconds["scoring"] += _now() - began - (self.seconds["sampling"] - sampled)
        return found

    def finish(self) -> None:
        self.seconds["step"] = _now() - self.began
        self.seconds["update"] = self.seconds["step"] - self.seconds["sampling"] - self.seconds["scoring"]


class StockTrainer(Timed, GRPOTrainer):
    """TRL as it is."""


class OurTrainer(Timed, SharedPrefixTrainer):
    """TRL with the prompt and the image computed once per group."""


class Finish(TrainerCallback):
    def __init__(self, trainer: Timed) -> None:
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.finish()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_resident() -> int:
    """The most bytes of memory this process has had so far."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
