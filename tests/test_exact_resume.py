"""A run that was stopped at any step goes on as if it had not been: the same weights, rollouts and logs."""

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from rftkit.models import load
from rftkit.run import training_examples
from rftkit.runs.log import RunLog
from rftkit.settings import load_settings
from rftkit.sft import dpo_trainer, sft_trainer
from rftkit.trainer import grpo_trainer, last_checkpoint, train

STEPS = 7  # of two groups or four pictures each: ten examples are gone through more than once


class StopsAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def part_of_a_run(settings, folder, stops_at=None, **arguments):
    """A run, or its first steps; the trainer is made anew each time, as in another process."""
    torch.manual_seed(torch.initial_seed() + 1)  # another process has been through other random numbers
    model, processor = load(settings.model, quantize=settings.quantize, device="cpu")
    model.requires_grad_(not settings.lora_rank)
    log, examples = RunLog(folder, settings.method), training_examples(settings)[:10]
    maker = (dpo_trainer if settings.rejected else sft_trainer) if settings.method.startswith("sft") else grpo_trainer
    trainer = maker(settings, model, processor, examples, log)
    for name, value in arguments.items():
        setattr(trainer, name, value)
    trainer.add_callback(StopsAt(stops_at))
    try:
        train(trainer, folder)
        trainer.model.save_pretrained(folder / "trained")
    except KeyboardInterrupt:
        pass
    return trainer


def left(folder):
    """What a run leaves that does not say how long it took."""
    (weights,) = (folder / "trained").glob("*.safetensors")
    tables = [pd.read_csv(folder / "metrics.csv")]
    if (folder / "completions.parquet").exists():
        tables.append(pd.read_parquet(folder / "completions.parquet"))
    return load_file(weights), [
        table.drop(columns=["step_seconds", "generate_seconds"], errors="ignore") for table in tables
    ]


def settings_of(method, **changes):
    options = {"steps": STEPS, "save_every": 1, "prompts_per_step": 2, "num_generations": 4, "sft_batch": 4}
    return load_settings("smoke", method, **options | changes)


@pytest.mark.parametrize(
    ("method", "changes", "stops"),
    [
        ("no_thinking_rl", {}, (6,)),
        ("cls_rl", {"beta": 0.04, "micro_batch": 4, "learning_rate": 1e-3}, (2, 5)),
        ("think_after_answer", {"reward": "random"}, (6,)),
        ("no_thinking_rl", {"lora_rank": 0}, (5,)),
        ("sft", {"learning_rate": 1e-2}, (3, 6)),
        ("sft_all", {"lora_rank": 0}, (4,)),
        ("sft", {"rejected": "random"}, (4,)),
    ],
)
def test_a_run_that_goes_on_repeats_the_one_that_was_not_stopped(method, changes, stops, tmp_path, **arguments):
    settings = settings_of(method, **changes)
    part_of_a_run(settings, tmp_path / "whole", **arguments)
    for stop in (*stops, None):
        part_of_a_run(settings, tmp_path / "stopped", stop, **arguments)
    (whole, tables), (stopped, others) = left(tmp_path / "whole"), left(tmp_path / "stopped")
    assert all(torch.equal(whole[name], stopped[name]) for name in whole) and whole.keys() == stopped.keys()
    assert [table.equals(other) for table, other in zip(tables, others, strict=True)] == [True] * len(tables)
    assert len(tables[0]) == STEPS and tables[0]["loss"].abs().sum() > 0


@pytest.mark.parametrize("share", [True, False])
def test_no_checkpoint_falls_between_the_steps_that_learn_from_the_same_completions(share, tmp_path):
    test_a_run_that_goes_on_repeats_the_one_that_was_not_stopped(
        "no_thinking_rl", {"share_prefix": share, "save_every": 1}, (3, 5), tmp_path, num_iterations=2
    )
    part_of_a_run(settings_of("no_thinking_rl", save_every=3), tmp_path / "rarely", 5, num_iterations=2)
    assert last_checkpoint(tmp_path / "rarely" / "checkpoints").endswith("-4")  # due at 3
