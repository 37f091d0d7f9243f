"""Shapes of models: what a checkpoint's config says about its sizes. No weights are read and nothing is downloaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig

from rftkit.common.errors import UserError
from rftkit.common.paths import DATA
from rftkit.common.validation import read_mapping
from rftkit.models import LORA_TARGETS, read

SIZES = read_mapping(DATA / "model_sizes.yaml", "file")
HUB = {name: AutoConfig.for_model(**sizes) for name, sizes in SIZES["hub"].items()}


def read_config(name: str) -> PretrainedConfig:
    """A model's config: in `data/model_sizes.yaml`, a bundled or local folder's config.json, or (else) on the hub."""
    return HUB[name] if name in HUB else read(AutoConfig.from_pretrained, name)


@dataclass(frozen=True)
class Shape:
    """Sizes of a vision-language model. Parameters: `projections` (the language model's matrices, which LoRA adapts and
    NF4 quantises), and `total`; `lora` of an adapter of rank 1. Widths of the language model, pixels along a side of
    one image token."""

    projections: int
    total: int
    lora: int
    width: int
    inner: int
    kv_width: int
    depth: int
    vocabulary: int
    token_side: int


@cache
def shape_named(name: str) -> Shape:
    """The shape of a model by its name: see `read_config`."""
    config = read_config(name)
    try:
        return shape_of(config)
    except Exception as error:  # transformers raises all kinds of errors on a config that is not as it should be
        raise UserError(f"model '{name}' is none of the Qwen2-VL family, or its config.json is truncated") from error


def shape_of(config: PretrainedConfig) -> Shape:
    """Counts the parameters of a model built without memory (torch's meta device)."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    text, vision = config.get_text_config(), config.vision_config
    adapted = [m.weight.shape for name, m in model.named_modules() if re.fullmatch(LORA_TARGETS, name)]
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        projections=sum(shape.numel() for shape in adapted),
        total=sum(p.numel() for p in model.parameters()),
        lora=sum(sum(shape) for shape in adapted),
        width=text.hidden_size,
        inner=text.intermediate_size,
        kv_width=text.num_key_value_heads * head_width,
        depth=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        token_side=vision.patch_size * vision.spatial_merge_size,
    )
