"""Completions of prompts that are computed, kept and read once, however many completions each has.

A prompt's keys and values stay as `prefill` made them; what its copies say is kept apart. A new token of a copy attends
to both. So nothing of a prompt is copied when completions begin or grow by a token, and all copies of a prompt read it
with one matrix product.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import sdpa_mask

from rftkit.shared_prefix.vision import as_features, by_picture, pieces, unwrapped

SHARED_PROMPT = "shared_prompt"  # `attention` as transformers knows it


def prefill(model, ids, mask, vision: dict) -> Cache:
    """The cache of left-padded prompts [N, P] without their last token: generate() wants one to start from.

    Args:
        vision: pixel_values or their features (`with_features`), image_grid_thw and mm_token_type_ids [N, P], or empty.
    """
    inner, ids, mask, parts = unwrapped(model).model, ids[:, :-1], mask[:, :-1], [slice(None)]
    if vision:
        vision = vision | {"mm_token_type_ids": vision["mm_token_type_ids"][:, :-1]}
        vision["position_ids"] = positions_of(inner, mask, vision)
    else:
        # As generate() counts on from here; left alone, the model would count the padding, too.
        vision = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        if has_three_positions(inner):
            inner.rope_deltas = None  # of pictures seen before
            vision["position_ids"] = vision["position_ids"].expand(3, -1, -1)
    if vision["position_ids"] is not None and "pixel_values" not in vision:
        parts = pieces(*ids.shape, ids.device)
    # Nobody reads what follows the last layer's keys and values: let one token of each prompt stand for all.
    last = getattr(inner, "language_model", inner).layers[-1].mlp
    hook = last.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, -1:],))
    options = {"use_cache": True, "logits_to_keep": 1}
    try:
        caches = [
            model(input_ids=ids[part], attention_mask=mask[part], **_part(vision, part), **options).past_key_values
            for part in parts
        ]
    finally:
        hook.remove()
    if len(caches) > 1:
        for first, *others in zip(*(cache.layers for cache in caches), strict=True):
            first.keys = torch.cat([first.keys, *(layer.keys for layer in others)])
            first.values = torch.cat([first.values, *(layer.values for layer in others)])
    return caches[0]


def has_three_positions(inner) -> bool:
    """Whether a token has a time, a row and a column (M-RoPE), as where there are pictures, or one number."""
    return hasattr(inner, "rope_deltas")


def _part(vision: dict, rows: slice) -> dict:
    """The positions and vision inputs of some prompts with one image each, or none; all of them where the rows are."""
    if rows == slice(None):
        return vision
    own = {"position_ids": vision["position_ids"][..., rows, :]}
    if "mm_encoder_outputs" in vision:
        own |= {name: vision[name][rows] for name in ("image_grid_thw", "mm_token_type_ids")}
        own |= as_features(by_picture(vision["mm_encoder_outputs"]["image"])[rows])
    return own


def positions_of(inner, mask, vision: dict) -> torch.Tensor | None:
    """M-RoPE positions [3, N, P] of prompts; the model's `rope_deltas` are set.

    The model works them out row by row; here each layout is worked out once. None, which leaves it to the model, where
    a prompt has no image or several.
    """
    kinds, grid = vision["mm_token_type_ids"], vision["image_grid_thw"]
    if len(grid) != len(mask) or ((kinds.diff(prepend=torch.zeros_like(kinds[:, :1])) > 0).sum(1) != 1).any():
        return None
    layouts, which = torch.cat([mask, kinds, grid], 1).unique(dim=0, return_inverse=True)
    mask, kinds, grid = layouts.split([mask.shape[1], kinds.shape[1], 3], 1)
    positions, deltas = inner.get_rope_index(kinds, kinds, grid, attention_mask=mask)
    inner.rope_deltas = deltas[which]
    return positions[:, which]


def generate_forked(model, ids, mask, vision: dict, copies: int, config, cache: Cache | None = None) -> torch.Tensor:
    """`copies` completions of each prompt with the prompt and its images run once.

    Args:
        ids, mask, vision: see `prefill`.
        config: generation config; num_return_sequences must be 1.
        cache: what `prefill` returned, if it was called already.

    Returns:
        [N * copies, P + C] ids, the copies of a prompt one after the other.
    """
    cache = prefill(model, ids, mask, vision) if cache is None else cache
    config = copy.deepcopy(config)
    config.use_cache = True  # whatever it says, or the checkpoint: the tokens are the same
    extra = {"mm_token_type_ids": torch.zeros_like(ids).repeat_interleave(copies, 0)} if vision else {}
    with _attends_by_parts(model, copies):
        return model.generate(
            input_ids=ids.repeat_interleave(copies, 0),
            attention_mask=mask.repeat_interleave(copies, 0),
            past_key_values=Cache(layers=[ForkedLayer(layer, copies) for layer in cache.layers]),
            generation_config=config,
            **extra,
        )


@contextmanager
def generates_by(model, config) -> Iterator[None]:
    """A generation config in place of the checkpoint's own, which generate() would fill its gaps from."""
    inner = unwrapped(model)
    own, inner.generation_config = inner.generation_config, config
    try:
        yield
    finally:
        inner.generation_config = own


@contextmanager
def no_picture_drawn(model) -> Iterator[None]:
    """While this lasts, sampling draws no image or video token: a completion with one could not be run again.

    Their probabilities are zero in each draw. The tokens drawn are those drawn otherwise, but where that was such a
    token. (`suppress_tokens` would have all other probabilities rounded anew.)
    """
    config, draw = unwrapped(model).config, torch.multinomial
    never = [config.image_token_id, config.video_token_id]

    def draw_others(probabilities, *args, **options):
        probabilities[..., never] = 0
        return draw(probabilities, *args, **options)

    torch.multinomial = draw_others
    try:
        yield
    finally:
        torch.multinomial = draw


class ForkedLayer(DynamicLayer):
    """A layer's keys and values of what `copies` completions of each prompt have said, behind the prompt's own."""

    def __init__(self, prompt: DynamicLayer, copies: int) -> None:
        super().__init__()
        self.prompt = prompt.keys, prompt.values  # [N, heads, P, size]
        rows = len(prompt.keys) * copies
        empty = [part.new_empty(rows, part.shape[1], 0, part.shape[3]) for part in self.prompt]
        self.lazy_initialization(*empty)
        self.keys, self.values = empty

    def update(self, key_states, value_states, *args, **kwargs):
        keys, values = super().update(key_states, value_states)
        keys.prompt = self.prompt  # on its way through the model to `attention`
        return keys, values

    def get_seq_length(self) -> int:
        return self.prompt[0].shape[2] + self.keys.shape[2]


@contextmanager
def _attends_by_parts(model, copies: int) -> Iterator[None]:
    """The language model attends by `attention`, and has `copies` of what it remembers of each prompt's positions."""
    inner, config = unwrapped(model).model, unwrapped(model).config.get_text_config()
    usual, deltas = config._attn_implementation, getattr(inner, "rope_deltas", None)
    config._attn_implementation = SHARED_PROMPT
    if deltas is not None:
        inner.rope_deltas = deltas.repeat_interleave(copies, 0)
    try:
        yield
    finally:
        config._attn_implementation = usual
        if has_three_positions(inner):
            inner.rope_deltas = deltas


def attention(module, query, key, value, attention_mask, scaling: float, **kwargs):
    """Attention of a new token of each copy to its prompt and to what it has said: one softmax over both, in fp32.

    Args:
        query: [B, query heads, 1, size], the copies of a prompt one after the other.
        key, value: of what was said, [B, heads, T, size]; `key.prompt` are those of the prompts, [N, heads, P, size].
        attention_mask: [B, 1, 1, P + T], False where padding is; None if there is none.

    Returns:
        [B, 1, query heads, size], and None for the weights.
    """
    prompt_key, prompt_value = key.prompt
    prompts, heads, width, size = prompt_key.shape
    rows = len(query)
    query = query.to(key.dtype).reshape(rows, heads, -1, size)  # query heads that share a key head side by side
    with torch.autocast(query.device.type, enabled=False):
        to_prompt = _by_copy(_product(_by_prompt(query, prompts), prompt_key.mT), rows)
        scores = torch.cat([to_prompt, _product(query, key.mT)], -1) * scaling
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask, -torch.inf)
        weights = scores.softmax(-1).to(value.dtype)
        of_prompt = _by_copy(_product(_by_prompt(weights[..., :width], prompts), prompt_value), rows)
        found = of_prompt + _product(weights[..., width:], value)
    return found.to(value.dtype).reshape(rows, 1, -1, found.shape[-1]), None


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A matrix product [N, heads, ., .] in fp32 whatever the factors are, as other attention keeps its scores."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out_dtype=torch.float32).unflatten(0, a.shape[:2])
    return a.float() @ b.float()


def _by_prompt(rows: torch.Tensor, prompts: int) -> torch.Tensor:
    """[N * copies, heads, Q, size] as [N, heads, copies * Q, size]."""
    return rows.unflatten(0, (prompts, -1)).transpose(1, 2).flatten(2, 3)


def _by_copy(rows: torch.Tensor, count: int) -> torch.Tensor:
    """The way back, to `count` rows in all."""
    return rows.unflatten(2, (count // len(rows), -1)).transpose(1, 2).flatten(0, 1)


AttentionInterface.register(SHARED_PROMPT, attention)
AttentionMaskInterface.register(SHARED_PROMPT, sdpa_mask)
