"""A LoRA adapter merged into its base while completions are sampled, and taken out again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

MERGED_BYTES = 256 * 2**20  # of weights that LoRA is merged into; where there are more, its own products cost little


@contextmanager
def merged(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """LoRA merged into the fp32 weights beside it, for passes without gradient: one product in place of three.

    Afterwards the weights are the tensors they were before, so nothing is rounded away. bf16 and 4-bit weights are left
    alone: they would be rounded.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and _can_merge(layer)]
    kept = [layer.get_base_layer().weight.data for layer in layers]
    if sum(weight.nbytes for weight in kept) > MERGED_BYTES:
        layers, kept = [], []
    try:
        for layer, weight in zip(layers, kept, strict=True):
            layer.get_base_layer().weight.data = weight.clone()
            layer.merge()
            layer.forward = layer.get_base_layer().forward  # not by way of PEFT, which looks for adapters each time
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.__dict__.pop("forward", None)
            layer.get_base_layer().weight.data = weight
            layer.merged_adapters.clear()


def _can_merge(layer: LoraLayer) -> bool:
    weight = getattr(layer.get_base_layer(), "weight", None)
    return weight is not None and weight.dtype == torch.float32 and not (layer.disable_adapters or layer.merged)
