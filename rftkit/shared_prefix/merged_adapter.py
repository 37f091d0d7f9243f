"""A LoRA adapter merged into its base while completions are sampled, and taken out again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.tuners.lora import Linear, LoraLayer
from transformers import PreTrainedModel

MERGED_BYTES = 256 * 2**20  # of weights that LoRA is merged into; where there are more, its own products cost little


@contextmanager
def merged(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """LoRA merged into the fp32 weights beside it, for passes without gradient: one product in place of three.

    Afterwards the weights are the tensors they were before, so nothing is rounded away. bf16 and 4-bit weights are left
    alone: they would be rounded. So is what is not plain LoRA, and a weight that another module uses, too.
    """
    uses = Counter(id(part) for module in model.modules() for part in module._parameters.values())
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and _can_merge(layer, uses)]
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


def _can_merge(layer: LoraLayer, uses: Counter) -> bool:
    base = layer.get_base_layer()
    if type(layer) is not Linear or base.weight.dtype != torch.float32 or uses[id(base.weight)] > 1:
        return False
    plain = not (layer.lora_variant or any(layer.lora_bias.values()))
    return plain and not (layer.disable_adapters or layer.merged)
