"""Evaluation: what a model answers, what it knows whatever it says, and what it says now and then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

from rftkit.errors import UserError
from rftkit.models import load
from rftkit.prompts import conversation, get_mode
from rftkit.rewards import get_rule, score
from rftkit.shared_prefix import generate_forked
from rftkit.stats import wilson
from rftkit.tasks import Example
from rftkit.tasks.classification import read_splits
from rftkit.tasks.sources import open_image
from rftkit.vision import with_features

PASS_SAMPLES = 8


def encode(processor: ProcessorMixin, examples: Sequence[Example], mode: str, max_pixels: int | None = None):
    """A batch of prompts, left-padded, ready for `model.generate`."""
    texts = [processor.apply_chat_template(conversation(e, mode), add_generation_prompt=True) for e in examples]
    images = [[open_image(image, max_pixels, e.id) for image in e.images] for e in examples]
    return processor(
        text=texts,
        images=images if any(images) else None,
        padding=True,
        padding_side="left",
        add_special_tokens=False,
        return_tensors="pt",
    )


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    examples: Sequence[Example],
    mode: str,
    *,
    max_tokens: int,
    samples: int = 0,
    temperature: float = 1.0,
    batch_size: int = 64,
    max_pixels: int | None = None,
    progress: str | None = None,
) -> tuple[list[list[str]], list[list[int]]]:
    """Completions of each example and their lengths in tokens: one greedy completion, or `samples` drawn ones.

    The sampling settings of a checkpoint's own generation config are not used: they differ between checkpoints.
    """
    ends = model.generation_config.eos_token_id
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=samples > 0,
        eos_token_id=ends,
        pad_token_id=processor.tokenizer.pad_token_id,
        **({"temperature": temperature, "top_k": 0, "top_p": 1.0} if samples else {}),
    )
    ends = torch.tensor(ends if isinstance(ends, list) else [ends])
    per, texts, lengths = max(samples, 1), [], []
    was_training = model.training
    model.eval()
    for start in _batches(len(examples), batch_size, progress):
        batch = encode(processor, examples[start : start + batch_size], mode, max_pixels).to(model.device)
        ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
        full = generate_forked(model, ids, mask, with_features(model, batch), per, config)
        width = ids.shape[1]
        ids = full[:, width:].cpu()  # [B * samples, T]
        ended = torch.isin(ids, ends).int().cumsum(1)
        counts = ((ended == 0) | ((ended == 1) & torch.isin(ids, ends))).sum(1).tolist()
        decoded = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        texts += [decoded[i : i + per] for i in range(0, len(decoded), per)]
        lengths += [counts[i : i + per] for i in range(0, len(counts), per)]
    model.train(was_training)
    return texts, lengths


@torch.no_grad()
def likelihood_choices(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
    max_pixels: int | None = None,
    progress: str | None = None,
) -> list[str]:
    """The choice each example's model finds likeliest as a direct answer, whatever it would say by itself.

    Scored by the log-probability of the whole choice and the end token after the no-thinking prompt. A batch's
    prompts are run once; the choices follow one after the other on the same cache.
    """
    tokenizer, end = processor.tokenizer, processor.tokenizer.eos_token
    chosen = []
    was_training = model.training
    model.eval()
    for start in _batches(len(examples), batch_size, progress):
        part = examples[start : start + batch_size]
        batch = encode(processor, part, "no_thinking", max_pixels).to(model.device)
        ahead = model(**with_features(model, batch), use_cache=True, logits_to_keep=1)
        cache, first = ahead.past_key_values, ahead.logits[:, -1:].float()  # first: [B, 1, V]
        prompt_length = batch["input_ids"].shape[1]
        shift = next(m.rope_deltas for m in model.modules() if hasattr(m, "rope_deltas"))  # an image's rows share steps
        scores = torch.full((len(part), max(len(e.choices) for e in part)), -torch.inf)
        for place in range(scores.shape[1]):
            choices = [e.choices[place] + end if place < len(e.choices) else end for e in part]
            answer = tokenizer(choices, padding=True, padding_side="right", add_special_tokens=False,
                               return_tensors="pt").to(model.device)  # fmt: skip
            mask = torch.cat([batch["attention_mask"], answer["attention_mask"][:, :-1]], 1)
            logits = first
            if answer["input_ids"].shape[1] > 1:
                positions = (mask.cumsum(1) - 1 + shift)[None, :, prompt_length:]
                more = model(
                    input_ids=answer["input_ids"][:, :-1],
                    attention_mask=mask,
                    position_ids=positions.expand(3, -1, -1),  # given mask and cache, the model would count them all
                    past_key_values=cache,
                    use_cache=True,
                )
                logits = torch.cat([first, more.logits.float()], 1)  # [B, T, V]
                cache.crop(1 - answer["input_ids"].shape[1])
            log_probs = logits.log_softmax(-1).gather(2, answer["input_ids"][..., None])[..., 0]  # [B, T]
            totals = (log_probs * answer["attention_mask"]).sum(1).cpu()
            there = torch.tensor([place < len(e.choices) for e in part])
            scores[there, place] = totals[there]
        chosen += [e.choices[best] for e, best in zip(part, scores.argmax(1).tolist(), strict=True)]
    model.train(was_training)
    return chosen


def answer_rows(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    examples: Sequence[Example],
    mode: str,
    *,
    rules: Sequence[str] = ("strict", "lenient"),
    **options: Any,
) -> list[dict[str, Any]]:
    """Greedy answers to examples in a mode: a row each with the completion, its tokens and its score by each rule."""
    texts, lengths = generate(model, processor, examples, mode, **options)
    rows = []
    for example, (text,), (length,) in zip(examples, texts, lengths, strict=True):
        row = {"id": example.id, "group": example.group, "mode": mode, "answer": example.answer}
        row |= {"completion": text, "tokens": length, "format": score(text, example, mode).format}
        rows.append(row | {rule: score(text, example, mode, rule).accuracy for rule in rules})
    return rows


def pass_at_samples(model, processor, examples: Sequence[Example], mode: str, rule: str, **options) -> list[float]:
    """For each example 1 if any of eight samples at temperature 1 is right (pass@8), else 0."""
    texts, _ = generate(model, processor, examples, mode, samples=PASS_SAMPLES, **options)
    return [max(score(text, e, mode, rule).accuracy for text in many) for e, many in zip(examples, texts, strict=True)]


def proportion(correct: Sequence[float]) -> dict[str, float]:
    """n, correct, accuracy and its 95 % Wilson interval."""
    n, total = len(correct), int(sum(correct))
    low, high = wilson(total, n)
    return {"n": n, "correct": total, "accuracy": total / n if n else 0.0, "ci_low": low, "ci_high": high}


def evaluate_data(
    model: str,
    data: str,
    *,
    adapter: str | None = None,
    mode: str = "no_thinking",
    scoring: str = "strict",
    split: str | None = None,
    limit: int | None = None,
    batch: int = 64,
    max_tokens: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Greedy accuracy of a model on a bundled set or a JSONL file, with a 95 % Wilson interval for each split.

    Everything the user named is checked before the model is loaded.
    """
    get_mode(mode), get_rule(scoring)
    for name, value in (("limit", limit), ("batch", batch), ("max-tokens", max_tokens)):
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    splits = read_splits(data, split, limit)
    network, processor = load(model, adapter=adapter)
    tokens = max_tokens or (64 if mode == "no_thinking" else 1024)  # the paper's limit is 1024
    report = {"model": model, "adapter": adapter, "data": data, "eval": {}}
    for name, examples in splits.items():
        rows = answer_rows(
            network,
            processor,
            examples,
            mode,
            rules=[scoring],
            max_tokens=tokens,
            batch_size=batch,
            progress=name if progress else None,
        )
        head = {"split": name, "mode": mode, "scoring": scoring}
        report["eval"][name] = head | proportion([row[scoring] for row in rows])
    return report


def _batches(total: int, size: int, title: str | None):
    starts = range(0, total, size)
    return tqdm(starts, desc=title, leave=False) if title else starts
