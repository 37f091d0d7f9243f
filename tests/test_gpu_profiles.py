"""The gpu profiles end to end on a CPU: every line of theirs on random weights in folders as on the hub.

What a GPU changes (bf16, CUDA kernels, speed, memory) is not tested here.
"""

import json
from pathlib import Path

import gpu_models
import pandas as pd
import pytest
from PIL import Image

from rftkit.cli import main
from rftkit.memory.model_sizes import shape_named
from rftkit.models import limit_pixels, load_processor
from rftkit.runs.folder import read_results
from rftkit.settings import load_settings, with_steps

# The profile's family, and the tokens of pictures of these sizes.
FAMILIES = {"gpu-2b": "qwen2_vl", "gpu-3b": "qwen2_5_vl", "gpu-qwen3-2b": "qwen3_vl"}
SIZES = (64, 64), (384, 384), (500, 375), (375, 500), (2000, 300), (1200, 800)
TOKENS = {"gpu-2b": (196, 196, 192, 192, 180, 187), "gpu-qwen3-2b": (144, 144, 140, 140, 124, 150)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of each profile's model."""
    hub = tmp_path_factory.mktemp("hub")
    return {profile: gpu_models.save(family, hub / family) for profile, family in FAMILIES.items()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return gpu_models.save_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(autouse=True)
def head_as_on_a_gpu(monkeypatch):
    """TRL's head scores only the positions with a label on a GPU, all of them on a CPU: with a real vocabulary slow."""
    monkeypatch.setattr("trl.trainer.utils._use_triton", lambda device: True)


def run(out, capsys, model, photos, *more):
    command = ["run", "--model", model, "--dataset", photos, "--protocol", "few_shot", *more]
    assert main([*command, "--device", "cpu", "--out", str(out)]) == 0
    return capsys.readouterr()


@pytest.mark.parametrize(("profile", "prefix"), [("gpu-2b", "model."), ("gpu-qwen3-2b", "model.language_model.")])
def test_the_folders_have_the_names_of_the_hub(models, profile, prefix):
    folder = Path(models[profile])
    weights = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert f"{prefix}layers.0.self_attn.q_proj.weight" in weights and len(set(weights.values())) > 1
    assert not (folder / "model.safetensors").exists() and not (folder / "processor_config.json").exists()
    assert load_processor(models[profile]).tokenizer("<|image_pad|>")["input_ids"] == [151655]


@pytest.mark.parametrize(
    ("profile", "method", "steps"),
    [("gpu-2b", "no_thinking_rl", 2), ("gpu-2b", "sft", 1), ("gpu-qwen3-2b", "no_thinking_rl", 1)],
)
def test_a_profile_runs_from_end_to_end(tmp_path, capsys, models, photos, profile, method, steps, caplog):
    options = ("--profile", profile, "--method", method, "--steps", str(steps))
    run(tmp_path, capsys, models[profile], photos, *options)
    (folder,) = (tmp_path / profile).glob("*-*")
    found, rows = read_results(folder), pd.read_csv(folder / "metrics.csv")
    assert found.parts["all"].n == 4 and len(rows) == steps and rows["grad_norm"].notna().all()
    assert "as in stock TRL" not in caplog.text  # prompts were shared
    if method == "no_thinking_rl":
        assert len(pd.read_parquet(folder / "completions.parquet")) == 16 * steps and "kl" in rows
        assert rows["completion_length"].between(1, 10, inclusive="neither").all()


@pytest.mark.parametrize("name", ["gpu-3b", "gpu-qwen3-2b"])
def test_another_family_shares_prompts_with_the_same_numbers(tmp_path, capsys, models, photos, name, caplog):
    found = {}
    small = "prompts_per_step: 2\nmax_completion_tokens: 8\ntest_items: 1\npass_items: 0\nreward: random\n"
    for share in ("true", "false"):
        profile = tmp_path / f"share_{share}.yaml"
        profile.write_text(f"like: {name}\nshare_prefix: {share}\n{small}")
        run(tmp_path, capsys, models[name], photos, "--profile", str(profile), "--method", "cls_rl", "--steps", "1")
        (folder,) = (tmp_path / profile.stem).glob("*-*")
        found[share] = pd.read_csv(folder / "metrics.csv")
        assert ("as in stock TRL" in caplog.text) == (share == "false")
    for name in ("completion_length", "reward", "entropy", "grad_norm"):
        assert found["true"][name][0] == pytest.approx(found["false"][name][0], rel=1e-3), name
    assert found["true"]["grad_norm"][0] > 0


@pytest.mark.parametrize("profile", TOKENS)
def test_pictures_get_the_area_of_the_released_code(models, profile):
    settings = load_settings(profile, "cls_rl")
    processor = load_processor(models[profile])
    limit_pixels(processor, settings.min_pixels, settings.max_pixels)
    estimated = -(-settings.max_pixels // shape_named(settings.model).token_side ** 2)
    for size, tokens in zip(SIZES, TOKENS[profile], strict=True):
        grid = processor.image_processor([Image.new("RGB", size)], return_tensors="np")["image_grid_thw"]
        assert grid.prod() // 4 == tokens and 0.8 * estimated < tokens <= estimated, size


@pytest.mark.parametrize(
    ("dataset", "examples", "steps"),
    [("eurosat", 40, 250), ("dtd", 188, 588), ("oxford_pets", 148, 463), ("imagenet", 4000, 2500)],
)
def test_steps_are_the_papers(tmp_path, dataset, examples, steps):
    gpu_models.save_photos(tmp_path / dataset)
    settings = load_settings("gpu-2b", "cls_rl", dataset=str(tmp_path / dataset))
    assert with_steps(settings, examples).steps == steps
    assert with_steps(load_settings("gpu-2b", "cls_rl", steps=7), examples).steps == 7


def test_groups_are_the_papers():
    assert load_settings("gpu-2b", "cls_rl", task="math").num_generations == 8
    assert load_settings("gpu-7b", "cls_rl", task="math").num_generations == 4
    assert load_settings("gpu-2b", "cls_rl").num_generations == 4
