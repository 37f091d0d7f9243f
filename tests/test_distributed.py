"""Several processes: two train as one does, one writes, and what cannot be shared out is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformers.models.qwen2_vl import modeling_qwen2_vl

from rftkit.common.distributed import share
from rftkit.common.errors import UserError
from rftkit.common.paths import PROFILES

# Without a GPU the processes find each other over gloo; `accelerate launch --cpu` would start one.
TWO = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
       "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
PROGRAM = {"sft": ["-m", "rftkit.cli"], "no_thinking_rl": [str(Path(__file__).parent / "fixed_rollouts.py")]}


def run(out, method, *launcher):
    command = [sys.executable, *launcher, *PROGRAM[method], "run", "--profile", "smoke", "--method", method]
    command += ["--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, timeout=300,
                              env=environment)  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-2000:]
    (folder,) = (path.parent for path in out.rglob("results.json"))
    said = finished.stdout.splitlines()
    assert len(said) == 2 and said[1] == str(folder)  # said once
    return folder


@pytest.mark.parametrize("method", ["sft", "no_thinking_rl"])
def test_two_processes_train_as_one_with_the_same_rollouts(tmp_path, method):
    one, two = run(tmp_path / "one", method), run(tmp_path / "two", method, *TWO)
    assert one.name == two.name  # the same run
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, two))
    # Gradients are summed in another order. Where one is nearly zero Adam makes more of that: a hundredth of a step at
    # most, in single weights. `lora_B` starts at zero, so it is what was learnt.
    assert max((first[name] - second[name]).abs().max() for name in first) < 1e-5
    names = [name for name in first if "lora_B" in name]
    learnt, again = (torch.cat([side[name].flatten() for name in names]) for side in (first, second))
    assert learnt.abs().max() > 1e-3 and (learnt - again).norm() < 1e-4 * learnt.norm()
    rows = [pd.read_csv(folder / "metrics.csv") for folder in (one, two)]
    same = ["step", "loss", "grad_norm", "tokens"] + ["reward", "completion_length"] * (method != "sft")
    pd.testing.assert_frame_equal(rows[0][same], rows[1][same], rtol=1e-4)
    answers = [pd.read_parquet(folder / "predictions.parquet") for folder in (one, two)]
    pd.testing.assert_frame_equal(*answers)


def test_a_step_is_shared_out_evenly_or_not_at_all(monkeypatch):
    monkeypatch.setattr("rftkit.common.distributed.count", lambda: 2)
    assert share(64, 8, "completions") == (8, 4) and share(8, 64, "completions") == (4, 1)
    for total, micro_batch in ((7, 1), (8, 3)):
        with pytest.raises(UserError, match="2 processes cannot share the"):
            share(total, micro_batch, "examples")


@pytest.mark.parametrize("path", sorted((PROFILES / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_the_configs(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 2 and config.mixed_precision == "bf16"
    layers = (config.fsdp_config or {}).get("fsdp_transformer_layer_cls_to_wrap", "Qwen2VLDecoderLayer")
    assert all(hasattr(modeling_qwen2_vl, name) for name in layers.split(","))
