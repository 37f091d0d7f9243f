"""`rftkit estimate`: the memory and the time of a run, before it. From shapes and a short measurement: estimates.

What counts is written down term by term, so that a number can be followed and a wrong one mended. Memory is the peak:
what stays (weights, adapters, optimizer, reserve) and the largest of what comes and goes (update or sampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from rftkit.common.errors import OWN_PROFILE, UserError
from rftkit.evaluate import PASS_SAMPLES, evaluated_modes, pass_batch
from rftkit.memory.model_sizes import Shape, shape_named
from rftkit.memory.speed import Speed, measure
from rftkit.models import pick_device
from rftkit.prompts import MODES, question_text
from rftkit.settings import METHODS, Settings, completion_limit, with_steps
from rftkit.shared_prefix.trainer import PAYS_FROM
from rftkit.tasks.example import Example
from rftkit.tasks.images import open_image

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight: 4 bits, an 8-bit scale for 64, an fp32 scale for 256 scales
TILE = (4096, 32768)  # tokens and words of TRL's fused head at once
RESERVE = {"cpu": 0, "cuda": 768 * 2**20}  # bytes: the CUDA context and what the allocator cannot use
TEXT_TOKENS = 16  # of the chat template
CHARACTERS = 3  # a token of a question has at least, about
ANSWER_TOKENS = 8  # of an answer that is learnt, or of a choice that is scored
TYPICAL = {False: 8, True: 200}  # tokens of a completion, without and with tags, if the limit is not reached
OPERATIONS = 200  # small ones in a decoder layer with adapters: each costs a launch
ELEMENTS = (30, 10)  # times the width and the MLP's inner width: what these operations read of a token
MADE_FOR_A_GPU = 10**8  # parameters: models with more
MENDS = ({"gradient_checkpointing": True}, {"quantize": True}, {"micro_batch": 0.5}, {"eval_batch": 0.5},
         {"max_pixels": 0.5}, {"max_completion_tokens": 0.5}, {"lora_rank": 0.5})  # fmt: skip


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest prompt, and of a completion at its limit."""

    prompt: int
    completion: int


def lengths_of(settings: Settings, shape: Shape, examples: Sequence[Example]) -> Lengths:
    """From the run's own examples (one at least); pictures of the largest size the settings allow."""
    examples = examples[:32]
    opened = (open_image(image, item=e.id) for e in examples for image in e.images)
    pixels = max((image.width * image.height for image in opened), default=0)
    patches = -(-(settings.max_pixels or max(pixels, settings.min_pixels or 0)) // shape.token_side**2) * max(
        len(e.images) for e in examples
    )
    method = METHODS[settings.method]
    asked = (question_text(example, method.mode) for example in examples)
    text = max(map(len, asked)) // CHARACTERS + TEXT_TOKENS
    if method.trainer == "sft":
        return Lengths(patches + text, ANSWER_TOKENS)
    modes = [method.mode] if method.trainer else evaluated_modes(method.mode, trained=False)
    return Lengths(patches + text, max(completion_limit(settings, mode) for mode in modes))


def packed_tokens(settings: Settings, lengths: Lengths) -> int:
    """Tokens a group's log-probs run on: shared prompt and completions, or (sharing would not pay) copies of both."""
    size, prompt, completion = settings.num_generations, lengths.prompt, lengths.completion
    apart, packed = size * (prompt + completion), prompt - 1 + size * (completion + 1)
    return packed if _samples_shared(settings) and apart / packed >= PAYS_FROM else apart


def _samples_shared(settings: Settings) -> bool:
    """Whether a prompt is run once for all its completions (`SharedPrefixTrainer`)."""
    return settings.share_prefix and settings.micro_batch % settings.num_generations == 0


def memory(settings: Settings, shape: Shape, lengths: Lengths, device: str) -> dict[str, int]:
    """Bytes by part, and `total`, the peak."""
    method, item = METHODS[settings.method], 4 if device == "cpu" else 2
    kept = shape.total - (shape.projections if settings.quantize else 0)
    trained = shape.lora * settings.lora_rank if settings.lora_rank else shape.total
    in_full = bool(method.trainer) and not settings.lora_rank
    parts = {
        "weights": kept * (4 if in_full else item) + shape.projections * NF4_BYTES * settings.quantize,
        "adapters": trained * 4 if settings.lora_rank else 0,
        # With adapters the reference is the base itself; without them TRL loads it again.
        "reference": shape.total * item * (not settings.lora_rank and _has_reference(settings)),
        "optimizer": trained * 4 * 3 if method.trainer else 0,  # gradient and AdamW's two moments, in fp32 like these
        "activations": _activations(settings, shape, lengths, item) if method.trainer else 0,
        "cache": _cached_tokens(settings, lengths) * shape.depth * 2 * shape.kv_width * item,
        "reserve": RESERVE[device],
    }
    tile = min(TILE[0], _update_tokens(settings, lengths)) * min(TILE[1], shape.vocabulary)
    update_logits = tile * (item + 8) if method.trainer else 0
    sampling_logits = 3 * _completions(settings) * shape.vocabulary * 4  # logits, probabilities, one copy, fp32
    parts["logits"] = max(update_logits, sampling_logits)
    stays = parts["weights"] + parts["reference"] + parts["adapters"] + parts["optimizer"] + parts["reserve"]
    peak = stays + max(parts["activations"] + update_logits, parts["cache"] + sampling_logits)
    return {name: int(size) for name, size in (parts | {"total": peak}).items()}


def _has_reference(settings: Settings) -> bool:
    """Whether training compares with the untrained model: GRPO with a KL term, DPO."""
    return bool(settings.rejected) or (settings.beta > 0 and METHODS[settings.method].trainer == "grpo")


def _answers(settings: Settings) -> int:
    """Sequences of an example in SFT: its answer; in DPO the wrong one too."""
    return 2 if settings.rejected else 1


def _update_tokens(settings: Settings, lengths: Lengths) -> int:
    """Tokens of a micro-batch in training."""
    if METHODS[settings.method].trainer == "sft":
        examples = min(settings.micro_batch, settings.sft_batch)
        return examples * _answers(settings) * (lengths.prompt + lengths.completion)
    rollouts = min(settings.micro_batch, settings.prompts_per_step * settings.num_generations)
    return max(1, rollouts // settings.num_generations) * packed_tokens(settings, lengths)


def _sampled_together(settings: Settings) -> list[tuple[int, int]]:
    """Prompts and their completions in memory at once: a step's rollouts, answers in evaluation, pass@8."""
    grpo, batch = METHODS[settings.method].trainer == "grpo", settings.eval_batch
    rollouts = settings.prompts_per_step * settings.num_generations if grpo else 0
    prompts = rollouts // settings.num_generations if _samples_shared(settings) else rollouts
    passed = pass_batch(batch) if settings.pass_items else 0
    return [(prompts, rollouts), (batch, batch), (passed, passed * PASS_SAMPLES)]


def _completions(settings: Settings) -> int:
    """The most completions that are sampled at once."""
    return max(completions for _, completions in _sampled_together(settings))


def _cached_tokens(settings: Settings, lengths: Lengths) -> int:
    """The most tokens whose keys and values are kept at once: a prompt's once for all its completions."""
    return max(n * lengths.prompt + copies * lengths.completion for n, copies in _sampled_together(settings))


def _activations(settings: Settings, shape: Shape, lengths: Lengths, item: int) -> int:
    """What the decoder layers keep for the backward pass, and one layer's share again while it runs.

    Of a token and layer, as counted from autograd's saved tensors: 8.5 widths (fp32) or 15 (under autocast, where
    norms keep fp32 and each adapter a copy of its input), and four of the MLP's inner width.
    """
    tokens = _update_tokens(settings, lengths)
    layer = tokens * ((8.5 if item == 4 else 15) * shape.width + 4 * shape.inner) * item
    if settings.gradient_checkpointing:  # the input of each layer, and one layer anew
        return int(shape.depth * tokens * shape.width * item + 2 * layer)
    return int((shape.depth + 1) * layer)


def seconds(
    settings: Settings, shape: Shape, lengths: Lengths, speed: Speed, examples: Sequence[Example]
) -> dict[str, float]:
    """Seconds of a training step, of training and of the evaluation."""
    method = METHODS[settings.method]
    launches = shape.depth * OPERATIONS * speed.a_launch
    small = shape.depth * (ELEMENTS[0] * shape.width + ELEMENTS[1] * shape.inner) * speed.an_element  # a token
    vision = shape.vision * 4 * speed.a_row * lengths.prompt  # at most: as if a prompt were all image tokens
    prefill = lengths.prompt * (shape.projections * speed.a_row + small) + shape.head * speed.a_row + vision
    decode = lengths.completion * ((shape.projections + shape.head) * speed.a_decoding + launches)
    step = 0.0
    if method.trainer:
        passes = 2 + settings.gradient_checkpointing + _has_reference(settings)
        passes += not settings.lora_rank  # gradients of the weights themselves
        grpo = method.trainer == "grpo"
        groups = settings.prompts_per_step if grpo else settings.sft_batch
        apart = _answers(settings) * (lengths.prompt + lengths.completion)
        tokens = groups * (packed_tokens(settings, lengths) if grpo else apart)
        attention = tokens / groups / 2 * shape.width * 4 / 2 * shape.depth  # in weights that cost as much, a token
        micro_batches = max(1, tokens // _update_tokens(settings, lengths))
        a_token = (shape.projections + shape.head + attention) * speed.a_row + small
        step = passes * (tokens * a_token + micro_batches * launches)
        step += groups * prefill + decode if grpo else groups * vision
    # As `rftkit.run.evaluate_run` does it, for each part: greedy in every mode, pass@8 in the own one or in all of an
    # untrained model, and each choice's likelihood once, one batch of choices after the other.
    modes = evaluated_modes(method.mode, trained=bool(method.trainer))
    items, passed = settings.test_items, min(settings.pass_items, settings.test_items)
    batches, pass_batches = -(-items // settings.eval_batch), -(-passed // pass_batch(settings.eval_batch))
    evaluation = len(modes) * (items * prefill + batches * decode)
    evaluation += (1 if method.trainer else len(modes)) * (passed * prefill + pass_batches * decode)
    if all(example.choices for example in examples):
        an_answer = ANSWER_TOKENS * ((shape.projections + shape.head) * speed.a_row + small)
        evaluation += max(len(example.choices) for example in examples) * (items * an_answer + batches * launches)
    evaluation *= len(settings.test_set.parts(settings.protocol))
    return {"step": step, "training": step * settings.steps * bool(method.trainer), "evaluation": evaluation}


def free_memory(device: str) -> int | None:
    """Bytes a run could have on the device now; None if there is no such device here."""
    if device == "cpu":
        return psutil.virtual_memory().available
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None


def mends(settings: Settings, shape: Shape, examples: Sequence[Example], device: str) -> list[str]:
    """The three settings that would lower the peak most, as `name: value`, best first."""

    def peak(settings: Settings) -> int:
        return memory(settings, shape, lengths_of(settings, shape, examples), device)["total"]

    now, found = peak(settings), []
    for change in MENDS:
        ((name, factor),) = change.items()
        value = factor if factor is True else int((getattr(settings, name) or 0) * factor)
        if name == "micro_batch":
            value = _smaller_micro_batch(settings)
        if not value or value == getattr(settings, name) or (name == "quantize" and not settings.lora_rank):
            continue
        changes = {name: value}
        if name == "max_pixels" and (settings.min_pixels or 0) > value:
            changes["min_pixels"] = value
        text = ", ".join(f"{key}: {str(new).lower()}" for key, new in changes.items())
        found.append((now - peak(replace(settings, **changes)), text))
    return [text for less, text in sorted(found, reverse=True) if less > now / 100][:3]


def _smaller_micro_batch(settings: Settings) -> int:
    """The largest micro-batch that divides a step's sequences and has at most half of the present one's; 0: none."""
    grpo = METHODS[settings.method].trainer == "grpo"
    total = settings.prompts_per_step * settings.num_generations if grpo else settings.sft_batch
    least = settings.num_generations if grpo else 1  # whole groups, or prompts cannot be shared
    sizes = range(least, min(settings.micro_batch, total) // 2 + 1, least)
    return max((size for size in sizes if total % size == 0), default=0)


def advice(settings: Settings, examples: Sequence[Example], evaluating: bool) -> str:
    """What to do after a run was out of memory: for the evaluation a smaller batch, for training `mends`."""
    if evaluating and settings.eval_batch > 1:
        return to_need_less([f"eval_batch: {settings.eval_batch // 2}"])
    training = replace(settings, eval_batch=1, pass_items=0)
    return to_need_less(mends(training, shape_named(settings.model), examples, settings.device or pick_device()))


def to_need_less(changes: list[str]) -> str:
    """What to do with `mends`, for people."""
    return f"set {', '.join(changes)} in {OWN_PROFILE}" if changes else "take a smaller model"


def estimate(settings: Settings, examples: Sequence[Example], with_time: bool = True) -> dict[str, Any]:
    """What `rftkit estimate --json` prints. Bytes and seconds; `time` is None where the device is not at hand.

    Args:
        examples: what the run is trained on; the longest prompt is looked for among the first of them.
    """
    settings, device = with_steps(settings, len(examples)), settings.device or pick_device()
    shape = shape_named(settings.model)
    lengths, free = lengths_of(settings, shape, examples), free_memory(device)
    parts = memory(settings, shape, lengths, device)
    times = None
    if with_time and free is not None:
        speed = measure(shape.width, shape.inner, _completions(settings), settings.quantize, device)
        usual = TYPICAL[bool(MODES[METHODS[settings.method].mode].tags)]
        usual = replace(lengths, completion=min(usual, lengths.completion))
        times = {
            "at_limit": seconds(settings, shape, lengths, speed, examples),
            "typical": seconds(settings, shape, usual, speed, examples),
        }
    return {
        "estimate": True, "profile": settings.profile, "method": settings.method, "dataset": settings.dataset,
        "model": settings.model, "device": device, "parameters": shape.total, "tokens": vars(lengths),
        "steps": settings.steps, "memory": parts, "free": free,
        "fits": None if free is None else parts["total"] <= free,
        "mends": mends(settings, shape, examples, device), "time": times,
    }  # fmt: skip


def refuse_what_will_not_fit(settings: Settings, examples: Sequence[Example]) -> None:
    """UserError if the estimate exceeds the GPU's free memory. On a CPU nothing is refused: it may swap."""
    device = settings.device or pick_device()
    if device != "cuda" or not settings.check_memory:
        return
    found = estimate(settings, examples, with_time=False)
    if found["fits"] is False:
        raise UserError(
            f"this run needs about {found['memory']['total'] / 2**30:.1f} GiB of GPU memory (estimated) and "
            f"{found['free'] / 2**30:.1f} GiB are free: {to_need_less(found['mends'])}, or try with --no-memory-check"
        )


def as_text(found: dict[str, Any]) -> str:
    """The estimate for people."""
    lines = [f"{found['profile']}, {found['method']} on {found['dataset']}, {found['model']} "
             f"({found['parameters'] / 1e9:.2f} B parameters), {found['device']}: all estimates, nothing was run",
             "longest prompt {prompt} tokens, completion up to {completion}".format(**found["tokens"])]  # fmt: skip
    lines += [f"  {name:<12}{size / 2**30:>8.2f} GiB" for name, size in found["memory"].items()]
    device = "CPU" if found["device"] == "cpu" else "GPU"
    if found["free"] is None:
        lines.append(f"there is no {device} here: memory as it would be on one, no time")
    else:
        verdict = "fits" if found["fits"] else "does not fit"
        lines.append(f"on this machine's {device} it {verdict}: {found['free'] / 2**30:.1f} GiB are free")
    if device == "CPU" and found["parameters"] > MADE_FOR_A_GPU:
        lines.append("on a GPU, which such a model is for: --device cuda")
    if found["mends"]:
        lines.append(f"to need less, {to_need_less(found['mends'])}")
    for name, times in (found["time"] or {}).items():
        lines.append(f"{name.replace('_', ' '):<8} {times['step']:.3g} s a step, {_duration(times['training'])} for "
                     f"{found['steps']} steps, {_duration(times['evaluation'])} to evaluate")  # fmt: skip
    return "\n".join(lines)


def _duration(value: float) -> str:
    return f"{value / 3600:.1f} h" if value >= 5400 else f"{value / 60:.1f} min" if value >= 90 else f"{value:.0f} s"
