"""The models `rftkit bench` measures: the bundled ones, and random weights in the shapes of Qwen2-VL."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

from rftkit.memory.model_sizes import HUB, QWEN2_TOWER
from rftkit.models import ImageTextProcessor, resolve
from rftkit.nano.build import build_model, build_processor, picture_tokens
from rftkit.tasks.worlds import SIDE


@dataclass(frozen=True)
class Preset:
    """A model and how many prompts of it a step has."""

    prompts: int  # a step, in one micro-batch
    side: int = SIDE  # pixels of a picture
    config: Qwen2VLConfig | None = None  # the sizes of one with random weights; None: a bundled size
    needs_gpu: bool = False


CPU_100M = Qwen2VLConfig(
    text_config={"vocab_size": 4096, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 8,
                 "num_attention_heads": 12, "num_key_value_heads": 4, "bos_token_id": None, "eos_token_id": None},
    vision_config=QWEN2_TOWER | {"depth": 4, "embed_dim": 768, "hidden_size": 768, "num_heads": 12},
    tie_word_embeddings=True,
)  # fmt: skip
PRESETS = {
    "nano-s": Preset(prompts=8),
    "nano-m": Preset(prompts=8),
    "cpu-100m": Preset(prompts=2, side=392, config=CPU_100M),
    "2b": Preset(prompts=4, side=384, config=HUB["Qwen/Qwen2-VL-2B-Instruct"], needs_gpu=True),
    "7b": Preset(prompts=4, side=384, config=HUB["Qwen/Qwen2-VL-7B-Instruct"], needs_gpu=True),
}


def save_model(name: str, folder: Path) -> str:
    """Write a preset's model and processor into a folder (random weights, seed 0) and return where they are.

    `nano-s` is a copy of the bundled checkpoint.
    """
    if name == "nano-s":
        return str(shutil.copytree(resolve(name), folder, dirs_exist_ok=True))
    preset, processor = PRESETS[name], build_processor()
    torch.manual_seed(0)
    if preset.config is None:
        model = build_model(name.removeprefix("nano-"), processor)
    else:
        model = _build(preset, processor.tokenizer)
        images = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=1280 * 28 * 28)  # patches as in Qwen2-VL
        processor = ImageTextProcessor(images, processor.tokenizer, chat_template=processor.chat_template)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def _build(preset: Preset, tokenizer) -> Qwen2VLForConditionalGeneration:
    """Random weights in a preset's sizes, with the bundled tokenizer's special tokens."""
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = copy.deepcopy(preset.config)
    half = config.text_config.hidden_size // config.text_config.num_attention_heads // 2  # rotary frequencies of a head
    height = width = 3 * half // 8
    sections = [half - height - width, height, width]  # 16, 24, 24 in Qwen2-VL
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    config.text_config.update(ends | {"bos_token_id": None, "max_position_embeddings": 32768, "rope_parameters": rope})
    config.update(picture_tokens(tokenizer))
    with torch.device("cuda" if preset.needs_gpu else "cpu"):
        model = Qwen2VLForConditionalGeneration._from_config(
            config, dtype=torch.bfloat16 if preset.needs_gpu else torch.float32
        )
    model.generation_config = GenerationConfig(**ends)
    return model


def flop_bound(model, size: int, prompt: int, length: int, patches: int, every_position: bool) -> dict[str, float]:
    """How much faster the step and the update could be by the floating-point operations alone.

    Language model: 2 operations a weight and token and 4 x width a layer and pair of tokens that attend; forward, and
    as much again backward to the activations (LoRA: the weights themselves are frozen). Vision: forward only; in stock
    TRL G times in sampling and again in the update, in ours once a group for both.

    Args:
        size: completions a group (G).
        prompt, length: tokens of a prompt and of a completion.
        patches: of a prompt's pictures.
        every_position: stock TRL's head runs on every position (on a CPU), not on completion tokens only as ours.
    """
    text, tower = model.config.get_text_config(), model.model.visual
    # From the shapes: quantised weights are stored two a byte.
    hidden, width = text.hidden_size, text.hidden_size * text.num_hidden_layers
    keys = text.num_key_value_heads * (hidden // text.num_attention_heads)
    weights = text.num_hidden_layers * (2 * hidden * (hidden + keys) + 3 * hidden * text.intermediate_size)
    head = text.vocab_size * hidden

    def language(tokens: int, pairs: int, scored: int) -> float:
        return 2 * weights * tokens + 4 * width * pairs + 2 * head * scored

    blocks = sum(p.numel() for p in tower.blocks.parameters()) + tower.patch_embed.proj.weight.numel()
    merger = sum(p.numel() for p in tower.merger.parameters()) // tower.config.spatial_merge_size**2
    look = 2 * (blocks + merger) * patches + 4 * tower.config.depth * tower.config.embed_dim * patches**2

    whole, packed = prompt + length, prompt - 1 + size * (length + 1)
    packed_pairs = prompt**2 // 2 + size * (length + 1) * (prompt + length // 2)
    stock = size * language(whole, whole**2 // 2, whole if every_position else length)
    ours = language(packed, packed_pairs, size * length)
    prefill = language(prompt, prompt**2 // 2, 1)
    decode = size * language(length, length * (prompt + length // 2), length)
    update, our_update = size * look + 2 * stock, 2 * ours
    sampling, our_sampling = size * (look + prefill) + decode, look + prefill + decode
    return {
        "step": round((sampling + update) / (our_sampling + our_update), 3),
        "update": round(update / our_update, 3),
    }
