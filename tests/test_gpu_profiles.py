"""The gpu profiles end to end on a CPU: every line of theirs on random weights with the real vocabulary and pictures.

What a GPU changes (bf16, CUDA kernels, speed, memory) is not tested here.
"""

import gpu_models
import pandas as pd
import pytest
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig

from rftkit.cli import main
from rftkit.models import limit_pixels, load_processor
from rftkit.runs.folder import read_results
from rftkit.settings import load_settings, with_steps


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return gpu_models.save(Qwen2VLConfig, tmp_path_factory.mktemp("hub") / "qwen2-vl")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return gpu_models.save_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(autouse=True)
def head_as_on_a_gpu(monkeypatch):
    """TRL's head scores only the positions with a label on a GPU, all of them on a CPU: with a real vocabulary slow."""
    monkeypatch.setattr("trl.trainer.utils._use_triton", lambda device: True)


def run(out, capsys, model, photos, *more):
    command = ["run", "--model", model, "--dataset", photos, "--protocol", "few_shot", "--steps", "1", *more]
    assert main([*command, "--device", "cpu", "--out", str(out)]) == 0
    return capsys.readouterr()


@pytest.mark.parametrize("method", ["no_thinking_rl", "sft"])
def test_gpu_2b_runs_from_end_to_end(tmp_path, capsys, model, photos, method, caplog):
    run(tmp_path, capsys, model, photos, "--profile", "gpu-2b", "--method", method)
    (folder,) = (tmp_path / "gpu-2b").glob("*-*")
    found, rows = read_results(folder), pd.read_csv(folder / "metrics.csv")
    assert found.parts["all"].n == 4 and len(rows) == 1 and rows["grad_norm"].notna().all()
    assert "as in stock TRL" not in caplog.text  # prompts were shared
    if method == "no_thinking_rl":
        assert len(pd.read_parquet(folder / "completions.parquet")) == 16 and "kl" in rows
        assert 1 < rows["completion_length"][0] < 10


def test_another_member_of_the_family_shares_prompts_with_the_same_numbers(tmp_path, capsys, photos, caplog):
    other, found = gpu_models.save(Qwen2_5_VLConfig, tmp_path / "qwen2.5-vl"), {}
    small = "prompts_per_step: 2\nmax_completion_tokens: 8\ntest_items: 1\npass_items: 0\nreward: random\n"
    for share in ("true", "false"):
        profile = tmp_path / f"share_{share}.yaml"
        profile.write_text(f"like: gpu-3b\nshare_prefix: {share}\n{small}")
        run(tmp_path, capsys, other, photos, "--profile", str(profile), "--method", "cls_rl")
        (folder,) = (tmp_path / profile.stem).glob("*-*")
        found[share] = pd.read_csv(folder / "metrics.csv")
        assert ("as in stock TRL" in caplog.text) == (share == "false")
    for name in ("completion_length", "reward", "entropy", "grad_norm"):
        assert found["true"][name][0] == pytest.approx(found["false"][name][0], rel=1e-3), name
    assert found["true"]["grad_norm"][0] > 0


def test_pictures_get_the_area_of_the_released_code(model):
    settings = load_settings("gpu-2b", "cls_rl")
    processor = load_processor(model)
    limit_pixels(processor, settings.min_pixels, settings.max_pixels)
    expected = {(64, 64): 196, (384, 384): 196, (500, 375): 192, (375, 500): 192, (2000, 300): 180, (1200, 800): 187}
    for size, tokens in expected.items():
        grid = processor.image_processor([Image.new("RGB", size)], return_tensors="np")["image_grid_thw"]
        assert grid.prod() / 4 == pytest.approx(tokens, abs=15), size


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
