"""GRPO with the prompt and the image computed once per group, same numbers as stock TRL.

The G completions of a group share one prompt. Stock TRL runs the vision tower and the prompt G times when sampling
and G times again in every log-prob pass. Here:

- *Sampling* runs, keeps and reads a group's prompt once (`generation.py`).
- *Log-probs* come from one packed sequence a group: the prompt without its last token, then each completion behind
  its own copy of that last token. A mask lets a completion see the prompt and itself only, and its positions go on
  where the prompt ended:

      prompt   p0 p1 p2 | p3 a0 a1 | p3 b0 b1 b2       token
      position  0  1  2 |  3  4  5 |  3  4  5  6
      predicts  -  -  - | a0 a1  - | b0 b1 b2  -

  The copy of the last prompt token gives every packed token at most one label, as TRL's fused head wants it.
- *Vision* runs once per distinct image while the tower is frozen (`vision.py`), decoding and preprocessing too.
- *Groups that teach nothing* (all advantages zero, beta zero) have a zero gradient: they are run without one, for the
  logged entropy.

Groups are told apart by row number, never by equal token ids: two pictures of one size with the same question have
the same ids. Everything else (rewards, advantages, losses, importance levels) is TRL's.

"The same numbers" means: in fp32, with the same seed, the same completions, rewards, advantages, losses and gradient
norms, and weights within 1e-6 after some steps of SGD. `tests/test_trl_suite.py` compares them option by option, and
`proved.py` says what is left to stock TRL. Two things are not in it. LoRA in fp32 is merged while sampling, which
rounds otherwise. And where a step has several micro-batches, each holds whole groups. So the logged means of KL and
clipping are over other micro-batches than stock TRL's; that of the entropy is made over stock TRL's own.
"""

from __future__ import annotations

import logging

import datasets
import torch
from torch.nn.utils.rnn import pad_sequence
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from rftkit.shared_prefix.exact_resume import ExactResumeTrainer
from rftkit.shared_prefix.generation import generate_forked, has_three_positions
from rftkit.shared_prefix.merged_adapter import merged
from rftkit.shared_prefix.packing import pack
from rftkit.shared_prefix.proved import why_not
from rftkit.shared_prefix.trl_patches import labelled_positions_only
from rftkit.shared_prefix.vision import FEATURES, unwrapped, with_features

logger = logging.getLogger(__name__)
PAYS_FROM = 1.3  # share a prefix if it saves at least this factor of language tokens


class SharedPrefixTrainer(ExactResumeTrainer):
    """trl.GRPOTrainer that computes each prompt and image once per group."""

    _teaching = None  # while a loss is computed: which groups have an advantage that is not zero

    def __init__(self, *args, share_prefix: bool = True, **kwargs) -> None:
        """The arguments of GRPOTrainer; `share_prefix` off is stock TRL."""
        self._said: set[str] = set()
        super().__init__(*args, **kwargs)
        self._cannot_share = why_not(self) if share_prefix else "it is switched off"
        self._falls_back(self._cannot_share)

    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    def _samples_whole_groups(self, prompts: list) -> bool:
        """Whether these are the prompts of whole groups, which share them. A `rollout_func` may hand over any."""
        size = self._group_size()
        return not (self._cannot_share or self.rollout_func or size == 1 or len(prompts) % size)

    def _falls_back(self, reason: str) -> bool:
        """Whether to leave the work to stock TRL, said once for each reason."""
        if reason and reason not in self._said:
            self._said.add(reason)
            logger.warning("prompts are computed once per completion, as in stock TRL: %s", reason)
        return bool(reason)

    def _prepare_inputs(self, generation_batch):
        # As in TRL, but whole groups are shuffled, so that a group stays in one micro-batch.
        if not self.model.training or self._cannot_share:
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            size = self.num_generations
            # One draw for each sample, as TRL does: the same seed then gives the same random numbers afterwards.
            order = torch.randperm(len(batch["prompt_ids"]))
            groups = torch.tensor(list(dict.fromkeys((order // size).tolist())))
            rows = _rows_of(groups, size)
            batch = {name: _take(value, rows) for name, value in batch.items()}
            self._orders = order.view(steps, -1), rows.view(steps, -1)  # the rows of each micro-batch, TRL's and ours
            self._entropy_sums = torch.zeros(len(order), 2, device=self.accelerator.device)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(batch, steps)]
        return self._buffered_inputs[self._step % steps]

    def _generate_and_score_completions(self, inputs):
        # Images may come as files in memory (`datasets.Image(decode=False)`): each is decoded once for its group.
        decode, seen = datasets.Image().decode_example, {}
        for row in inputs:
            for place, image in enumerate(row.get("images") or []):
                if isinstance(image, dict):
                    key = image["bytes"] or image["path"]
                    if key not in seen:
                        seen[key] = decode(image)
                    row["images"][place] = seen[key]
        return super()._generate_and_score_completions(inputs)

    def _tokenize_prompts(self, prompts):
        # A group's prompts are equal: render, tokenize and preprocess the first and repeat it.
        if not self._samples_whole_groups(prompts):
            return super()._tokenize_prompts(prompts)
        size = self._group_size()
        ids, images, fields = super()._tokenize_prompts(prompts[::size])
        repeated = [row for row in ids for _ in range(size)]
        images = None if images is None else [row for row in images for _ in range(size)]
        return repeated, images, fields

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        if not self._samples_whole_groups(prompt_ids):
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        size = self._group_size()
        device, pad = self.accelerator.device, self._tokenizer.pad_token_id
        rows = [torch.tensor(ids, device=device) for ids in prompt_ids[::size]]
        ids = pad_sequence(rows, True, pad, padding_side="left")  # [N, P]
        mask = pad_sequence([torch.ones_like(row) for row in rows], True, 0, padding_side="left")
        pixels, grid = (multimodal_fields.get(name) for name in ("pixel_values", "image_grid_thw"))
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            merged(model),
        ):
            vision = {}
            if pixels is not None:
                vision = with_features(model, {
                    "pixel_values": torch.as_tensor(pixels).to(device),
                    "image_grid_thw": torch.as_tensor(grid).to(device),
                    "mm_token_type_ids": (ids == self._image_pad_token_id).long(),
                })  # fmt: skip
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
        reason = self._cannot_share
        if not reason and (len(input_ids) % size or saving < PAYS_FROM):
            reason = "for completions as long as these, sharing would save too little"
        if not reason and self.rollout_func and not _all_equal(input_ids[:, :prompt_width], size):
            reason = "the prompts of a group differ"
        if self._falls_back(reason):
            found = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss,
                pixel_values=pixel_values, image_grid_thw=image_grid_thw, num_images=num_images, **others,
            )  # fmt: skip
        else:
            images = _images_of_groups(pixel_values, image_grid_thw, num_images, len(input_ids), size)
            most = max(1, (batch_size or len(input_ids)) // size)
            found = *self._logps(model, input_ids, attention_mask, prompt_width, images, most, compute_entropy), None
        if compute_entropy:
            self._entropy_sum = torch.stack([found[1].detach().sum(1), attention_mask[:, prompt_width:].sum(1)], 1)
        return found

    def _logps(self, model, input_ids, attention_mask, prompt_width, images, most: int, compute_entropy):
        """Log-probs and entropies [B, C] of whole groups with these images each, `most` groups at once."""
        size, every = self._group_size(), torch.arange(len(images), device=input_ids.device)
        teaches = torch.ones_like(every, dtype=torch.bool) if self._teaching is None else self._teaching
        logps = entropies = torch.zeros_like(input_ids[:, prompt_width:], dtype=torch.float32)
        for groups, learns in ((every[teaches], torch.is_grad_enabled()), (every[~teaches], False)):
            for part in groups.split(most) if len(groups) else ():
                rows, own = _rows_of(part, size), [images[group] for group in part.tolist()]
                with torch.set_grad_enabled(learns):
                    found = self._group_logps(model, input_ids[rows], attention_mask[rows], prompt_width, size, own)
                logps = logps.index_copy(0, rows, found[0])
                entropies = entropies.index_copy(0, rows, found[1]) if compute_entropy else None
        return logps, entropies

    def _compute_loss(self, model, inputs):
        if self._cannot_share or not self.model.training:
            return super()._compute_loss(model, inputs)
        loss = self._loss(model, inputs)
        self._log_entropy()
        return loss

    def _log_entropy(self) -> None:
        """Have the mean entropies of TRL's micro-batches logged, which hold other rows than ours."""
        stocks, ours = self._orders
        place = self._step % len(ours)
        self._entropy_sums[ours[place]] = self._entropy_sum
        if place == len(ours) - 1:
            total, tokens = self.accelerator.reduce(self._entropy_sums[stocks].sum(1), reduction="sum").unbind(1)
            self._metrics["train"]["entropy"][-len(ours) :] = (total / tokens.clamp(min=1)).tolist()

    def _loss(self, model, inputs):
        # A group whose advantages are all zero has no gradient, if nothing but the advantages makes the loss.
        plain = self.beta == 0 and self.top_entropy_quantile == 1.0 and not self._entropy_bonus_enabled
        on_policy = inputs.get("old_per_token_logps") is None
        if not (plain and on_policy):
            return super()._compute_loss(model, inputs)
        self._teaching = (inputs["advantages"].reshape(-1, self.num_generations) != 0).any(1)
        self._teaching[0] |= not self._teaching.any()  # weights get their zero gradient
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._teaching = None

    def _group_logps(self, model, input_ids, attention_mask, prompt_width, size, images):
        """Log-probs and entropies [B, C] of the completions of B / G whole groups."""
        prompts = [row[seen] for row, seen in zip(input_ids[::size, :prompt_width],
                   attention_mask[::size, :prompt_width].bool(), strict=True)]  # fmt: skip
        answered = attention_mask[:, prompt_width:].bool()  # [B, C]
        completions = [row[seen] for row, seen in zip(input_ids[:, prompt_width:], answered, strict=True)]
        groups = [completions[start : start + size] for start in range(0, len(completions), size)]
        inner = unwrapped(self.accelerator.unwrap_model(model))
        positions = [self._positions(inner, prompt, image) for prompt, image in zip(prompts, images, strict=True)]
        packed = pack(prompts, positions, groups)
        there = [image for image in images if image is not None]
        with self.accelerator.autocast(), labelled_positions_only():
            vision = FEATURES(inner, *map(torch.cat, zip(*there, strict=True))) if there else {}
            output = model(
                input_ids=packed.ids,
                attention_mask=packed.mask,
                position_ids=packed.positions.squeeze(0),  # [N, L] where a token has one
                shift_labels=packed.labels,
                fused_lm_head=True,
                **vision,
            )
        fields = [output.log_probs] + ([] if output.entropy is None else [output.entropy])
        values = [field[packed.rows, packed.columns] for field in fields]
        return [torch.zeros(answered.shape, device=v.device, dtype=v.dtype).masked_scatter(answered, v) for v in values]

    def _positions(self, inner, prompt, image) -> torch.Tensor:
        """Positions [3, P] (M-RoPE) or [1, P] of a prompt."""
        three = has_three_positions(inner.model)
        if image is None:
            return torch.arange(len(prompt), device=prompt.device).expand(3 if three else 1, -1)
        is_image = (prompt == self._image_pad_token_id).long()[None]
        return inner.model.get_rope_index(prompt[None], mm_token_type_ids=is_image, image_grid_thw=image[1])[0][:, 0]


def _rows_of(groups: torch.Tensor, size: int) -> torch.Tensor:
    """The rows of a batch that hold the completions of these groups."""
    return (groups[:, None] * size + torch.arange(size, device=groups.device)).flatten()


def _all_equal(prompts: torch.Tensor, size: int) -> bool:
    """Whether the prompts [B, P] of each group are the same tokens."""
    groups = prompts.unflatten(0, (-1, size))
    return bool((groups == groups[:, :1]).all())


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
