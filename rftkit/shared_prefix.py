"""GRPO with the prompt and the image computed once per group, same numbers as stock TRL.

The G completions of a group share one prompt. Stock TRL runs the vision tower and the prompt G times when sampling
and G times again in every log-prob pass. Here:

- *Sampling* runs a group's prompt once and forks its cache G ways.
- *Log-probs* come from one packed sequence a group: the prompt without its last token, then each completion behind
  its own copy of that last token. A mask lets a completion see the prompt and itself only, and its positions go on
  where the prompt ended:

      prompt   p0 p1 p2 | p3 a0 a1 | p3 b0 b1 b2       token
      position  0  1  2 |  3  4  5 |  3  4  5  6
      predicts  -  -  - | a0 a1  - | b0 b1 b2  -

  The copy of the last prompt token gives every packed token at most one label, so TRL's fused head works as it is.
- *Vision* runs once per distinct image, without gradient while the tower is frozen.

Groups are told apart by row number, never by equal token ids: two pictures of one size with the same question have
the same ids. Everything else (rewards, advantages, losses, importance levels) is TRL's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutputWithPooling
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

logger = logging.getLogger(__name__)
PAYS_FROM = 1.3  # share a prefix if it saves at least this factor of language tokens


@dataclass
class Packed:
    """Groups packed into one sequence each, right-padded to length L.

    ids [N, L]; mask [N, 1, L, L], True where a token may look; positions [3, N, L]; labels [N, L], the token each
    position predicts (-100: none); rows and columns [M] say where the M completion tokens' predictions stand, in the
    order of the completions.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor


def pack(prompts: list[torch.Tensor], positions: list[torch.Tensor], completions: list[list[torch.Tensor]]) -> Packed:
    """Pack groups: a prompt [P], its positions [3, P] and the group's completions [C_g] each."""
    ids, segments, places, labels, rows, columns = [], [], [], [], [], []
    for row, (prompt, place, group) in enumerate(zip(prompts, positions, completions, strict=True)):
        device, length = prompt.device, len(prompt) - 1
        nothing = torch.full((1,), -100, device=device)
        parts, marks, steps, targets = [prompt[:-1]], [torch.zeros(length, device=device)], [place[:, :-1]], []
        targets.append(nothing.expand(length))
        start = length
        for number, completion in enumerate(group, 1):
            size = len(completion) + 1
            parts.append(torch.cat([prompt[-1:], completion]))
            marks.append(torch.full((size,), number, device=device))
            steps.append(place[:, -1:] + torch.arange(size, device=device))
            targets.append(torch.cat([completion, nothing]))
            columns.append(torch.arange(start, start + size - 1, device=device))
            rows.append(torch.full((size - 1,), row, device=device))
            start += size
        ids.append(torch.cat(parts))
        segments.append(torch.cat(marks))
        places.append(torch.cat(steps, 1).T)
        labels.append(torch.cat(targets))
    segment = pad_sequence(segments, True, -1)  # [N, L]; padding is a segment of its own
    order = torch.arange(segment.shape[1], device=segment.device)
    same = (segment[:, :, None] == segment[:, None, :]) | (segment[:, None, :] == 0)
    return Packed(
        ids=pad_sequence(ids, True, 0),
        mask=((order[:, None] >= order) & same)[:, None],
        positions=pad_sequence(places, True, 0).permute(2, 0, 1),
        labels=pad_sequence(labels, True, -100),
        rows=torch.cat(rows),
        columns=torch.cat(columns),
    )


def generate_forked(model, ids, mask, vision: dict, copies: int, config) -> torch.Tensor:
    """`copies` completions of each prompt with the prompt and its images run once.

    Args:
        ids, mask: left-padded prompts [N, P].
        vision: pixel_values, image_grid_thw and mm_token_type_ids [N, P], or empty.
        config: generation config; num_return_sequences must be 1.

    Returns:
        [N * copies, P + C] ids, the copies of a prompt one after the other.
    """
    ahead = dict(vision)
    if vision:
        ahead["mm_token_type_ids"] = vision["mm_token_type_ids"][:, :-1]
    # The last prompt token stays out of the cache: generate() wants at least one token to start from.
    cache = model(
        input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=True, logits_to_keep=1, **ahead
    ).past_key_values
    cache.batch_repeat_interleave(copies)
    extra = {}
    if vision:
        inner = _qwen(model).model
        inner.rope_deltas = inner.rope_deltas.repeat_interleave(copies, 0)
        extra["mm_token_type_ids"] = torch.zeros_like(ids).repeat_interleave(copies, 0)
    return model.generate(
        input_ids=ids.repeat_interleave(copies, 0),
        attention_mask=mask.repeat_interleave(copies, 0),
        past_key_values=cache,
        generation_config=config,
        **extra,
    )


class SharedPrefixTrainer(GRPOTrainer):
    """trl.GRPOTrainer that computes each prompt and image once per group."""

    share_prefix = True
    _said = ""

    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    def _cannot_share(self) -> str:
        """Why prefixes cannot be shared in this set-up; empty if they can."""
        implementation = self.model.config.get_text_config()._attn_implementation or ""
        if not self.share_prefix:
            return "it is switched off"
        if self.use_vllm:
            return "vLLM shares prefixes by itself"
        if "flash" in implementation:
            return "flash attention takes no block mask; load the model with sdpa"
        if self.tools or self.aux_loss_enabled:
            return "tools and mixture-of-experts models are not supported"
        if self.args.per_device_train_batch_size % self.num_generations:
            return "a micro-batch does not hold whole groups"
        return ""

    def _falls_back(self, reason: str) -> bool:
        """Whether to leave the work to stock TRL, said once for each reason."""
        if reason and reason != self._said:
            self._said = reason
            logger.warning("prompts are computed once per completion, as in stock TRL: %s", reason)
        return bool(reason)

    def _prepare_inputs(self, generation_batch):
        # As in TRL, but whole groups are shuffled, so that a group stays in one micro-batch.
        if not self.model.training or self._falls_back(self._cannot_share()):
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            size = self.num_generations
            # One draw for each sample, as TRL does: the same seed then gives the same random numbers afterwards.
            order = torch.randperm(len(batch["prompt_ids"])) // size
            groups = torch.tensor(list(dict.fromkeys(order.tolist())))
            rows = (groups[:, None] * size + torch.arange(size)).flatten()
            batch = {name: _take(value, rows) for name, value in batch.items()}
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(batch, steps)]
        return self._buffered_inputs[self._step % steps]

    def _tokenize_prompts(self, prompts):
        # A group's prompts are equal: render, tokenize and preprocess the first and repeat it.
        size = self._group_size()
        if size == 1 or len(prompts) % size or self._cannot_share():
            return super()._tokenize_prompts(prompts)
        ids, images, fields = super()._tokenize_prompts(prompts[::size])
        repeated = [row for row in ids for _ in range(size)]
        images = None if images is None else [row for row in images for _ in range(size)]
        return repeated, images, fields

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        size = self._group_size()
        if size == 1 or len(prompt_ids) % size or self._cannot_share():
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        device, pad = self.accelerator.device, self._tokenizer.pad_token_id
        rows = [torch.tensor(ids, device=device) for ids in prompt_ids[::size]]
        ids = pad_sequence(rows, True, pad, padding_side="left")  # [N, P]
        mask = pad_sequence([torch.ones_like(row) for row in rows], True, 0, padding_side="left")
        vision = {}
        if "pixel_values" in multimodal_fields:
            vision = {k: torch.as_tensor(multimodal_fields[k]).to(device) for k in ("pixel_values", "image_grid_thw")}
            vision["mm_token_type_ids"] = (ids == self._image_pad_token_id).long()
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
        ):
            full = generate_forked(model, ids, mask, vision, size, self.generation_config)
        completions = full[:, ids.shape[1] :]  # [N * G, C]
        ended = torch.isin(completions, torch.tensor(self.eos_token_ids, device=device)).int()
        lengths = (ended.cumsum(1) - ended == 0).sum(1)  # up to and with the first end token
        return [row[:length].tolist() for row, length in zip(completions.cpu(), lengths.tolist(), strict=True)], None

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        pixel_values=None,
        image_grid_thw=None,
        num_images=None,
        **others,
    ):
        size, width = self._group_size(), logits_to_keep
        prompt_width = input_ids.shape[1] - width
        saving = size * (prompt_width + width) / max(1, prompt_width - 1 + size * (width + 1))
        reason = self._cannot_share()
        if not reason and (len(input_ids) % size or saving < PAYS_FROM):
            reason = f"prompts of {prompt_width} and completions of {width} tokens would save too little"
        if self._falls_back(reason):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss,
                pixel_values=pixel_values, image_grid_thw=image_grid_thw, num_images=num_images, **others,
            )  # fmt: skip
        rows = batch_size or len(input_ids)
        rows = max(size, rows - rows % size)
        images = _images_of_groups(pixel_values, image_grid_thw, num_images, len(input_ids), size)
        logps, entropies = [], []
        for start in range(0, len(input_ids), rows):
            part = slice(start, start + rows)
            chosen = images[start // size : (start + rows) // size]
            found = self._group_logps(model, input_ids[part], attention_mask[part], prompt_width, size, chosen)
            logps.append(found[0])
            entropies.append(found[1])
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _group_logps(self, model, input_ids, attention_mask, prompt_width, size, images):
        """Log-probs and entropies [B, C] of the completions of B / G whole groups."""
        prompts = [row[seen] for row, seen in zip(input_ids[::size, :prompt_width],
                   attention_mask[::size, :prompt_width].bool(), strict=True)]  # fmt: skip
        answered = attention_mask[:, prompt_width:].bool()  # [B, C]
        completions = [row[seen] for row, seen in zip(input_ids[:, prompt_width:], answered, strict=True)]
        groups = [completions[start : start + size] for start in range(0, len(completions), size)]
        inner = _qwen(self.accelerator.unwrap_model(model))
        positions = [self._positions(inner, prompt, image) for prompt, image in zip(prompts, images, strict=True)]
        packed = pack(prompts, positions, groups)
        vision = self._vision(inner, images)
        with self.accelerator.autocast():
            output = model(
                input_ids=packed.ids,
                attention_mask=packed.mask,
                position_ids=packed.positions,
                shift_labels=packed.labels,
                fused_lm_head=True,
                **vision,
            )
        values = [output.log_probs[packed.rows, packed.columns], output.entropy[packed.rows, packed.columns]]
        return [torch.zeros(answered.shape, device=v.device, dtype=v.dtype).masked_scatter(answered, v) for v in values]

    def _positions(self, inner, prompt, image) -> torch.Tensor:
        """M-RoPE positions [3, P] of a prompt."""
        if image is None:
            return torch.arange(len(prompt), device=prompt.device).expand(3, -1)
        is_image = (prompt == self._image_pad_token_id).long()[None]
        return inner.model.get_rope_index(prompt[None], mm_token_type_ids=is_image, image_grid_thw=image[1])[0][:, 0]

    def _vision(self, inner, images) -> dict:
        """The model's keyword for vision features, each group's images run once."""
        there = [image for image in images if image is not None]
        if not there:
            return {}
        pixels, grid = (torch.cat(part) for part in zip(*there, strict=True))
        frozen = not any(parameter.requires_grad for parameter in inner.model.visual.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features = inner.model.get_image_features(pixels, grid, return_dict=True).pooler_output
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=list(features))}}


def _qwen(model):
    """The Qwen2-VL model inside a PEFT wrapper, if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _take(value, rows):
    """Rows of a batch's tensor or list; scalars and missing values stay."""
    if value is None or (isinstance(value, torch.Tensor) and value.ndim == 0):
        return value
    return value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows.tolist()]


def _images_of_groups(pixel_values, grid, counts, rows: int, size: int) -> list:
    """For each group the pixels and grids of its first row's images, or None."""
    if pixel_values is None or grid is None:
        return [None] * (rows // size)
    pixels = torch.split(pixel_values, grid.prod(-1).tolist())
    images, first = [], 0
    for row, count in enumerate(counts):
        if row % size == 0:
            images.append((torch.cat(pixels[first : first + count]), grid[first : first + count]) if count else None)
        first += count
    return images
