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
from rftkit.models import LORA_TARGETS, check_family, read

SIZES = read_mapping(DATA / "model_sizes.yaml", "file")
HUB = {name: AutoConfig.for_model(**sizes) for name, sizes in SIZES["hub"].items()}


def read_config(name: str) -> PretrainedConfig:
    """A model's config: in `data/model_sizes.yaml`, a bundled or local folder's config.json, or (else) on the hub."""
    return HUB[name] if name in HUB else read(AutoConfig.from_pretrained, name)


@dataclass(frozen=True)
class Shape:
    """Sizes of a vision-language model. Parameters: `projections` (the language model's matrices, which LoRA adapts and
    NF4 quantises), and `total`; `lora` of an adapter of rank 1. Widths of the language model: of its states, MLP,
    queries, keys, and of queries and keys that are normalised (Qwen3; else 0). Pixels along a side of one image
    token."""

    projections: int
    total: int
    lora: int
    width: int
    inner: int
    query_width: int
    kv_width: int
    normed: int
    depth: int
    vocabulary: int
    token_side: int


@cache
def shape_named(name: str) -> Shape:
    """The shape of a model by its name: see `read_config`."""
    config = read_config(name)
    check_family(name, config)
    try:
        return shape_of(config)
    except Exception as error:  # transformers raises all kinds of errors on a config that is not as it should be
        raise UserError(f"the config.json of model '{name}' is not one of the family {config.model_type}") from error


def shape_of(config: PretrainedConfig) -> Shape:
    """Counts the parameters of a model built without memory (torch's meta device)."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    text, vision = config.get_text_config(), config.vision_config
    adapted = [m.weight.shape for name, m in model.named_modules() if re.fullmatch(LORA_TARGETS, name)]
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    queries, keys = text.num_attention_heads * head_width, text.num_key_value_heads * head_width
    normed = any(name.endswith("q_norm") for name, _ in model.named_modules())
    return Shape(
        projections=sum(shape.numel() for shape in adapted),
        total=sum(p.numel() for p in model.parameters()),
        lora=sum(sum(shape) for shape in adapted),
        width=text.hidden_size,
        inner=text.intermediate_size,
        query_width=queries,
        kv_width=keys,
        normed=(queries + keys) * normed,
        depth=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        token_side=vision.patch_size * vision.spatial_merge_size,
    )
