"""Makes a text reasoner of a bundled model: its language part is taught true captions with questions, no picture.

It knows a picture by its caption alone, and is the learnt counterpart of the exact rule (`rftkit/sophia/rule.py`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import trange

from rftkit.common.errors import UserError
from rftkit.models import load
from rftkit.nano.pretrain import Optimizers
from rftkit.runs.folder import write_atomically
from rftkit.sophia.captions import PROMPTS, USUAL, Item, drawn_task, items, true_caption
from rftkit.sophia.local import LocalModel
from rftkit.sophia.reasoners import Problem

SEED = 7000  # of its pictures: none that a run is trained or tested on


def teach_reasoner(
    out: Path,
    start: str = "plain/nano-s",
    sets: Sequence[str] = tuple(USUAL),
    pictures: int = 2000,
    steps: int = 600,
    batch: int = 32,
    rate: float = 1e-3,
    seed: int = 0,
) -> str:
    """Teach a text reasoner into `out`; the folder.

    Args:
        start: a bundled model that was taught steps.
        pictures: of each set; each is read by rows or by columns, as chance has it.
    """
    if (out / "model.safetensors").exists():
        raise UserError(f"'{out}' already holds a model: choose another --out")
    torch.manual_seed(seed)
    model, processor = load(start, device="cpu")
    for part in (model.model.language_model, model.lm_head):
        part.requires_grad_(True)
    known = [item for name in sets for item in items(drawn_task(name), "pretrain", "all", pictures, SEED + seed)]
    reasoner = LocalModel(model.train(), _speaker(processor), taught=True)
    optimizers, log = Optimizers(model, steps, rate), []
    for step in trange(steps, desc="reasoner"):
        rng = random.Random(f"reasoner/{seed}/{step}")
        loss = text_loss(reasoner, rng.choices(known, k=batch), rng)
        optimizers.step(loss)
        log.append(loss.item())
    processor.save_pretrained(out)
    recipe = {"start": start, "sets": list(sets), "pictures": pictures, "steps": steps, "batch": batch, "rate": rate}
    parameters = sum(p.numel() for p in model.parameters())
    about = {"seed": seed, "parameters": parameters, "loss": sum(log[-50:]) / len(log[-50:])}
    write_atomically(out / "recipe.json", json.dumps(recipe | about, indent=1))
    model.to(torch.bfloat16).save_pretrained(out)  # last: with its weights the model is complete
    return str(out)


def _speaker(processor):
    """A processor's tokenizer that can write a conversation."""
    processor.tokenizer.chat_template = processor.tokenizer.chat_template or processor.chat_template
    return processor.tokenizer


def text_loss(reasoner: LocalModel, known: Sequence[Item], rng: random.Random) -> torch.Tensor:
    """The mean negative log-likelihood of the true steps and answers behind true captions, a token."""
    ends, pairs = reasoner.tokenizer.eos_token, []
    for item in known:
        prompt, example = rng.choice(list(PROMPTS)), item.example
        problem = Problem("", example.question, example.choices, true_caption(item.scene, prompt), prompt)
        said = f"<think> {', '.join(example.steps)} </think> <answer> {example.answer} </answer>{ends}"
        pairs.append(reasoner.tokenizer([reasoner.asked(problem), said], add_special_tokens=False)["input_ids"])
    ids = [torch.tensor(asked + answer) for asked, answer in pairs]
    labels = [torch.tensor([-100] * len(asked) + answer) for asked, answer in pairs]
    mask = pad_sequence([torch.ones_like(row) for row in ids], True)  # [B, T]
    ids, labels = pad_sequence(ids, True), pad_sequence(labels, True, padding_value=-100)[:, 1:]
    positions = torch.arange(ids.shape[1]).expand(3, len(ids), -1)  # text alone: time, row and column are the same
    hidden = reasoner.model.model(input_ids=ids, attention_mask=mask, position_ids=positions).last_hidden_state
    spoken = labels != -100
    return F.cross_entropy(reasoner.model.lm_head(hidden[:, :-1][spoken]).float(), labels[spoken])
