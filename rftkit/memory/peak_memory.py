"""The memory of a run, before it: from the shapes of its model and the lengths of its texts, by hand.

What counts is written down term by term, so that a number can be followed and a wrong one fixed. Memory is the peak:
what stays (weights, adapters, optimizer, reserve) and the largest of what comes and goes (update or sampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from rftkit.common.errors import UserError
from rftkit.evaluate import PASS_SAMPLES, evaluated_modes, pass_batch
from rftkit.memory.model_sizes import Shape, shape_named
from rftkit.models import pick_device
from rftkit.prompts import question_text
from rftkit.settings import METHODS, Settings, completion_limit, with_steps
from rftkit.shared_prefix.proved import why_not_these
from rftkit.shared_prefix.sharing import PAYS_FROM
from rftkit.tasks.example import Example
from rftkit.tasks.images import pixels_of

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight: 4 bits, an 8-bit scale for 64, an fp32 scale for 256 scales
TILE_TOKENS, TILE_WORDS = 4096, 32768  # TRL's fused head computes the logits of so many at once
RESERVE = {"cpu": 0, "cuda": 768 * 2**20}  # bytes: the CUDA context and what the allocator cannot use
TEXT_TOKENS = 16  # of the chat template
CHARACTERS = 3  # a token of a question has at least, about
ANSWER_TOKENS = 8  # of an answer that is learnt


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest prompt, and of a completion at its limit."""

    prompt: int
    completion: int


@dataclass(frozen=True)
class Estimate:
    """What a run needs of a device's memory."""

    device: str
    parameters: int
    tokens: Lengths
    memory: dict[str, int]  # bytes by part, and `total`, the peak
    free: int | None  # bytes; None: there is no such device here
    fits: bool | None
    fixes: list[str]  # see `fixes`


def estimate(settings: Settings, examples: Sequence[Example]) -> Estimate:
    """The memory of a run.

    Args:
        examples: what the run is trained on; the longest prompt is looked for among the first of them.
    """
    settings = with_steps(settings, len(examples))
    device = settings.device or pick_device()
    shape = shape_named(settings.model)
    lengths = lengths_of(settings, shape, examples)
    parts = memory(settings, shape, lengths, device)
    free = free_memory(device)
    return Estimate(
        device=device,
        parameters=shape.total,
        tokens=lengths,
        memory=parts,
        free=free,
        fits=None if free is None else parts["total"] <= free,
        fixes=fixes(settings, shape, examples, device),
    )


def free_memory(device: str) -> int | None:
    """Bytes a run could have on the device now; None if there is no such device here."""
    if device == "cpu":
        return psutil.virtual_memory().available
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None


def lengths_of(settings: Settings, shape: Shape, examples: Sequence[Example]) -> Lengths:
    """From the run's own examples (one at least); pictures of the largest size the settings allow."""
    examples = examples[:32]
    sizes = (pixels_of(image, item=example.id) for example in examples for image in example.images)
    pixels = max(sizes, default=0)
    pixels = settings.max_pixels or max(pixels, settings.min_pixels or 0)
    image_tokens = -(-pixels // shape.token_side**2) * max(len(example.images) for example in examples)
    method = METHODS[settings.method]
    longest = max(len(question_text(example, method.mode)) for example in examples)
    prompt = image_tokens + longest // CHARACTERS + TEXT_TOKENS
    if method.trainer == "sft":
        return Lengths(prompt, ANSWER_TOKENS)
    modes = [method.mode] if method.trainer else evaluated_modes(method.mode, trained=False)
    return Lengths(prompt, max(completion_limit(settings, mode) for mode in modes))


def memory(settings: Settings, shape: Shape, lengths: Lengths, device: str) -> dict[str, int]:
    """Bytes by part, and `total`, the peak."""
    trainer = METHODS[settings.method].trainer
    trains = trainer is not None
    has_reference = settings.rejected or (trainer == "grpo" and settings.beta > 0)  # DPO, or a KL term
    together = _sampled_together(settings)
    # The most tokens whose keys and values are held at once: a prompt's once for all its completions.
    cached = max(prompts * lengths.prompt + copies * lengths.completion for prompts, copies in together)
    item = 4 if device == "cpu" else 2  # bytes of a number: fp32 on a CPU, bf16 on a GPU
    unquantized = shape.total - (shape.projections if settings.quantize else 0)
    trained = shape.lora * settings.lora_rank if settings.lora_rank else shape.total
    all_weights = trains and not settings.lora_rank  # which are then held in fp32
    parts = {
        "weights": unquantized * (4 if all_weights else item) + shape.projections * NF4_BYTES * settings.quantize,
        "adapters": trained * 4 if settings.lora_rank else 0,
        # With adapters the reference is the base itself; without them TRL loads it again.
        "reference": shape.total * item if has_reference and not settings.lora_rank else 0,
        "optimizer": trained * 4 * 3 if trains else 0,  # gradient and AdamW's two moments, in fp32 like these
        "activations": _activations(settings, shape, lengths, item) if trains else 0,
        "cache": cached * shape.depth * 2 * shape.kv_width * item,
        "reserve": RESERVE[device],
    }
    tile = min(TILE_TOKENS, _update_tokens(settings, lengths)) * min(TILE_WORDS, shape.vocabulary)
    update_logits = tile * (item + 8) if trains else 0
    sampled = max(completions for _, completions in together)
    sampling_logits = 3 * sampled * shape.vocabulary * 4  # logits, probabilities, one copy, fp32
    parts["logits"] = max(update_logits, sampling_logits)
    stays = sum(parts[name] for name in ("weights", "reference", "adapters", "optimizer", "reserve"))
    peak = stays + max(parts["activations"] + update_logits, parts["cache"] + sampling_logits)
    return {name: int(size) for name, size in (parts | {"total": peak}).items()}


def _activations(settings: Settings, shape: Shape, lengths: Lengths, item: int) -> int:
    """What the decoder layers keep for the backward pass, and one layer's share again while it runs."""
    tokens = _update_tokens(settings, lengths)
    layer = tokens * kept_by_a_layer(shape, item)
    if settings.gradient_checkpointing:  # the input of each layer, and one layer anew
        return int(shape.depth * tokens * shape.width * item + 2 * layer)
    return int((shape.depth + 1) * layer)


def kept_by_a_layer(shape: Shape, item: int) -> float:
    """Bytes that a layer keeps of a token, as counted from autograd's saved tensors.

    Under autocast (`item` 2) norms keep fp32 and each adapter a copy of its input.
    """
    states, queries, normed = (4.5, 4, 1) if item == 4 else (10, 5, 2.2)
    widths = states * shape.width + queries * shape.query_width + normed * shape.normed + 4 * shape.inner
    return widths * item


def _update_tokens(settings: Settings, lengths: Lengths) -> int:
    """Tokens of a micro-batch in training."""
    if METHODS[settings.method].trainer == "sft":
        sequences = 2 if settings.rejected else 1  # an example's answer; in DPO the wrong one too
        return min(settings.micro_batch, settings.sft_batch) * sequences * (lengths.prompt + lengths.completion)
    rollouts = min(settings.micro_batch, settings.prompts_per_step * settings.num_generations)
    return max(1, rollouts // settings.num_generations) * packed_tokens(settings, lengths)


def packed_tokens(settings: Settings, lengths: Lengths) -> int:
    """Tokens a group's log-probs run on: shared prompt and completions, or (sharing would not pay) copies of both."""
    size = settings.num_generations
    apart = size * (lengths.prompt + lengths.completion)
    packed = lengths.prompt - 1 + size * (lengths.completion + 1)
    return packed if _shares_prompts(settings) and apart / packed >= PAYS_FROM else apart


def _shares_prompts(settings: Settings) -> bool:
    """Whether a prompt is run once for all its completions (`SharedPrefixTrainer`)."""
    size, rollouts = settings.num_generations, settings.prompts_per_step * settings.num_generations
    micro_batch = min(settings.micro_batch, rollouts)
    return settings.share_prefix and not why_not_these(micro_batch, size, rollouts // micro_batch, settings.loss_type)


def _sampled_together(settings: Settings) -> list[tuple[int, int]]:
    """Prompts and their completions in memory at once: a step's rollouts, answers in evaluation, pass@8."""
    batch = settings.eval_batch
    passed = pass_batch(batch) if settings.pass_items else 0
    together = [(batch, batch), (passed, passed * PASS_SAMPLES)]
    if METHODS[settings.method].trainer == "grpo":
        rollouts = settings.prompts_per_step * settings.num_generations
        together.append((settings.prompts_per_step if _shares_prompts(settings) else rollouts, rollouts))
    return together


def fixes(settings: Settings, shape: Shape, examples: Sequence[Example], device: str) -> list[str]:
    """The three settings that would lower the peak most, as flags of `rftkit run`, best first."""

    def peak(settings: Settings) -> int:
        return memory(settings, shape, lengths_of(settings, shape, examples), device)["total"]

    now = peak(settings)
    found = []
    for change in _smaller(settings):
        flags = [f"--{name.replace('_', '-')}" + (f" {n}" if n is not True else "") for name, n in change.items()]
        found.append((now - peak(replace(settings, **change)), " ".join(flags)))
    return [text for less, text in sorted(found, reverse=True) if less > now / 100][:3]


def _smaller(settings: Settings) -> list[dict[str, Any]]:
    """Changes of a setting or two that may need less memory: numbers halved, what is off switched on."""
    changes = [{name: getattr(settings, name) // 2} for name in ("eval_batch", "max_completion_tokens", "lora_rank")]
    changes.append({"micro_batch": _smaller_micro_batch(settings)})
    pixels = (settings.max_pixels or 0) // 2
    also = {"min_pixels": pixels} if (settings.min_pixels or 0) > pixels else {}
    changes.append({"max_pixels": pixels} | also)
    if not settings.gradient_checkpointing:
        changes.append({"gradient_checkpointing": True})
    if settings.lora_rank and not settings.quantize:
        changes.append({"quantize": True})
    return [change for change in changes if all(change.values())]  # a zero: no smaller value


def _smaller_micro_batch(settings: Settings) -> int:
    """The largest micro-batch that divides a step's sequences and has at most half of the present one's; 0: none."""
    grpo = METHODS[settings.method].trainer == "grpo"
    total = settings.prompts_per_step * settings.num_generations if grpo else settings.sft_batch
    least = settings.num_generations if grpo else 1  # whole groups, or prompts cannot be shared
    sizes = range(least, min(settings.micro_batch, total) // 2 + 1, least)
    return max((size for size in sizes if total % size == 0), default=0)


def advice(settings: Settings, examples: Sequence[Example], evaluating: bool) -> str:
    """What to do after a run was out of memory: for the evaluation a smaller batch, for training `fixes`."""
    if evaluating and settings.eval_batch > 1:
        return to_need_less([f"--eval-batch {settings.eval_batch // 2}"])
    training = replace(settings, eval_batch=1, pass_items=0)
    return to_need_less(fixes(training, shape_named(settings.model), examples, settings.device or pick_device()))


def to_need_less(changes: list[str]) -> str:
    """What to do with `fixes`, for people."""
    if not changes:
        return "take a smaller model"
    return f"give {', '.join(changes)} (or set it in a profile, see 'Out of memory' in notebooks/GPU.md)"


def refuse_what_will_not_fit(settings: Settings, examples: Sequence[Example]) -> None:
    """UserError if the estimate exceeds the GPU's free memory. On a CPU nothing is refused: it may swap."""
    device = settings.device or pick_device()
    if device != "cuda" or not settings.check_memory:
        return
    found = estimate(settings, examples)
    if found.fits is False:
        raise UserError(
            f"this run needs about {found.memory['total'] / 2**30:.1f} GiB of GPU memory (estimated) and "
            f"{found.free / 2**30:.1f} GiB are free: {to_need_less(found.fixes)}, or try with --no-memory-check"
        )
