"""What a model says to any question about a picture, in no mode: captions, and reasonings on text alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

from rftkit.shared_prefix.generation import generate_forked, generates_by, prefill
from rftkit.shared_prefix.merged_adapter import merged
from rftkit.shared_prefix.vision import with_features
from rftkit.tasks.example import Example
from rftkit.tasks.images import open_image


def about(example: Example, question: str) -> list[dict[str, Any]]:
    """A plain question about an example's pictures; its own question stays hidden."""
    images = [{"type": "image"}] * len(example.images)
    return [{"role": "user", "content": [*images, {"type": "text", "text": question}]}]


@torch.no_grad()
def captions(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    examples: Sequence[Example],
    question: str,
    *,
    samples: int = 0,
    temperature: float = 1.0,
    max_tokens: int = 64,
    batch_size: int = 32,
) -> list[list[str]]:
    """What a model says of each example's pictures: one greedy caption, or `samples` drawn ones. `batch_size` is of
    pictures; what is drawn is decided by torch's seed."""
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=samples > 0,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        **({"temperature": temperature, "top_k": 0, "top_p": 1.0} if samples else {}),
    )
    said, per = [], max(1, samples)
    model.eval()
    with merged(model), generates_by(model, config):
        for start in range(0, len(examples), batch_size):
            part = examples[start : start + batch_size]
            batch = processor(
                text=[processor.apply_chat_template(about(e, question), add_generation_prompt=True) for e in part],
                images=[[open_image(image, item=e.id) for image in e.images] for e in part],
                padding=True,
                padding_side="left",
                add_special_tokens=False,
                return_tensors="pt",
            ).to(model.device)
            ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
            vision = with_features(model, batch)
            full = generate_forked(model, ids, mask, vision, per, config, prefill(model, ids, mask, vision))
            texts = processor.tokenizer.batch_decode(full[:, ids.shape[1] :], skip_special_tokens=True)
            said += [texts[row : row + per] for row in range(0, len(texts), per)]
    return said
