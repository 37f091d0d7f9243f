"""`rftkit bench`: our GRPO step beside stock TRL's. The same data, seeds and model, one process, in alternation."""

from __future__ import annotations

import io
import random
import statistics
import tempfile
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from rftkit.tools.bench.timed import PHASES, Finish, OurTrainer, StockTrainer, Timed, peak_resident
from rftkit.trainer import training_rows

TOKENS = {"no_thinking": 8, "thinking": 64, "think_after_answer": 64}  # of each completion
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
        drawing = type(drawing)(**(drawing.__dict__ | {"image": drawing.image.resize((preset.side, preset.side))}))
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
    trainer = kind(
        model=model, reward_funcs=reward, args=arguments, train_dataset=rows, processing_class=processor,
        peft_config=lora_config(16),
    )  # fmt: skip
    trainer.add_callback(Finish(trainer))
    trainer.rows = rows
    trainer.start()
    _count(trainer)
    return trainer


def _count(trainer: Timed) -> None:
    """Count the patches the vision tower and the tokens the language model is run on."""
    inner = trainer.model.get_base_model().model

    def vision(module, args, kwargs):
        trainer.counts["vision_rows"] += (args[0] if args else kwargs["hidden_states"]).shape[0]

    def language(module, args, kwargs):
        rows, width = kwargs["inputs_embeds"].shape[:2]
        trainer.counts["lm_tokens"] += rows * width

    inner.visual.register_forward_pre_hook(vision, with_kwargs=True)
    inner.language_model.register_forward_pre_hook(language, with_kwargs=True)


def one_step(trainer: Timed, step: int, size: int) -> dict[str, float]:
    """One optimizer step on the prompts of that step; its seconds by phase and its counts."""
    trainer.start()
    trainer.train_dataset = trainer.rows.select(range(step * size, (step + 1) * size))
    torch.manual_seed(SEED + step)
    with redirect_stdout(io.StringIO()):  # the trainers' own log
        trainer.train()
    return trainer.seconds | trainer.counts


def peak_bytes(kind: str, options: Options, folder: str) -> int:
    """Peak memory of two steps of one trainer in a process of its own: resident on a CPU, allocated on a GPU."""
    quieten()
    preset = PRESETS[options.preset]
    trainer = make_trainer({"stock": StockTrainer, "ours": OurTrainer}[kind], options, folder, prompts(options, 2))
    if options.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    for step in range(2):
        one_step(trainer, step, preset.prompts)
    if options.device != "cpu":
        return torch.cuda.max_memory_allocated()
    return peak_resident()


def bench(options: Options, progress: bool = True) -> dict[str, Any]:
    """Measure a preset and return what `rftkit bench --json` prints."""
    check(options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_model(options.preset, Path(temporary))
        peaks = {kind: _elsewhere(peak_bytes, kind, options, folder) for kind in ("stock", "ours")}
        preset, examples = PRESETS[options.preset], prompts(options, options.pairs + 1)
        kinds = {"stock": StockTrainer, "ours": OurTrainer}
        trainers = {name: make_trainer(kind, options, folder, examples) for name, kind in kinds.items()}
        equality = _equality_before(trainers, options, examples[: preset.prompts])
        measured: dict[str, list[dict]] = {"stock": [], "ours": []}
        for step in tqdm(range(options.pairs + 1), desc=options.preset, disable=not progress):
            for name in ("stock", "ours") if step % 2 else ("ours", "stock"):
                measured[name].append(one_step(trainers[name], step, preset.prompts))
        equality |= _equality_after(*trainers.values())
        batch = encode(trainers["stock"].processing_class, examples[:1], options.mode)
        lengths = (options.group, batch["input_ids"].shape[1], options.tokens, len(batch["pixel_values"]))
        bound = flop_bound(trainers["stock"].model.get_base_model(), *lengths, every_position=options.device == "cpu")
    for rows in measured.values():
        del rows[0]  # warm-up
    return {
        "preset": options.preset, "mode": options.mode, "group": options.group, "quantize": options.quantize,
        "pairs": options.pairs, "prompts_per_step": preset.prompts, "completion_tokens": options.tokens,
        "device": _device(options), "threads": torch.get_num_threads(), "versions": versions(),
        **{name: _summary(rows, peaks[name]) for name, rows in measured.items()},
        "ratio": _ratios(measured, peaks), "flop_bound": bound, "equality": equality,
    }  # fmt: skip


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


def _summary(rows: list[dict], peak: int) -> dict[str, float]:
    seconds = {f"{phase}_s": round(statistics.median(row[phase] for row in rows), 4) for phase in PHASES}
    counts = {name: rows[-1][name] for name in ("vision_rows", "lm_tokens")}
    return seconds | {"peak_bytes": peak} | counts


def _ratios(measured: dict[str, list[dict]], peaks: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for phase in PHASES:
        ratios = [stock[phase] / ours[phase] for stock, ours in zip(measured["stock"], measured["ours"], strict=True)]
        spread = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
        found[phase] = {name: round(value, 3) for name, value in spread.items()}
    return found | {"peak_bytes": round(peaks["stock"] / peaks["ours"], 3)}


@torch.no_grad()
def _equality_before(trainers: dict[str, GRPOTrainer], options: Options, examples: list[Example]) -> dict[str, Any]:
    """The same log-probs of the same completions, and the same greedy completions, by both trainers."""
    stock, ours = trainers["stock"], trainers["ours"]
    model = stock.model.eval()
    config = GenerationConfig(max_new_tokens=options.tokens, do_sample=False, **_whole(model, options),
                              pad_token_id=stock.processing_class.tokenizer.pad_token_id)  # fmt: skip
    batch = encode(stock.processing_class, examples, options.mode).to(model.device)
    greedy = model.generate(**batch, generation_config=config)
    vision = {name: value for name, value in batch.items() if name not in ("input_ids", "attention_mask")}
    forked = generate_forked(model, batch["input_ids"], batch["attention_mask"], vision, 1, config)
    identical = torch.equal(greedy, forked)
    size, width = options.group, options.tokens
    config.do_sample, config.top_k = True, 0
    torch.manual_seed(SEED)
    ids = generate_forked(model, batch["input_ids"], batch["attention_mask"], vision, size, config)
    mask = pad(batch["attention_mask"].repeat_interleave(size, 0), (0, width), value=1)
    types = pad(batch["mm_token_type_ids"].repeat_interleave(size, 0), (0, width))
    pictures = torch.split(batch["pixel_values"], batch["image_grid_thw"].prod(-1).tolist())
    inputs = {
        "pixel_values": torch.cat([picture for picture in pictures for _ in range(size)]),
        "image_grid_thw": batch["image_grid_thw"].repeat_interleave(size, 0),
        "num_images": [1] * len(ids), "mm_token_type_ids": types,
    }  # fmt: skip
    found = []
    for trainer in (stock, ours):
        trainer.start()
        trainer.model.train()
        found.append(trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width, **inputs)[0])
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


def _device(options: Options) -> str:
    if options.device != "cpu":
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"


def as_text(report: dict[str, Any]) -> str:
    """The report for people: a row a phase."""
    lines = [f"{report['preset']}, {report['mode']}, G={report['group']}, {report['device']}",
             f"{'':<10}{'stock':>10}{'ours':>10}{'ratio':>8}   min-max"]  # fmt: skip
    for phase in PHASES:
        ratio = report["ratio"][phase]
        stock, ours = (report[name][f"{phase}_s"] for name in ("stock", "ours"))
        spread = f"{ratio['min']:.2f}-{ratio['max']:.2f}"
        lines.append(f"{phase:<10}{stock:>9.3f}s{ours:>9.3f}s{ratio['median']:>7.2f}x   {spread}")
    stock, ours = (report[name]["peak_bytes"] / 2**20 for name in ("stock", "ours"))
    lines.append(f"{'peak':<10}{stock:>7.0f}MiB{ours:>7.0f}MiB{report['ratio']['peak_bytes']:>7.2f}x")
    bound, equality = report["flop_bound"], report["equality"]
    lines.append(f"operations alone would allow {bound['step']:.2f}x a step, {bound['update']:.2f}x an update")
    lines.append(", ".join(f"{name} {value}" for name, value in equality.items()))
    return "\n".join(lines)
