"""Pre-trains a bundled model: the vision tower on words, the language model on questions, and then its manners.

Recipe: in the vision stage Muon on the weight matrices and AdamW on the rest, then AdamW; a cosine schedule each.
What is known is learnt first, from answers that are all as asked; how the model answers comes last.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import ProcessorMixin

from rftkit.common.errors import UserError, within
from rftkit.models import load
from rftkit.nano.build import IMAGE_TOKENS, SIZES, build_model, build_processor
from rftkit.nano.corpus import Corpus, Recipe, grid
from rftkit.runs.folder import write_atomically
from rftkit.shared_prefix.vision import VisionFeatures, with_features
from rftkit.tasks.registry import bundled_sets

CHECKPOINT_EVERY, LOG_EVERY = 200, 50  # steps
SEEN = VisionFeatures(2 * 2**30)  # bytes: a corpus picture comes again and again while the tower stays as it is
STEPS = ("vision_steps", "drill_steps", "language_steps", "manner_steps")  # of a recipe


class Optimizers:
    """Muon on the matrices of the layers, if it has a rate; AdamW on all the rest; linear warm-up, cosine."""

    def __init__(self, model: nn.Module, steps: int, adam_rate: float, muon_rate: float | None = None) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if muon_rate and p.ndim == 2 and "embed" not in name and "head" not in name]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        self.optimizers = [torch.optim.AdamW(rest, lr=adam_rate, weight_decay=0.01, betas=(0.9, 0.98))]
        if muon_rate:
            self.optimizers.append(torch.optim.Muon(matrices, lr=muon_rate, weight_decay=0.01))
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


class VisionReader(nn.Module):
    """The vision tower, its image tokens compared with the language model's embeddings of words and of places.

    With the embeddings as the head, image tokens arrive in the language model pointing at the right words, written as
    within a sentence.
    """

    def __init__(self, model: nn.Module, processor, words: list[str], first_place: int, before: str = " ") -> None:
        super().__init__()
        self.tower, self.embed_tokens = model.model.visual, model.get_input_embeddings()
        ids = processor.tokenizer([before + word for word in words], add_special_tokens=False)["input_ids"]
        self.words = [torch.tensor(of_word) for of_word in ids]
        self.is_place = torch.arange(len(words)) >= first_place

    def heads(self) -> torch.Tensor:
        """The mean embedding of each word's tokens, [words, width]."""
        return torch.stack([self.embed_tokens(ids).mean(0) for ids in self.words])

    def forward(self, pixel_patches: torch.Tensor, means, words, weights) -> torch.Tensor:
        """The loss of a `Corpus.word_batch`: each word among all words, each place among all places."""
        tokens = self.tower(pixel_patches, grid(means.shape[1] // IMAGE_TOKENS)).pooler_output
        logits = (means @ tokens @ self.heads().T).float()  # [M, words]
        logits = logits.masked_fill(self.is_place[words][:, None] != self.is_place, -torch.inf)
        losses = F.cross_entropy(logits, words, reduction="none")  # [M]
        return (losses * weights).sum() / weights.sum()


def answer_loss(model: nn.Module, part: dict[str, torch.Tensor]) -> torch.Tensor:
    """The language-model loss of a part of `Corpus.text_batches`; logits are computed only where a label is."""
    labels = part["labels"][:, 1:]
    inputs = with_features(model, {name: value for name, value in part.items() if name != "labels"}, SEEN)
    hidden = model.model(**inputs).last_hidden_state[:, :-1][labels != -100]
    return F.cross_entropy(model.lm_head(hidden).float(), labels[labels != -100])


@dataclass(frozen=True)
class Stage:
    """A part of pre-training: its name in the log, what it trains for how long, how, and the loss of a step."""

    name: str
    module: nn.Module
    steps: int
    rates: tuple[float, ...]  # of AdamW and, if there is another, Muon
    loss_at: Callable[[int], torch.Tensor]


def _stages(recipe: Recipe, model: nn.Module, corpus: Corpus) -> Iterator[Stage]:
    """What is to be known, if there is no model that knows it, and the manners."""
    if recipe.start is None:
        reader = VisionReader(model, corpus.processor, corpus.words, corpus.first_place, corpus.before_words)
        rates = (recipe.adam_rate, recipe.muon_rate)
        yield Stage("vision", reader, recipe.vision_steps, rates, lambda step: reader(*corpus.word_batch(step)))
        even_out(reader, corpus)
    model.model.visual.requires_grad_(False)  # good by now, and a third of the time

    def loss_from(first: int) -> Callable[[int], torch.Tensor]:  # batches are counted through both stages
        return lambda step: language_loss(model, corpus.text_batches(first + step))

    if recipe.start is None:
        yield Stage("language", model, recipe.language_steps, (recipe.language_rate,), loss_from(0))
    if recipe.manner_steps:
        yield Stage("manners", model, recipe.manner_steps, (recipe.manner_rate,), loss_from(recipe.language_steps))


def language_loss(model: nn.Module, parts: list[tuple[float, dict[str, torch.Tensor]]]) -> torch.Tensor:
    """The loss of a batch of `Corpus.text_batches`, each part by its share."""
    return sum(share * answer_loss(model, part) for share, part in parts)


@torch.no_grad()
def even_out(reader: VisionReader, corpus: Corpus) -> None:
    """Scale the vision tower's last layer so that image tokens are as large as the embeddings of what they are read as.

    Reading words off them makes them many times as large. What the language model finds of a token, such as its
    place, it adds to it; to one so large it would have to add much.
    """
    pixel_patches, means, _, _ = corpus.word_batch(0)
    tokens = reader.tower(pixel_patches, grid(means.shape[1] // IMAGE_TOKENS)).pooler_output
    for parameter in reader.tower.merger.mlp[-1].parameters():
        parameter *= reader.heads().std() / tokens.std()


def pretrain(recipe: Recipe, out: Path, corpus_of=Corpus, processor_of=build_processor) -> Path:
    """Pre-train a bundled model into `out` and return it. `nano.agent` has another corpus, with a processor for it.

    A killed run continues from `out/checkpoint.pt` when started again with the same recipe; `out/pretrain.csv` logs
    stage, step, loss and seconds.
    """
    _check(recipe)
    if (out / "model.safetensors").exists() and not (out / "checkpoint.pt").exists():  # with one it may be truncated
        raise UserError(f"'{out}' already holds a model: choose another --out")
    torch.manual_seed(recipe.seed)
    model, processor = _first_model(recipe, processor_of)
    out.mkdir(parents=True, exist_ok=True)
    saved = _read_checkpoint(out, recipe)
    corpus = corpus_of(recipe, processor)
    log = saved["log"] if saved else []
    for stage in _stages(recipe, model, corpus):
        if saved and saved["stage"] != stage.name:
            continue  # finished before the checkpoint was written
        _train(stage, recipe, out, saved, log)
        saved = None
    processor.save_pretrained(out)
    parameters = sum(p.numel() for p in model.parameters())
    write_atomically(out / "recipe.json", json.dumps(asdict(recipe) | {"parameters": parameters}, indent=1))
    model.to(torch.bfloat16).save_pretrained(out)  # last: with its weights the model is complete
    (out / "checkpoint.pt").unlink()
    return out


def pretrain_model(out: Path, **options) -> str:
    """`pretrain` with those fields of a `Recipe` that are not None; the folder."""
    given = {name: value for name, value in options.items() if value is not None}
    return str(pretrain(Recipe(**given), out))


def _check(recipe: Recipe) -> None:
    if recipe.size not in SIZES:
        raise UserError(f"unknown size '{recipe.size}': choose one of {', '.join(SIZES)}")
    if not 0 <= recipe.vague <= 1:
        raise UserError(f"--vague is a share between 0 and 1, not {recipe.vague:g}")
    if unknown := [name for name in recipe.sets if name not in bundled_sets()]:
        raise UserError(f"unknown dataset '{unknown[0]}': --sets names some of {', '.join(bundled_sets())}")
    within("--seed", recipe.seed, 0, 2**32 - 1)
    for name in STEPS:
        least = 0 if name == "manner_steps" and recipe.start is None else 1
        within(f"--{name.replace('_', '-')}", getattr(recipe, name), least, 10**6)


def _first_model(recipe: Recipe, processor_of=build_processor) -> tuple[nn.Module, ProcessorMixin]:
    """A new model, or the one to start from, and its processor.

    A model keeps its own tokenizer: one made anew cuts words elsewhere once a drawn task has changed.
    """
    if recipe.start is None:
        processor = processor_of()
        return build_model(recipe.size, processor), processor
    begun, processor = load(recipe.start, device="cpu")
    try:
        model = build_model(recipe.size, processor)
        model.load_state_dict(begun.state_dict())
    except (RuntimeError, TypeError) as error:  # other shapes; tokens that there are not
        line = f"'{recipe.start}' is no model of size '{recipe.size}' that rftkit nano pretrain made"
        raise UserError(line) from error
    return model, processor


def _train(stage: Stage, recipe: Recipe, out: Path, saved: dict | None, log: list[dict]) -> None:
    optimizers = Optimizers(stage.module, stage.steps, *stage.rates)
    start = 0
    if saved:
        stage.module.load_state_dict(saved["module"])
        optimizers.load_state_dict(saved["optimizers"])
        start = saved["step"]
    stage.module.train()
    losses, began = [], time.perf_counter()
    for step in tqdm(range(start, stage.steps), initial=start, total=stage.steps, desc=stage.name):
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            loss = stage.loss_at(step)
        optimizers.step(loss)
        losses.append(loss.item())
        if (step + 1) % LOG_EVERY == 0:
            mean, seconds = sum(losses) / len(losses), time.perf_counter() - began
            log.append({"stage": stage.name, "step": step + 1, "loss": round(mean, 4), "seconds": round(seconds, 1)})
            write_atomically(out / "pretrain.csv", pd.DataFrame(log).to_csv(index=False))
            losses.clear()
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == stage.steps:
            _write_checkpoint(out, {
                "recipe": asdict(recipe), "stage": stage.name, "step": step + 1, "log": log,
                "module": stage.module.state_dict(), "optimizers": optimizers.state_dict(),
            })  # fmt: skip


def _write_checkpoint(out: Path, state: dict) -> None:
    temporary = out / "checkpoint.tmp"
    torch.save(state, temporary)
    temporary.replace(out / "checkpoint.pt")


def _read_checkpoint(out: Path, recipe: Recipe) -> dict | None:
    path = out / "checkpoint.pt"
    if not path.exists():
        return None
    try:
        saved = torch.load(path, weights_only=True)
        other = saved["recipe"] != asdict(recipe)
    except Exception as error:  # of truncated files torch raises all kinds
        raise UserError(f"'{path}' is truncated: delete it to start from the beginning") from error
    if other:
        raise UserError(f"'{out}' holds a checkpoint of another recipe: choose another --out or delete it")
    return saved
