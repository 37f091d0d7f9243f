"""`rftkit bench`: our GRPO step beside stock TRL's. The same data, seeds and model, one process, in alternation."""

from __future__ import annotations

import random
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Image as ImageFeature
from torch.nn.functional import pad
from tqdm.auto import tqdm
from transformers import GenerationConfig
from trl import GRPOConfig, GRPOTrainer

from rftkit.common.errors import UserError, within
from rftkit.common.pool import pool
from rftkit.evaluate import encode
from rftkit.models import load, lora_config, quieten
from rftkit.runs.fingerprint import versions
from rftkit.shared_prefix.generation import generate_forked
from rftkit.tasks.classification import question
from rftkit.tasks.example import Example
from rftkit.tasks.worlds import get_world
from rftkit.tools.bench.models import PRESETS, flop_bound, save_model
from rftkit.tools.bench.timed import PHASES, OurTrainer, StockTrainer, Timed, peak_resident
from rftkit.trainer import training_rows

TOKENS = {"no_thinking": 8, "thinking": 64, "think_after_answer": 64}  # of each completion
KINDS = {"stock": StockTrainer, "ours": OurTrainer}
CHOICES = 24  # in a question
SEED = 0


@dataclass(frozen=True)
class Options:
    """What is measured. `pairs` counts timed pairs of steps, after one that warms up."""

    preset: str = "nano-m"
    mode: str = "no_thinking"
    group: int = 8
    pairs: int = 5
    quantize: bool = False
    device: str = "cpu"

    @property
    def tokens(self) -> int:
        return TOKENS[self.mode]


def prompts(options: Options, steps: int) -> list[Example]:
    """Emoji questions with 24 choices, other ones for each step; pictures scaled to the preset's side."""
    preset, world, rng = PRESETS[options.preset], get_world("emoji"), random.Random(SEED)
    found = []
    for number in range(steps * preset.prompts):
        drawing = world.drawings(world.base[number % len(world.base)], "pretrain", 1, number)[0]
        drawing = replace(drawing, image=drawing.image.resize((preset.side, preset.side)))
        share = CHOICES / len(world.base)
        found.append(question(drawing, world, world.base, share, rng, "bench", f"bench-{number}"))
    return found


def reward(completions, **_) -> list[float]:
    """A reward that differs from text to text, so that every group teaches something."""
    return [zlib.crc32(completion[0]["content"].encode()) % 1000 / 1000 for completion in completions]


def _whole(model, options: Options) -> dict[str, Any]:
    """Generation settings: completions of one length, without the tokens of pictures, which random weights may say."""
    pictures = [model.config.image_token_id, model.config.video_token_id]
    return {"min_new_tokens": options.tokens, "suppress_tokens": pictures}


def make_trainer(kind: type, options: Options, folder: str, examples: list[Example]) -> GRPOTrainer:
    """A trainer of a preset, its model loaded from `folder`; LoRA, SGD, no checkpointing, completions of one length."""
    preset = PRESETS[options.preset]
    model, processor = load(folder, quantize=options.quantize, device=options.device)
    torch.manual_seed(SEED)  # of the adapter
    arguments = GRPOConfig(
        output_dir=str(Path(folder) / "unused"), max_steps=1, learning_rate=1e-2, optim="sgd", seed=SEED,
        lr_scheduler_type="constant", report_to=[], save_strategy="no", disable_tqdm=True, shuffle_dataset=False,
        per_device_train_batch_size=preset.prompts * options.group, num_generations=options.group,
        max_completion_length=options.tokens, gradient_checkpointing=False, use_cpu=options.device == "cpu",
        bf16=options.device != "cpu", dataloader_pin_memory=options.device != "cpu", logging_steps=1000,
        generation_kwargs=_whole(model, options),
    )  # fmt: skip
    rows = training_rows(examples, options.mode, None)
    if kind is OurTrainer:
        rows = rows.cast_column("images", [ImageFeature(decode=False)])
    return kind(
        model=model, reward_funcs=reward, args=arguments, train_dataset=rows, processing_class=processor,
        peft_config=lora_config(16),
    )  # fmt: skip


def peak_bytes(kind: str, options: Options, folder: str) -> int:
    """Peak memory of two steps of one trainer in a process of its own: resident on a CPU, allocated on a GPU."""
    quieten()
    trainer = make_trainer(KINDS[kind], options, folder, prompts(options, 2))
    on_gpu = options.device != "cpu"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for step in range(2):
        trainer.one_step(step, PRESETS[options.preset].prompts, SEED)
    return torch.cuda.max_memory_allocated() if on_gpu else peak_resident()


def bench(options: Options, progress: bool = True) -> dict[str, Any]:
    """Measure a preset and return what `rftkit bench --json` prints."""
    check(options)
    size, threads = PRESETS[options.preset].prompts, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_model(options.preset, Path(temporary))
        peaks = {kind: _elsewhere(peak_bytes, kind, options, folder) for kind in KINDS}
        examples = prompts(options, options.pairs + 1)
        trainers = {name: make_trainer(kind, options, folder, examples) for name, kind in KINDS.items()}
        equality = _equality_before(trainers, options, examples[:size])
        measured = _steps(trainers, options.pairs + 1, size, progress)
        equality |= _equality_after(*trainers.values())
        bound = _bound(trainers["stock"], options, examples[0])
    return asdict(options) | {
        "device": f"cpu, {threads} threads" if options.device == "cpu" else torch.cuda.get_device_name(),
        "prompts_per_step": size,
        "completion_tokens": options.tokens,
        "threads": threads,
        "versions": versions(),
        **{name: _summary(rows, peaks[name]) for name, rows in measured.items()},
        "ratio": _ratios(measured, peaks),
        "flop_bound": bound,
        "equality": equality,
    }


def _steps(trainers: dict[str, Timed], count: int, size: int, progress: bool) -> dict[str, pd.DataFrame]:
    """What so many steps of each trainer in turn took, a row a step; the first warms up and is left out."""
    rows: dict[str, list[dict]] = {name: [] for name in trainers}
    for step in tqdm(range(count), desc="pairs", disable=not progress):
        for name in sorted(trainers, reverse=step % 2 == 1):  # each goes first as often as the other
            rows[name].append(trainers[name].one_step(step, size, SEED))
    return {name: pd.DataFrame(rows[name][1:]) for name in trainers}


def _bound(trainer: GRPOTrainer, options: Options, example: Example) -> dict[str, float]:
    """`flop_bound` of the lengths that this measurement has."""
    batch = encode(trainer.processing_class, [example], options.mode)
    prompt, patches = batch["input_ids"].shape[1], len(batch["pixel_values"])
    model, every_position = trainer.model.get_base_model(), options.device == "cpu"
    return flop_bound(model, options.group, prompt, options.tokens, patches, every_position)


def check(options: Options) -> None:
    """Refuse what cannot be measured."""
    if options.preset not in PRESETS:
        raise UserError(f"unknown preset '{options.preset}': choose one of {', '.join(PRESETS)}")
    if options.mode not in TOKENS:
        raise UserError(f"unknown mode '{options.mode}': choose one of {', '.join(TOKENS)}")
    within("--group", options.group, 2, 1024)
    within("--pairs", options.pairs, 1, 10**4)
    if options.device not in ("cpu", "cuda") or (options.device == "cuda" and not torch.cuda.is_available()):
        raise UserError(f"no device '{options.device}' here: choose cpu, or cuda where torch finds a GPU")
    if options.device == "cpu" and PRESETS[options.preset].needs_gpu:
        raise UserError(f"preset '{options.preset}' needs a GPU: on this machine choose nano-s, nano-m or cpu-100m")


def _elsewhere(function: Callable, *arguments) -> Any:
    with pool(1) as workers:
        return workers.submit(function, *arguments).result()


def _summary(rows: pd.DataFrame, peak: int) -> dict[str, float]:
    seconds = rows[PHASES].median().round(4).add_suffix("_s").to_dict()
    counts = {name: int(rows[name].iloc[-1]) for name in ("vision_rows", "lm_tokens")}
    return seconds | {"peak_bytes": peak} | counts


def _ratios(measured: dict[str, pd.DataFrame], peaks: dict[str, int]) -> dict[str, Any]:
    ratios = measured["stock"][PHASES] / measured["ours"][PHASES]  # a row a pair of steps
    spread = ratios.agg(["median", "min", "max"]).round(3).to_dict()
    return spread | {"peak_bytes": round(peaks["stock"] / peaks["ours"], 3)}


@torch.no_grad()
def _equality_before(trainers: dict[str, GRPOTrainer], options: Options, examples: list[Example]) -> dict[str, Any]:
    """The same log-probs of the same completions, and the same greedy completions, by both trainers."""
    stock, width = trainers["stock"], options.tokens
    model, processor = stock.model.eval(), stock.processing_class
    config = GenerationConfig(max_new_tokens=width, do_sample=False, **_whole(model, options),
                              pad_token_id=processor.tokenizer.pad_token_id)  # fmt: skip
    batch = encode(processor, examples, options.mode).to(model.device)
    vision = {name: value for name, value in batch.items() if name not in ("input_ids", "attention_mask")}

    def forked(size: int) -> torch.Tensor:
        return generate_forked(model, batch["input_ids"], batch["attention_mask"], vision, size, config)

    identical = torch.equal(model.generate(**batch, generation_config=config), forked(1))
    config.do_sample, config.top_k = True, 0
    torch.manual_seed(SEED)
    ids = forked(options.group)  # [prompts x group, prompt and completion tokens]
    copies = encode(processor, [example for example in examples for _ in range(options.group)], options.mode)
    copies = copies.to(model.device)
    mask = pad(copies.pop("attention_mask"), (0, width), value=1)
    types = pad(copies.pop("mm_token_type_ids"), (0, width))
    pictures = {name: copies[name] for name in ("pixel_values", "image_grid_thw")} | {"num_images": [1] * len(ids)}
    found = []
    for trainer in trainers.values():
        trainer.start()
        trainer.model.train()
        log_probs = trainer._get_per_token_logps_and_entropies
        found.append(log_probs(trainer.model, ids, mask, width, mm_token_type_ids=types, **pictures)[0])
    return {
        "max_logprob_diff": (found[0] - found[1]).abs().max().item(),
        "lowest_logprob": found[0].min().item(),  # completions do not end: what the head rounds grows with it
        "greedy_identical": identical,
    }


def _equality_after(stock: GRPOTrainer, ours: GRPOTrainer) -> dict[str, float]:
    """How far the trained weights are from each other, and how far from where LoRA's B started: zero."""
    pairs = [(a, b) for a, b in zip(stock.model.parameters(), ours.model.parameters(), strict=True) if a.requires_grad]
    moved = [p for name, p in stock.model.named_parameters() if "lora_B" in name]
    return {
        "max_weight_diff": max((a - b).abs().max().item() for a, b in pairs),
        "max_weight_change": max(p.abs().max().item() for p in moved),
    }


def as_text(report: dict[str, Any]) -> str:
    """The report for people: a row a phase."""
    stock, ours, ratio = report["stock"], report["ours"], report["ratio"]
    lines = [
        f"{report['preset']}, {report['mode']}, G={report['group']}, {report['device']}",
        f"{'':<10}{'stock':>10}{'ours':>10}{'ratio':>8}   min-max",
    ]
    for phase in PHASES:
        seconds = f"{stock[f'{phase}_s']:>9.3f}s{ours[f'{phase}_s']:>9.3f}s"
        spread = f"{ratio[phase]['min']:.2f}-{ratio[phase]['max']:.2f}"
        lines.append(f"{phase:<10}{seconds}{ratio[phase]['median']:>7.2f}x   {spread}")
    peaks = f"{stock['peak_bytes'] / 2**20:>7.0f}MiB{ours['peak_bytes'] / 2**20:>7.0f}MiB"
    lines.append(f"{'peak':<10}{peaks}{ratio['peak_bytes']:>7.2f}x")
    bound = report["flop_bound"]
    lines.append(f"operations alone would allow {bound['step']:.2f}x a step, {bound['update']:.2f}x an update")
    lines.append(", ".join(f"{name} {value}" for name, value in report["equality"].items()))
    return "\n".join(lines)
