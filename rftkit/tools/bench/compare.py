"""`rftkit bench`: our GRPO step beside stock TRL's. The same data, seeds and model, one process, in alternation."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.nn.functional import pad
from tqdm.auto import tqdm

from rftkit.common.pool import pool
from rftkit.common.validation import checked
from rftkit.evaluate import encode
from rftkit.runs.fingerprint import versions
from rftkit.shared_prefix.generation import generate_forked
from rftkit.tasks.classification import question
from rftkit.tasks.example import Example
from rftkit.tasks.worlds import get_world
from rftkit.tools.bench.trainers import (
    COUNTS,
    KINDS,
    PHASES,
    PRESETS,
    SEED,
    TOKENS,
    Options,
    Timed,
    make_trainer,
    peak_of_two_steps,
    save_model,
)

CHOICES = 24  # in a question


def prompts(options: Options, steps: int) -> list[Example]:
    """Emoji questions with 24 choices, other ones for each step; pictures scaled to the preset's side."""
    preset, world, rng = PRESETS[options.preset], get_world("emoji"), random.Random(SEED)
    share = CHOICES / len(world.base)
    found = []
    for number in range(steps * preset.prompts):
        drawing = world.drawings(world.base[number % len(world.base)], "pretrain", 1, number)[0]
        drawing = replace(drawing, image=drawing.image.resize((preset.side, preset.side)))
        found.append(question(drawing, world, world.base, share, rng, "bench", f"bench-{number}"))
    return found


def bench(progress: bool = True, **given: Any) -> dict[str, Any]:
    """Measure a preset, `given` fields of `Options`, and return what `rftkit bench --json` prints."""
    options = checked(Options, given)
    size = PRESETS[options.preset].prompts
    threads = torch.get_num_threads()
    examples = prompts(options, options.pairs + 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_model(options.preset, Path(temporary))
        peaks = {kind: _elsewhere(peak_of_two_steps, kind, options, folder, examples) for kind in KINDS}
        trainers = {kind: make_trainer(kind, options, folder, examples) for kind in KINDS}
        equality = _equality_before(trainers, options, examples[:size])
        rows: dict[str, list[dict]] = {kind: [] for kind in KINDS}
        for step in tqdm(range(options.pairs + 1), desc="pairs", disable=not progress):
            for kind in sorted(KINDS, reverse=step % 2 == 1):  # each goes first as often as the other
                rows[kind].append(trainers[kind].one_step(step, size))
        equality |= _equality_after(*trainers.values())
        stock = trainers["stock"]
        one = encode(stock.processing_class, examples[:1], options.mode)
        bound = flop_bound(
            stock.model.get_base_model(),
            size=options.group,
            prompt=one["input_ids"].shape[1],
            length=TOKENS[options.mode],
            patches=len(one["pixel_values"]),
            every_position=options.device == "cpu",
        )
    steps = {kind: pd.DataFrame(rows[kind][1:]) for kind in KINDS}  # without the one that warms up
    ratios = steps["stock"][PHASES] / steps["ours"][PHASES]  # a row a pair of steps
    ratio = ratios.agg(["median", "min", "max"]).round(3).to_dict()
    summaries = {}
    for kind, table in steps.items():
        seconds = table[PHASES].median().round(4).add_suffix("_s").to_dict()
        summaries[kind] = seconds | {"peak_bytes": peaks[kind]} | table[COUNTS].iloc[-1].astype(int).to_dict()
    return asdict(options) | {
        "device": f"cpu, {threads} threads" if options.device == "cpu" else torch.cuda.get_device_name(),
        "prompts_per_step": size,
        "completion_tokens": TOKENS[options.mode],
        "threads": threads,
        "versions": versions(),
        **summaries,
        "ratio": ratio | {"peak_bytes": round(peaks["stock"] / peaks["ours"], 3)},
        "flop_bound": bound,
        "equality": equality,
    }


def _elsewhere(function: Callable, *arguments) -> Any:
    with pool(1) as workers:
        return workers.submit(function, *arguments).result()


@torch.no_grad()
def _equality_before(trainers: dict[str, Timed], options: Options, examples: list[Example]) -> dict[str, Any]:
    """The same log-probs of the same completions, and the same greedy completions, by both trainers."""
    stock, width = trainers["stock"], TOKENS[options.mode]
    model, processor = stock.model.eval(), stock.processing_class
    config = copy.deepcopy(stock.generation_config)
    config.do_sample = False
    batch = encode(processor, examples, options.mode).to(model.device)
    vision = {name: value for name, value in batch.items() if name not in ("input_ids", "attention_mask")}

    def forked(size: int) -> torch.Tensor:
        return generate_forked(model, batch["input_ids"], batch["attention_mask"], vision, size, config)

    identical = torch.equal(model.generate(**batch, generation_config=config), forked(1))
    config.do_sample = True
    torch.manual_seed(SEED)
    ids = forked(options.group)  # [prompts x group, prompt and completion tokens]
    copies = encode(processor, [example for example in examples for _ in range(options.group)], options.mode)
    copies = copies.to(model.device)
    mask = pad(copies.pop("attention_mask"), (0, width), value=1)
    types = pad(copies.pop("mm_token_type_ids"), (0, width))
    pictures = {name: copies[name] for name in ("pixel_values", "image_grid_thw")} | {"num_images": [1] * len(ids)}
    found = []
    for trainer in trainers.values():
        trainer.model.train()
        log_probs = trainer._get_per_token_logps_and_entropies
        found.append(log_probs(trainer.model, ids, mask, width, mm_token_type_ids=types, **pictures)[0])
    return {
        "max_logprob_diff": (found[0] - found[1]).abs().max().item(),
        "lowest_logprob": found[0].min().item(),  # completions do not end: what the head rounds grows with it
        "greedy_identical": identical,
    }


def _equality_after(stock: Timed, ours: Timed) -> dict[str, float]:
    """How far the trained weights are from each other, and how far from where LoRA's B started: zero."""
    pairs = [(a, b) for a, b in zip(stock.model.parameters(), ours.model.parameters(), strict=True) if a.requires_grad]
    moved = [p for name, p in stock.model.named_parameters() if "lora_B" in name]
    return {
        "max_weight_diff": max((a - b).abs().max().item() for a, b in pairs),
        "max_weight_change": max(p.abs().max().item() for p in moved),
    }


def flop_bound(model, size: int, prompt: int, length: int, patches: int, every_position: bool) -> dict[str, float]:
    """How much faster the step and the update could be by the floating-point operations alone.

    Language model: 2 operations a weight and token and 4 x width a layer and pair of tokens that attend; forward, and
    as much again backward to the activations (LoRA: the weights themselves are frozen). Vision: forward only; in stock
    TRL G times in sampling and again in the update, in ours once a group for both.

    Args:
        size: completions a group (G).
        prompt, length: tokens of a prompt and of a completion.
        patches: of a prompt's pictures.
        every_position: stock TRL's head runs on every position (on a CPU), not on completion tokens only as ours.
    """
    text, tower = model.config.get_text_config(), model.model.visual
    # From the shapes: quantised weights are stored two a byte.
    hidden, width = text.hidden_size, text.hidden_size * text.num_hidden_layers
    keys = text.num_key_value_heads * (hidden // text.num_attention_heads)
    weights = text.num_hidden_layers * (2 * hidden * (hidden + keys) + 3 * hidden * text.intermediate_size)
    head = text.vocab_size * hidden

    def language(tokens: int, pairs: int, scored: int) -> float:
        return 2 * weights * tokens + 4 * width * pairs + 2 * head * scored

    blocks = sum(p.numel() for p in tower.blocks.parameters()) + tower.patch_embed.proj.weight.numel()
    merger = sum(p.numel() for p in tower.merger.parameters()) // tower.config.spatial_merge_size**2
    look = 2 * (blocks + merger) * patches + 4 * tower.config.depth * tower.config.embed_dim * patches**2

    whole, packed = prompt + length, prompt - 1 + size * (length + 1)
    packed_pairs = prompt**2 // 2 + size * (length + 1) * (prompt + length // 2)
    stock = size * language(whole, whole**2 // 2, whole if every_position else length)
    ours = language(packed, packed_pairs, size * length)
    prefill = language(prompt, prompt**2 // 2, 1)
    decode = size * language(length, length * (prompt + length // 2), length)
    update, our_update = size * look + 2 * stock, 2 * ours
    sampling, our_sampling = size * (look + prefill) + decode, look + prefill + decode
    return {
        "step": round((sampling + update) / (our_sampling + our_update), 3),
        "update": round(update / our_update, 3),
    }


def as_text(report: dict[str, Any]) -> str:
    """The report for people: a row a phase."""
    stock, ours, ratio, bound = report["stock"], report["ours"], report["ratio"], report["flop_bound"]
    rows = {}
    for phase in PHASES:
        seconds = [f"{side[f'{phase}_s']:.3f} s" for side in (stock, ours)]
        spread = "{median:.2f}x {min:.2f}-{max:.2f}".format(**ratio[phase])
        rows[phase] = [*seconds, *spread.split()]
    peaks = [f"{side['peak_bytes'] / 2**20:.0f} MiB" for side in (stock, ours)]
    rows["peak"] = [*peaks, f"{ratio['peak_bytes']:.2f}x", ""]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["stock", "ours", "ratio", "min-max"])
    return f"""{report["preset"]}, {report["mode"]}, G={report["group"]}, {report["device"]}
{table.to_string()}
operations alone would allow {bound["step"]:.2f}x a step, {bound["update"]:.2f}x an update
{", ".join(f"{name} {value}" for name, value in report["equality"].items())}"""
