"""The estimate: exact where it can be (parameters, 4-bit weights), near what is measured where it cannot."""

import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model
from tiny_models import tiny

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.common.paths import DATA, ROOT
from rftkit.memory.model_sizes import HUB, read_config, shape_of
from rftkit.memory.peak_memory import (
    Lengths,
    estimate,
    kept_by_a_layer,
    lengths_of,
    memory,
    packed_tokens,
    refuse_what_will_not_fit,
)
from rftkit.models import BUNDLED, load, lora_config
from rftkit.run import training_examples
from rftkit.settings import load_settings
from rftkit.tools.time_estimate import as_text, few_of, is_at_hand, measure, report, why_not_measured

# As the hub counts them.
PARAMETERS = {"Qwen/Qwen2-VL-2B-Instruct": 2_208_985_600, "Qwen/Qwen2-VL-7B-Instruct": 8_291_375_616,
              "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976, "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
              "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808}  # fmt: skip
NEAR = 2.0  # the factor within which the estimated peak is of the measured one


def parts_of(profile="nano", method="no_thinking_rl", device="cpu", **changes):
    settings = load_settings(profile, method, **changes)
    shape = shape_of(read_config(settings.model))
    return memory(settings, shape, lengths_of(settings, shape, training_examples(settings)), device)


@pytest.mark.parametrize("name", HUB)
def test_the_shapes_in_the_table_have_the_parameters_of_the_checkpoints(name):
    shape = shape_of(read_config(name))
    assert shape.total == PARAMETERS[name]
    assert shape.projections < shape.total and shape.token_side == (32 if "Qwen3" in name else 28)


@pytest.mark.parametrize("quantize", [False, True])
def test_weights_and_adapters_are_those_of_the_loaded_model(quantize):
    model, _ = load("nano-s", device="cpu", quantize=quantize)
    held = sum(p.nbytes for p in model.parameters())
    for module in model.modules():
        if state := getattr(getattr(module, "weight", None), "quant_state", None):
            held += state.absmax.nbytes + state.state2.absmax.nbytes
    parts = parts_of(quantize=quantize)
    assert parts["weights"] == pytest.approx(held, rel=0.02)
    model = get_peft_model(model, lora_config(16))
    assert parts["adapters"] == sum(4 * p.numel() for p in model.parameters() if p.requires_grad)


def saved_by(language_model, tokens, autocast):
    """Bytes that autograd keeps of a forward pass, weights left out."""
    weights, seen = {part.untyped_storage().data_ptr() for part in language_model.parameters()}, []
    states = torch.zeros(1, tokens, language_model.config.hidden_size, requires_grad=True)
    sees = torch.ones(1, 1, tokens, tokens, dtype=torch.bool).tril()
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda part: seen.append(part) or part, lambda part: part),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        language_model(inputs_embeds=states, attention_mask=sees)
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in seen}
    return sum(size for place, size in storages.items() if place not in weights)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_what_a_layer_keeps_is_what_autograd_saves(nano, family, autocast):
    kept = []
    for layers in (2, 3):
        model, _ = tiny(family, nano[1], num_hidden_layers=layers, intermediate_size=128)
        shape = shape_of(model.config)
        model = get_peft_model(model.to(torch.bfloat16) if autocast else model, lora_config(1)).get_base_model()
        kept.append(saved_by(model.model.language_model, 64, autocast) / 64)
    assert kept_by_a_layer(shape, 2 if autocast else 4) == pytest.approx(kept[1] - kept[0], rel=0.1)


MEASURED = """
import sys, threading, time
from pathlib import Path
import psutil
from rftkit.runs.log import RunLog
from rftkit.models import load, quieten
from rftkit.run import training_examples
from rftkit.settings import load_settings
from rftkit.tools.time_estimate import as_text, few_of, is_at_hand, measure, report, why_not_measured
from rftkit.trainer import grpo_trainer
quieten()
settings = load_settings("nano", "no_thinking_rl", steps=2, micro_batch=512, prompts_per_step=32, num_generations=16)
model, processor = load("nano-s", device="cpu")
trainer = grpo_trainer(settings, model, processor, training_examples(settings), RunLog(Path(sys.argv[1]), "peak"))
process, peak, done = psutil.Process(), 0, False
before = process.memory_info().rss
def watch():
    global peak
    while not done:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
trainer.train()
done = True
thread.join()
print("peak", peak - before)
"""


def test_the_peak_on_a_cpu_is_near_the_measured_one(tmp_path):
    finished = subprocess.run([sys.executable, "-c", MEASURED, tmp_path], capture_output=True, text=True, check=True)
    measured = int(finished.stdout.split("peak")[-1])
    parts = parts_of(steps=2, micro_batch=512, prompts_per_step=32, num_generations=16)
    assert measured / NEAR < parts["total"] - parts["weights"] - parts["adapters"] < measured * NEAR


def test_a_larger_run_needs_more_and_each_fix_less():
    plain = parts_of("gpu-2b", "cls_rl", "cuda", dataset="shapes")
    assert plain["total"] < parts_of("gpu-7b", "cls_rl", "cuda", dataset="shapes")["total"]
    assert plain["weights"] < parts_of("gpu-2b", "cls_rl", "cuda", quantize=False)["weights"]
    assert plain["cache"] > parts_of("gpu-2b", "no_thinking_rl", "cuda")["cache"]  # shorter answers
    found = estimate(*_run("gpu-2b", "cls_rl", device="cuda"))
    assert 2 <= len(found.fixes) <= 3 and found.memory["total"] == plain["total"]


@pytest.mark.parametrize(
    ("method", "changes", "smaller"),
    [
        ("cls_rl", {"prompts_per_step": 9, "num_generations": 8, "micro_batch": 72}, 24),  # 32 does not divide 72
        ("cls_rl", {"prompts_per_step": 5, "num_generations": 8, "micro_batch": 40}, 8),
        ("cls_rl", {"prompts_per_step": 8, "num_generations": 8, "micro_batch": 8}, None),  # less than a group
        ("sft_all", {"sft_batch": 36, "micro_batch": 18}, 9),  # of SFT, no groups
        ("sft_all", {"sft_batch": 4, "micro_batch": 64}, 2),
        ("sft_all", {"sft_batch": 3, "micro_batch": 1}, None),
    ],
)
def test_a_smaller_micro_batch_is_one_that_a_run_takes(method, changes, smaller):
    found = estimate(*_run("nano", method, device="cpu", eval_batch=1, pass_items=0, **changes))
    assert [fix for fix in found.fixes if "micro" in fix] == [f"--micro-batch {smaller}"] * (smaller is not None)
    load_settings("nano", method, **changes | {"micro_batch": smaller or 1})


def _run(*given, **changes):
    settings = load_settings(*given, **changes)
    return settings, training_examples(settings)


def test_tokens_of_a_group_by_hand():
    settings, examples = _run("gpu-2b", "cls_rl", max_pixels=28 * 28 * 100, min_pixels=1, max_completion_tokens=50)
    shape = shape_of(read_config(settings.model))
    lengths = lengths_of(settings, shape, examples)
    text = lengths.prompt - 100
    assert 30 < text < 120 and lengths.completion == 50
    assert packed_tokens(settings, lengths) == lengths.prompt - 1 + 4 * 51


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({}, True),
        ({"loss_type": "bnpo"}, False),  # several micro-batches, whose means would be other ones
        ({"loss_type": "bnpo", "micro_batch": 64}, True),
        ({"micro_batch": 2}, False),
        ({"share_prefix": False}, False),
    ],
)
def test_prompts_are_shared_in_the_estimate_where_the_trainer_shares_them(changes, shares):
    settings, lengths = load_settings("gpu-2b", "cls_rl", **changes), Lengths(300, 50)
    apart = settings.num_generations * (300 + 50)
    assert (packed_tokens(settings, lengths) < apart) == shares


def test_a_gpu_run_that_will_not_fit_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr("rftkit.memory.peak_memory.free_memory", lambda device: 2**30)
    settings, examples = _run("gpu-2b", "cls_rl", device="cuda")
    with pytest.raises(UserError) as error:
        refuse_what_will_not_fit(settings, examples)
    line = str(error.value)
    assert "1.0 GiB are free: give --max-completion-tokens 512, " in line and "--no-memory-check" in line
    assert "(or set it in a profile, see 'Out of memory' in notebooks/GPU.md)" in line
    assert "**Out of memory**" in (ROOT / "notebooks" / "GPU.md").read_text()
    refuse_what_will_not_fit(*_run("gpu-2b", "cls_rl", device="cuda", check_memory=False))
    refuse_what_will_not_fit(*_run("gpu-2b", "cls_rl", device="cpu"))
    monkeypatch.setattr("rftkit.memory.peak_memory.free_memory", lambda device: 2**40)
    refuse_what_will_not_fit(settings, examples)


def test_the_memory_check_is_no_part_of_a_run(tmp_path):
    from rftkit.run import folder_of

    checked, unchecked = (load_settings("smoke", "sft", check_memory=value) for value in (True, False))
    assert folder_of(checked, tmp_path) == folder_of(unchecked, tmp_path)


def test_the_command_prints_memory_and_a_measured_time(capsys):
    assert main(["estimate", "--profile", "smoke", "--device", "cpu", "--json"]) == 0
    written = capsys.readouterr()
    found = json.loads(written.out)
    assert found["fits"] and found["memory"]["total"] < 2**30 and found["no_time"] is None
    assert found["time"]["step"] > 0 and found["time"]["training"] == pytest.approx(3 * found["time"]["step"])
    assert written.err.startswith("measuring the time: 3 steps")
    text = as_text(found)
    assert "on this machine's CPU it fits" in text and "time (h:mm:ss), by proportion from a few real steps" in text
    assert re.search(r"^  0:00:\d\d for 3 steps of [\d.]+ s$", text, re.MULTILINE) and " to evaluate" in text
    assert "--device cuda" not in text  # a small model is for a CPU


@pytest.mark.parametrize("method", ["sft", "zero_shot"])
def test_measured_times_are_of_what_was_run_and_grow_by_proportion(method, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = load_settings("smoke", method, device="cpu", test_items=4, pass_items=0)
    began = time.perf_counter()
    times = measure(settings)
    passed = time.perf_counter() - began
    assert 0 < times.evaluation < passed and list(tmp_path.iterdir()) == []
    if method == "sft":
        assert times.training == pytest.approx(3 * times.step) and 0 < times.training + times.evaluation < 1.5 * passed
    else:
        assert times.step is None and times.training == 0


def test_what_is_measured_by_hand():
    settings = load_settings("nano", "cls_rl", test_items=1000, pass_items=100, eval_batch=250, eval_every=5)
    few = few_of(settings)
    assert (few.steps, few.epochs, few.test_items, few.pass_items, few.eval_every) == (3, None, 64, 7, 0)
    few = few_of(replace(settings, eval_batch=16, pass_items=0))
    assert (few.test_items, few.pass_items) == (16, 0)


def test_a_time_that_cannot_be_measured_says_why():
    found = report(*_run("smoke", "sft", device="cpu"), with_time=False)
    assert found["time"] is None and "time was not measured: --no-time" in as_text(found)
    large = report(*_run("gpu-2b", "sft", device="cpu"))
    assert "on a GPU, which such a model is for: --device cuda" in as_text(large)
    assert large["no_time"] == "a model of this size is for a GPU"
    small = estimate(*_run("smoke", "sft", device="cpu"))
    assert why_not_measured("nano-s", small) is None
    assert why_not_measured("nano-s", replace(small, fits=False)) == "the run does not fit"
    assert why_not_measured("nano-s", replace(small, free=None)) == "there is no GPU here"
    assert "not on this machine" in why_not_measured("no/such", small)
    assert is_at_hand(str(BUNDLED / "nano-s")) and not is_at_hand("no/such")


@pytest.fixture
def wide(tmp_path):
    """As many classes as SUN397 has, as the page says."""
    picture = (DATA / "emoji" / "emojione" / "anchor.png").read_bytes()
    for number in range(1, 398):
        for file in ("train/{}/1.png", "train/{}/2.png", "test/{}/1.png"):
            path = tmp_path / file.format(f"indoor scene no. {number}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
    return str(tmp_path)


def test_the_table_of_the_gpu_page_is_what_is_printed(wide):
    page = (ROOT / "notebooks" / "GPU.md").read_text()
    rows = re.findall(r"^\| `(gpu-\w+)( --no-quantize)?` [^|]*\|(.*)\|$", page, re.MULTILINE)
    assert len(rows) == 5
    for profile, unquantized, cells in rows:
        weights, *needs, card = re.findall(r"[\d.]+", cells)
        found = []
        for method in ("sft", "no_thinking_rl", "cls_rl"):
            for dataset in ("shapes", wide):
                run = _run(profile, method, dataset=dataset, device="cuda", quantize=not unquantized)
                found.append(estimate(*run).memory)
        assert [weights, *needs] == [
            f"{memory / 2**30:.1f}" for memory in (found[0]["weights"], *(f["total"] for f in found))
        ]
        assert int(card) == min(size for size in (12, 16, 24, 40) if size >= 1.25 * max(map(float, needs)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_memory_of_a_device_that_is_not_here(capsys):
    assert main(["estimate", "--profile", "gpu-2b", "--device", "cuda"]) == 0
    assert "there is no GPU here: memory as it would be on one" in capsys.readouterr().out
