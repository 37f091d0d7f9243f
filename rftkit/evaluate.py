"""Evaluation: what a model answers, what it knows whatever it says, and what it says now and then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

from rftkit.common.errors import within
from rftkit.common.statistics import proportion
from rftkit.models import check_adapter, limit_pixels, load
from rftkit.prompts import MODES, conversation, get_mode
from rftkit.rewards import agrees, get_rule, score
from rftkit.shared_prefix.generation import generate_forked, generates_by, no_picture_drawn, prefill
from rftkit.shared_prefix.likelihood import log_probs_behind
from rftkit.shared_prefix.merged_adapter import merged
from rftkit.shared_prefix.vision import with_features
from rftkit.tasks.example import Example, ExampleSet, tell_what_is_asked
from rftkit.tasks.images import MAX_PIXELS, check_pictures, open_image
from rftkit.tasks.late import batches
from rftkit.tasks.registry import open_set

PASS_SAMPLES = 8


def evaluated_modes(own: str, trained: bool) -> list[str]:
    """The modes a model is tested in: its own and without thinking; untrained, every one but the adaptive."""
    every = [name for name, mode in MODES.items() if not mode.optional]
    return list(dict.fromkeys([own, "no_thinking"])) if trained else every


def pass_batch(eval_batch: int) -> int:
    """Prompts in memory at once for pass@8, each with eight samples, where `eval_batch` have one."""
    return max(1, eval_batch // PASS_SAMPLES)


def encode(
    processor: ProcessorMixin,
    examples: Sequence[Example],
    mode: str,
    begun: Sequence[str] | None = None,
):
    """A batch of prompts, left-padded, ready for `model.generate`; `begun` are texts that completions begin with."""
    texts = [processor.apply_chat_template(conversation(e, mode), add_generation_prompt=True) for e in examples]
    texts = texts if begun is None else [text + start for text, start in zip(texts, begun, strict=True)]
    images = [[open_image(image, e.id) for image in e.images] for e in examples]
    return processor(
        text=texts,
        images=images if any(images) else None,
        padding=True,
        padding_side="left",
        add_special_tokens=False,
        return_tensors="pt",
    )


class Answer(NamedTuple):
    """What a model says to an example: completions as text and as token ids, and the choice it finds likeliest."""

    texts: list[str]
    ids: list[torch.Tensor]
    likeliest: str | None


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
    likelihood: bool = False,
    begun: Sequence[str] | None = None,
    batch_size: int = 64,
    progress: str | None = None,
) -> list[Answer]:
    """Each example's answer: one greedy completion, or `samples` drawn ones; with `likelihood` the likeliest choice.

    With `begun`, a text for each example, a completion begins with that text, whatever the model would have said.
    """
    config = _generation(model, processor, max_tokens, temperature if samples else None)
    ends = torch.tensor(config.eos_token_id).view(-1)  # one or several
    per, answers = max(samples, 1), []
    was_training = model.training
    model.eval()
    places = batches(examples, batch_size)
    with merged(model), generates_by(model, config), no_picture_drawn(model):
        for place in tqdm(places, desc=progress, leave=False) if progress else places:
            part = examples[place]
            starts_with = None if begun is None else begun[place]
            batch = encode(processor, part, mode, starts_with).to(model.device)
            ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
            vision = with_features(model, batch)
            cache = prefill(model, ids, mask, vision)
            likeliest = _likeliest(model, processor, part, ids, mask, cache) if likelihood else [None] * len(part)
            full = generate_forked(model, ids, mask, vision, per, config, cache)
            completions = full[:, ids.shape[1] :].cpu()  # [B * samples, T]
            ended = torch.isin(completions, ends).int()
            lengths = (ended.cumsum(1) - ended == 0).sum(1).tolist()  # up to and with the first end token
            texts = processor.tokenizer.batch_decode(completions, skip_special_tokens=True)
            texts = texts if begun is None else [starts_with[row // per] + text for row, text in enumerate(texts)]
            for number, choice in enumerate(likeliest):
                own = slice(number * per, (number + 1) * per)
                ids_of = [row[:length] for row, length in zip(completions[own], lengths[own], strict=True)]
                answers.append(Answer(texts[own], ids_of, choice))
    model.train(was_training)
    return answers


def _generation(model, processor, max_tokens: int, temperature: float | None) -> GenerationConfig:
    """Greedy without a temperature. A checkpoint's own sampling settings are not used: they differ between them."""
    return GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=temperature is not None,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        **({} if temperature is None else {"temperature": temperature, "top_k": 0, "top_p": 1.0}),
    )


def _likeliest(model, processor, examples: Sequence[Example], ids, mask, cache) -> list[str]:
    """The choice of each example with the highest log-probability, its end token included, behind prompts [B, P]."""
    texts = [choice + processor.tokenizer.eos_token for example in examples for choice in example.choices]
    tokens = iter(processor.tokenizer(texts, add_special_tokens=False)["input_ids"])
    answers = [[next(tokens) for _ in example.choices] for example in examples]
    scores = log_probs_behind(model, ids, mask, cache, answers)
    return [e.choices[best] for e, best in zip(examples, scores.argmax(1).tolist(), strict=True)]


def answer_rows(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    examples: Sequence[Example],
    mode: str,
    *,
    rules: Sequence[str] = ("strict", "lenient"),
    likelihood: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """Greedy answers to examples in a mode: a row each with the completion, its tokens and its score by each rule.

    With `likelihood`, and if all examples have choices, a row also says whether the choice that the model finds
    likeliest right behind the prompt is right, whatever it says by itself.
    """
    knows = likelihood and all(example.choices for example in examples)
    answers = generate(model, processor, examples, mode, likelihood=knows, **options)
    rows = []
    for example, said in zip(examples, answers, strict=True):
        (text,), (ids,) = said.texts, said.ids
        row = {"id": example.id, "group": example.group, "mode": mode, "answer": example.answer}
        row |= {"completion": text, "tokens": len(ids), "format": score(text, example, mode).format}
        row |= {rule: score(text, example, mode, rule).accuracy for rule in rules}
        row["agrees"] = agrees(text, example, mode)
        rows.append(row | ({"likelihood": float(said.likeliest == example.answer)} if knows else {}))
    return rows


def pass_at_samples(model, processor, examples: Sequence[Example], mode: str, rule: str, **options) -> list[float]:
    """For each example 1 if any of eight samples is right (pass@8), else 0; `options` are those of `generate`."""
    said = generate(model, processor, examples, mode, samples=PASS_SAMPLES, **options)
    return [max(score(text, e, mode, rule).accuracy for text in a.texts) for e, a in zip(examples, said, strict=True)]


def at_least_one(**options: int | None) -> None:
    """Refuse an option of the command line that is given and below 1, or beyond all reason."""
    for name, value in options.items():
        within(f"--{name.replace('_', '-')}", value, 1, MAX_PIXELS)


def asked_parts(data: ExampleSet, part: str | None = None, test_items: int | None = None) -> dict[str, list[Example]]:
    """Test examples of a set by part.

    Args:
        part: such as `base`, `new` or `all` (None: the set's usual ones); tables and files have `test`.
        test_items: at most so many examples a part, a plain sample (None: `usual_items` of the set).
    """
    parts = (part,) if part else data.parts(data.usual_protocol)
    return {name: data.examples("test", name, test_items or data.usual_items) for name in parts}


def evaluate_data(
    model: str,
    data: str,
    *,
    adapter: str | None = None,
    task: str | None = None,
    mode: str = "no_thinking",
    scoring: str | None = None,
    split: str | None = None,
    test_items: int | None = None,
    batch: int = 64,
    max_tokens: int | None = None,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
    quantize: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Greedy accuracy of a model on a set (`tasks.registry.open_set`), with a 95 % Wilson interval for each part.

    `scoring` is the rule of the set's task if None. Names, numbers, data and pictures are checked before all else.
    """
    asked = open_set(data, task)
    scoring = scoring or asked.rule
    get_mode(mode), get_rule(scoring)
    at_least_one(test_items=test_items, batch=batch, max_tokens=max_tokens, max_pixels=max_pixels)
    within("--min-pixels", min_pixels, 1, max_pixels or MAX_PIXELS)
    check_adapter(adapter, model)
    splits = asked_parts(asked, split, test_items)
    whole = tell_what_is_asked(asked, splits, test_items, asked.usual_protocol)
    check_pictures((example for part in splits.values() for example in part), whole=True)
    network, processor = load(model, adapter=adapter, quantize=quantize, device=device)
    limit_pixels(processor, min_pixels, max_pixels)
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
        head = {"split": name, "mode": mode, "scoring": scoring, "of": whole.get(name)}
        report["eval"][name] = head | proportion(int(sum(row[scoring] for row in rows)), len(rows))
    return report


class BaseAnswers:
    """What a model draws before it is trained, a completion an example, and its log-probabilities then.

    Make it before training; the caller's random numbers are left as they were.

    Args:
        options: `max_tokens` and `batch_size` as of `evaluate.generate`.
    """

    def __init__(self, model, processor, examples: Sequence[Example], mode: str, seed: int, **options) -> None:
        self.model, self.processor, self.examples, self.mode, self.options = model, processor, examples, mode, options
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = generate(model, processor, examples, mode, samples=1, **options)
        self.completions = [answer.ids[0] for answer in drawn]
        self.before = self._log_probs()

    def forward_kl(self) -> float:
        """KL(base || model) in nats a completion, estimated on the drawn completions."""
        return float((self.before - self._log_probs()).mean())

    @torch.no_grad()
    def _log_probs(self) -> torch.Tensor:
        found, was_training = [], self.model.training
        self.model.eval()
        for part in batches(self.examples, self.options["batch_size"]):
            batch = encode(self.processor, self.examples[part], self.mode)
            batch = batch.to(self.model.device)
            ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
            cache = prefill(self.model, ids, mask, with_features(self.model, batch))
            answers = [[completion.tolist()] for completion in self.completions[part]]
            found.append(log_probs_behind(self.model, ids, mask, cache, answers)[:, 0].cpu())
        self.model.train(was_training)
        return torch.cat(found)
