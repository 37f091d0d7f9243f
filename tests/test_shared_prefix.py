"""Shared-prefix GRPO: what it packs, keeps and skips, and what it overrides; its numbers: test_trl_suite.py."""

import inspect
import random
import tempfile
from pathlib import Path

import datasets
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from rftkit.models import load_processor
from rftkit.nano.build import build_model
from rftkit.shared_prefix.packing import pack
from rftkit.shared_prefix.sharing import SharedPrefixTrainer
from rftkit.shared_prefix.vision import VisionFeatures

UNUSED = str(Path(tempfile.gettempdir()) / "rftkit-test")
LORA = r".*language_model.*\.(q|v|down)_proj"


@pytest.fixture(scope="module")
def processor():
    return load_processor("nano-s")  # a fixed one: with another vocabulary other tokens are sampled


def picture(size, seed):
    width, height = size
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * width * height))


def rows(pictures_per_prompt):
    """Prompts of unequal length, pictures of unequal shape; the same question twice about two pictures of one size."""
    shapes = [(64, 64), (64, 64), (128, 32), (40, 90)]
    data = []
    for index, count in enumerate(pictures_per_prompt):
        question = "what is this" + " and that" * (index % 3 if index > 1 else 0)
        pictures = [picture(shapes[(index + k) % 4], 10 * index + k) for k in range(count)]
        content = [{"type": "image"}] * count + [{"type": "text", "text": question}]
        data.append({"prompt": [{"role": "user", "content": content}], "images": pictures})
    return Dataset.from_list(data)


def reward(completions, **_):
    return reward_of(completions)


def reward_of(completions):
    texts = [completion[0]["content"] for completion in completions]
    return [text.count("e") + 0.01 * len(text) for text in texts]


def plain_model(processor):
    """Random weights as the library draws them: attention as sharp as `build_model`'s enlarges rounding errors."""
    built = build_model("s", processor)
    built.config.text_config.num_key_value_heads, built.config.text_config.intermediate_size = 2, 384
    torch.manual_seed(0)
    model = type(built)(built.config)
    model.generation_config = built.generation_config
    return model


def train(kind, processor, data, lora=LORA, end=0.0, **options):
    """Weights and rewards after four steps; `end` makes the end token likelier in sampling."""
    model = plain_model(processor)
    arguments = GRPOConfig(
        **{
            "output_dir": UNUSED, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2,
            "num_generations": 4, "max_completion_length": 6, "max_steps": 4, "learning_rate": 1e-2, "optim": "sgd",
            "lr_scheduler_type": "constant", "report_to": [], "use_cpu": True, "bf16": False, "save_strategy": "no",
            "disable_tqdm": True, "gradient_checkpointing": False, "logging_steps": 1,
            "generation_kwargs": {"sequence_bias": [[[processor.tokenizer.eos_token_id], end]]}, **options,
        }
    )  # fmt: skip
    trainer = kind(
        model=model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=data,
        processing_class=processor,
        peft_config=LoraConfig(r=4, target_modules=lora, lora_dropout=0.0),
    )
    trainer.train()
    weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    return weights, [row["reward"] for row in trainer.state.log_history if "reward" in row]


def test_pictures_may_be_named_by_their_paths(processor, tmp_path):
    data = rows([1, 1, 1, 1])
    paths = [[str(tmp_path / f"{n}.png")] for n in range(4)]
    for (image,), (path,) in zip(data["images"], paths, strict=True):
        image.save(path)
    named = data.remove_columns("images").add_column("images", paths)
    named = named.cast_column("images", [datasets.Image(decode=False)])
    expected, found = (train(SharedPrefixTrainer, processor, of)[0] for of in (data, named))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_groups_that_teach_nothing_are_skipped_without_a_change(processor, monkeypatch):
    monkeypatch.setitem(globals(), "reward", some_groups_agree)
    seen, run = [], SharedPrefixTrainer._group_logps

    def counted(self, model, input_ids, *rest):
        seen.append(len(input_ids) * torch.is_grad_enabled())
        return run(self, model, input_ids, *rest)

    monkeypatch.setattr(SharedPrefixTrainer, "_group_logps", counted)
    for optimizer in ("sgd", "adamw_torch"):
        options = {"optim": optimizer, "learning_rate": 1e-2 if optimizer == "sgd" else 1e-4, "end": 4.0}
        stock, rewards = train(GRPOTrainer, processor, rows([1, 1, 1, 1]), **options)
        ours, same = train(SharedPrefixTrainer, processor, rows([1, 1, 1, 1]), **options)
        assert rewards == same
        assert max((stock[name] - ours[name]).abs().max() for name in stock) < 1e-5
    assert 0 < sum(seen) < 2 * 4 * 16  # two trainings of four steps with sixteen completions


def some_groups_agree(completions, prompts, **_):
    """The rewards of `reward`, but zero for the shortest questions."""
    short = [len(prompt[0]["content"][-1]["text"]) < 15 for prompt in prompts]
    return [0.0 if agree else value for agree, value in zip(short, reward_of(completions), strict=True)]


def test_features_of_a_frozen_tower_are_kept_and_bounded(processor):
    model = build_model("s", processor).eval().requires_grad_(False)
    images = [picture((64, 64), seed) for seed in range(3)]
    batch = processor.image_processor(images, return_tensors="pt")
    plain = model.model.get_image_features(batch["pixel_values"], batch["image_grid_thw"], return_dict=True)
    size = plain.pooler_output[0].nbytes
    vision, runs = VisionFeatures(cache_bytes=2 * size), []
    run = vision._run
    vision._run = lambda model, pixels, grid: runs.append(len(grid)) or run(model, pixels, grid)
    for _ in range(2):
        again = vision(model, batch["pixel_values"], batch["image_grid_thw"])["mm_encoder_outputs"]["image"]
        assert all(
            torch.allclose(a, b, atol=1e-6) for a, b in zip(plain.pooler_output, again.pooler_output, strict=True)
        )
    assert runs == [3, 1] and vision.held == 2 * size
    with torch.no_grad():
        next(model.model.visual.parameters()).mul_(1.5)  # other weights, other features
    vision(model, batch["pixel_values"], batch["image_grid_thw"])
    assert runs == [3, 1, 3]
    tower = model.model.visual.requires_grad_(True)
    with torch.no_grad():
        vision(model, batch["pixel_values"], batch["image_grid_thw"])
    assert runs == [3, 1, 3, 3]
    for parameter in tower.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(tower.parameters(), fused=True).step()  # leaves no trace in `_version`
    tower.requires_grad_(False)
    vision(model, batch["pixel_values"], batch["image_grid_thw"])
    assert runs == [3, 1, 3, 3, 3]


def test_a_packed_completion_sees_the_prompt_and_itself_only():
    prompt, place = torch.tensor([10, 11, 12]), torch.arange(3).expand(3, -1)
    packed = pack([prompt], [place], [[torch.tensor([20, 21]), torch.tensor([30])]])
    assert packed.ids.tolist() == [[10, 11, 12, 20, 21, 12, 30]]
    assert packed.positions[0].tolist() == [[0, 1, 2, 3, 4, 2, 3]]
    assert packed.labels.tolist() == [[-100, -100, 20, 21, -100, 30, -100]]
    assert packed.mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1, 1],
    ]
    assert (packed.rows.tolist(), packed.columns.tolist()) == ([0, 0, 0], [2, 3, 5])


OVERRIDDEN = {
    "_prepare_inputs": ["self", "generation_batch"],
    "_tokenize_prompts": ["self", "prompts"],
    "_generate": ["self", "prompts"],
    "_generate_single_turn": [
        "self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images",
    ],
    "_get_per_token_logps_and_entropies": [
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy",
        "compute_aux_loss", "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes",
        "num_tiles", "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_the_overridden_methods_of_trl_are_as_we_know_them(name):
    found = list(inspect.signature(getattr(GRPOTrainer, name)).parameters)
    assert found == OVERRIDDEN[name], (
        f"TRL changed GRPOTrainer.{name}: read its new body, adapt rftkit/shared_prefix/ and rftkit/trainer.py, then "
        "this table; until then keep trl at the version in pyproject.toml"
    )
