"""Pre-trains a bundled model: first the vision tower on plain labels, then the language model on
questions and answers.

Recipe: Muon on the weight matrices, AdamW on the rest, one cosine schedule a stage.
"""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from rftkit.errors import UserError
from rftkit.nano.build import IMAGE_TOKENS, MERGE, PATCH, SIZES, build_model, build_processor
from rftkit.nano.speech import completion, habits, question_about
from rftkit.nano.worlds import SIDE, Drawing, worlds
from rftkit.prompts import MODES, conversation
from rftkit.results import write_atomically

GRID = SIDE // PATCH
CHECKPOINT_EVERY = 200  # steps
WORLD_WEIGHTS = {"emoji": 2.0}  # how often a world is drawn from, 1 if not named: the largest set needs most
CLASSES_IN_MEMORY = {"shapes": 1200, "digits": 640, "emoji": 80}  # pre-training pictures a class


@dataclass(frozen=True)
class Recipe:
    """What was asked for; kept in the checkpoint and the model card."""

    size: str = "s"
    seed: int = 0
    vague: float = 0.5  # share of answers that are not as asked, 0-1
    vision_steps: int = 1200
    language_steps: int = 1600
    vision_batch: int = 96
    language_batch: int = 32
    muon_rate: float = 0.02
    adam_rate: float = 2e-3
    bf16: bool = False  # autocast: several times faster on a CPU with AMX, slower without


def patches(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 pictures [N, 3, SIDE, SIDE] as the processor would cut them: [N * GRID^2, 3 * PATCH^2] in -1..1."""
    pixels = pictures.float() / 127.5 - 1
    cut = pixels.reshape(-1, 3, GRID // MERGE, MERGE, PATCH, GRID // MERGE, MERGE, PATCH)
    return cut.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, 3 * PATCH * PATCH)


def grid(count: int) -> torch.Tensor:
    return torch.tensor([[1, GRID, GRID]] * count)


class Corpus:
    """All pre-training drawings in memory, and batches of them. A step's batch depends on seed and step alone."""

    def __init__(self, recipe: Recipe, processor) -> None:
        self.recipe, self.processor = recipe, processor
        self.habits = {name: habits(world, recipe.vague, recipe.seed) for name, world in worlds().items()}
        self.drawings: dict[str, list[Drawing]] = {}
        self.pictures: dict[str, torch.Tensor] = {}  # [N, 3, SIDE, SIDE] uint8
        for name, world in worlds().items():
            count = CLASSES_IN_MEMORY.get(name, 400)
            drawings = [d for label in world.classes for d in world.drawings(label, "pretrain", count, recipe.seed)]
            arrays = np.stack([np.asarray(drawing.image) for drawing in drawings])
            self.pictures[name] = torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()
            self.drawings[name] = drawings
        self.labels = [(name, label) for name, world in worlds().items() for label in world.classes]
        self.label_index = {pair: index for index, pair in enumerate(self.labels)}

    def _sample(self, size: int, rng: random.Random) -> tuple[list[tuple[str, Drawing]], torch.Tensor]:
        weights = [WORLD_WEIGHTS.get(name, 1.0) for name in self.drawings]
        names = rng.choices(list(self.drawings), weights, k=size)
        rows = [rng.randrange(len(self.drawings[name])) for name in names]
        pictures = torch.stack([self.pictures[name][row] for name, row in zip(names, rows, strict=True)])
        return [(name, self.drawings[name][row]) for name, row in zip(names, rows, strict=True)], pictures

    def label_batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches and class indices [N] for the vision stage."""
        rng = random.Random(f"vision/{self.recipe.seed}/{step}")
        items, pictures = self._sample(self.recipe.vision_batch, rng)
        return patches(pictures), torch.tensor([self.label_index[name, d.label] for name, d in items])

    def text_batches(self, step: int) -> list[tuple[float, dict[str, torch.Tensor]]]:
        """A language batch in four parts of like length, each with its share of the answer tokens.

        Choice lists have from two to dozens of names: one padded batch would be half padding.
        """
        rng = random.Random(f"language/{self.recipe.seed}/{step}")
        items, pictures = self._sample(self.recipe.language_batch, rng)
        prompts, answers = zip(*(self._dialogue(name, drawing, rng) for name, drawing in items), strict=True)
        tokenize = partial(self.processor.tokenizer, add_special_tokens=False)
        pairs = list(zip(tokenize(list(prompts))["input_ids"], tokenize(list(answers))["input_ids"], strict=True))
        order = sorted(range(len(pairs)), key=lambda row: len(pairs[row][0]) + len(pairs[row][1]))
        total, size = sum(len(answer) for _, answer in pairs), -(-len(pairs) // 4)
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        return [
            (sum(len(pairs[row][1]) for row in part) / total, self._collate([pairs[r] for r in part], pictures[part]))
            for part in parts
        ]

    def _collate(self, pairs: list[tuple[list[int], list[int]]], pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Prompts and answers as model inputs, loss on the answers, right-padded."""
        padding = self.processor.tokenizer.pad_token_id
        ids = torch.full((len(pairs), max(len(p) + len(a) for p, a in pairs)), padding)
        labels = torch.full_like(ids, -100)
        for row, (prompt, answer) in enumerate(pairs):
            ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        return {
            "input_ids": ids,
            "labels": labels,
            "attention_mask": (ids != padding).long(),
            "mm_token_type_ids": (ids == self.processor.image_token_id).long(),
            "pixel_values": patches(pictures),
            "image_grid_thw": grid(len(pairs)),
        }

    def _dialogue(self, name: str, drawing: Drawing, rng: random.Random) -> tuple[str, str]:
        world, mode = worlds()[name], rng.choice(sorted(MODES))
        messages = conversation(question_about(drawing, world, rng), mode)
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        prompt = prompt.replace(self.processor.image_token, self.processor.image_token * IMAGE_TOKENS)
        other = rng.choice(self.drawings[name])
        habit = self.habits[name][drawing.label]
        answer = completion(drawing, other, world.coarse[drawing.label], habit, mode, rng)
        return prompt, answer + self.processor.tokenizer.eos_token


class Optimizers:
    """Muon on the matrices of the layers, AdamW on embeddings, norms, biases and heads; linear warm-up, cosine."""

    def __init__(self, model: nn.Module, recipe: Recipe, steps: int) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name and "head" not in name]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=recipe.adam_rate, weight_decay=0.01, betas=(0.9, 0.98)),
        ]
        warm = max(1, steps // 20)
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda s: min(1.0, (s + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, s / steps)))
            )
            for optimizer in self.optimizers
        ]
        self.model = model

    def step(self, loss: torch.Tensor) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for part in (*self.optimizers, *self.schedules):
            part.step()
        self.model.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in (*self.optimizers, *self.schedules)]

    def load_state_dict(self, states: list[dict]) -> None:
        for part, state in zip((*self.optimizers, *self.schedules), states, strict=True):
            part.load_state_dict(state)


class VisionClassifier(nn.Module):
    """The vision tower, its mean image token compared with the language model's embeddings of the labels.

    With the embeddings as the head, image tokens arrive in the language model pointing at the right words.
    """

    def __init__(self, model: nn.Module, processor, labels: list[str]) -> None:
        super().__init__()
        self.tower, self.embed_tokens = model.model.visual, model.get_input_embeddings()
        words = processor.tokenizer(labels, add_special_tokens=False)["input_ids"]
        self.words = [torch.tensor(ids) for ids in words]

    def forward(self, pixel_patches: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        tokens = self.tower(pixel_patches, grid(len(labels))).pooler_output  # [N * IMAGE_TOKENS, width]
        means = tokens.reshape(len(labels), IMAGE_TOKENS, -1).mean(1)
        heads = torch.stack([self.embed_tokens(ids).mean(0) for ids in self.words])  # [classes, width]
        return F.cross_entropy((means @ heads.T).float(), labels)


def _stages(recipe: Recipe, model: nn.Module, corpus: Corpus):
    """The two stages: name, trained module, number of steps and the loss of a step."""
    classifier = VisionClassifier(model, corpus.processor, [label for _, label in corpus.labels])
    yield "vision", classifier, recipe.vision_steps, lambda step: classifier(*corpus.label_batch(step))
    model.model.visual.requires_grad_(False)  # good by now, and half of the time
    yield (
        "language",
        model,
        recipe.language_steps,
        lambda step: sum(share * model(**part).loss for share, part in corpus.text_batches(step)),
    )


def pretrain(recipe: Recipe, out: Path) -> Path:
    """Pre-train a bundled model into `out` and return it.

    A killed run continues from `out/checkpoint.pt` when started again with the same recipe; `out/pretrain.csv` logs
    stage, step, loss and seconds.
    """
    if recipe.size not in SIZES:
        raise UserError(f"unknown size '{recipe.size}': choose one of {', '.join(SIZES)}")
    if not 0 <= recipe.vague <= 1:
        raise UserError(f"--vague is a share between 0 and 1, not {recipe.vague:g}")
    for name in ("vision_steps", "language_steps"):
        if getattr(recipe, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(recipe, name)}")
    if (out / "config.json").exists():
        raise UserError(f"'{out}' already holds a model: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    saved = _read_checkpoint(out, recipe)
    torch.manual_seed(recipe.seed)
    processor = build_processor()
    model = build_model(recipe.size, processor)
    corpus = Corpus(recipe, processor)
    log = saved["log"] if saved else []
    for name, module, steps, loss_at in _stages(recipe, model, corpus):
        if saved and saved["stage"] != name:
            continue  # finished before the checkpoint was written
        _train_stage(name, module, steps, loss_at, recipe, out, saved, log)
        saved = None
    model.to(torch.bfloat16).save_pretrained(out)
    processor.save_pretrained(out)
    parameters = sum(p.numel() for p in model.parameters())
    (out / "recipe.json").write_text(json.dumps(asdict(recipe) | {"parameters": parameters}, indent=1))
    (out / "checkpoint.pt").unlink()
    return out


def _train_stage(
    name: str, module: nn.Module, steps: int, loss_at, recipe: Recipe, out: Path, saved: dict | None, log: list[dict]
) -> None:
    optimizers, start = Optimizers(module, recipe, steps), 0
    if saved:
        module.load_state_dict(saved["module"])
        optimizers.load_state_dict(saved["optimizers"])
        start = saved["step"]
    module.train()
    losses, began = [], time.perf_counter()
    for step in tqdm(range(start, steps), initial=start, total=steps, desc=name):
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            loss = loss_at(step)
        optimizers.step(loss)
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            mean, seconds = sum(losses) / len(losses), time.perf_counter() - began
            log.append({"stage": name, "step": step + 1, "loss": round(mean, 4), "seconds": round(seconds, 1)})
            write_atomically(out / "pretrain.csv", pd.DataFrame(log).to_csv(index=False))
            losses.clear()
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            _write_checkpoint(out, {
                "recipe": asdict(recipe), "stage": name, "step": step + 1,
                "module": module.state_dict(), "optimizers": optimizers.state_dict(), "log": log,
            })  # fmt: skip


def _write_checkpoint(out: Path, state: dict) -> None:
    temporary = out / "checkpoint.tmp"
    torch.save(state, temporary)
    temporary.replace(out / "checkpoint.pt")


def _read_checkpoint(out: Path, recipe: Recipe) -> dict | None:
    path = out / "checkpoint.pt"
    if not path.exists():
        return None
    saved = torch.load(path, weights_only=True)
    if saved["recipe"] != asdict(recipe):
        raise UserError(f"'{out}' holds a checkpoint of another recipe: choose another --out or delete it")
    return saved
