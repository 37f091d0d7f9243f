"""Out of memory: one line that says what is kept and what would need less; the same command goes on."""

import pandas as pd
import pytest
import torch
from trl import GRPOTrainer

from rftkit.cli import main
from rftkit.run import execute
from rftkit.settings import load_settings

ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: not enough memory: you tried to "
                        "allocate 8589934592 bytes."),
    "python": MemoryError(),
}  # fmt: skip


def fails(after, error):
    """A training step that works so often and then has no memory."""
    calls, step = [], GRPOTrainer.training_step

    def training_step(*arguments, **options):
        calls.append(1)
        if len(calls) > after:
            raise error
        return step(*arguments, **options)

    return training_step


def command(out):
    return ["run", "--profile", "smoke", "--method", "no_thinking_rl", "--steps", "6", "--out", str(out)]


@pytest.mark.parametrize("kind", ERRORS)
def test_a_run_out_of_memory_says_what_would_need_less_and_goes_on(tmp_path, capsys, monkeypatch, kind):
    with monkeypatch.context() as patch:
        patch.setattr(GRPOTrainer, "training_step", fails(5, ERRORS[kind]))
        assert main(command(tmp_path)) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("rftkit: "))
    assert "the checkpoint of step 4 is kept, and the same command goes on from it" in line
    assert all(flag in line for flag in ("--micro-batch 4", "--gradient-checkpointing", "--quantize"))
    if kind == "gpu":  # to the numbers of a run that was never interrupted
        assert main(command(tmp_path)) == 0
        whole = execute(load_settings("smoke", "no_thinking_rl", steps=6), tmp_path / "whole")
        tables = [pd.read_csv(folder / "metrics.csv").drop(columns=["step_seconds", "generate_seconds"])
                  for folder in (whole, tmp_path / "smoke" / whole.name)]  # fmt: skip
        pd.testing.assert_frame_equal(*tables)


def test_out_of_memory_in_evaluation_names_its_batch(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise ERRORS["gpu"]

    monkeypatch.setattr("rftkit.run.answer_rows", fail)
    assert main(["run", "--profile", "smoke", "--method", "zero_shot", "--out", str(tmp_path)]) == 2
    assert "give --eval-batch 125 (or set it in a profile" in capsys.readouterr().err
