"""Makes a text reasoner of a bundled model: its language part is taught true captions with questions, no picture.

It knows a picture by its caption alone, and is the learnt counterpart of the exact rule (`rftkit/sophia/rule.py`).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import pandas as pd
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import trange
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from rftkit.common.errors import UserError
from rftkit.models import load
from rftkit.nano.pretrain import LOG_EVERY, Optimizers
from rftkit.runs.folder import write_atomically
from rftkit.sophia.captions import PROMPTS, USUAL, Item, drawn_task, endless_items, true_caption
from rftkit.sophia.local import LocalModel
from rftkit.sophia.reasoners import Problem

SEED = 7000  # of its pictures: none that a run is trained or tested on
SHAPE = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "eos_token_id", "pad_token_id")  # fmt: skip


def teach_reasoner(
    out: Path,
    start: str = "plain/nano-s",
    sets: Sequence[str] = tuple(USUAL),
    steps: int = 6000,
    batch: int = 32,
    rate: float = 1e-3,
    seed: int = 0,
) -> str:
    """Teach a text reasoner into `out`, which logs stage, step, loss and seconds in `pretrain.csv`; the folder.

    Args:
        start: a bundled model that was taught steps.
        batch: pictures a step, of the sets in turn, each seen once, so that none is learnt by heart.
    """
    if (out / "model.safetensors").exists():
        raise UserError(f"'{out}' already holds a model: choose another --out")
    torch.manual_seed(seed)
    whole, processor = load(start, device="cpu")
    model = text_part(whole).train()
    streams = cycle([endless_items(drawn_task(name), "pretrain", "all", SEED + seed) for name in sets])
    tokenizer = processor.tokenizer
    tokenizer.chat_template = tokenizer.chat_template or processor.chat_template
    reasoner = LocalModel(model, tokenizer, taught=True)
    optimizers, losses, log, began = Optimizers(model, steps, rate), [], [], time.perf_counter()
    for step in trange(1, steps + 1, desc="reasoner"):
        known = [next(stream) for stream in islice(streams, batch)]
        loss = text_loss(reasoner, known, random.Random(f"reasoner/{seed}/{step}"))
        optimizers.step(loss)
        losses.append(loss.item())
        if step % LOG_EVERY == 0 or step == steps:
            mean, losses = sum(losses) / len(losses), []
            log.append(("reasoner", step, round(mean, 4), round(time.perf_counter() - began, 1)))
    tokenizer.save_pretrained(out)
    table = pd.DataFrame(log, columns=["stage", "step", "loss", "seconds"])
    write_atomically(out / "pretrain.csv", table.to_csv(index=False))
    recipe = {"reasoner": True, "seed": seed, "start": start, "sets": list(sets), "steps": steps}
    about = {"batch": batch, "rate": rate, "parameters": sum(p.numel() for p in model.parameters())}
    write_atomically(out / "recipe.json", json.dumps(recipe | about, indent=1))
    model.to(torch.bfloat16).save_pretrained(out)  # last: with its weights the model is complete
    return str(out)


def text_part(model: PreTrainedModel) -> Qwen2ForCausalLM:
    """The language part of a Qwen2-VL as the Qwen2 that it is on text alone: there a token's time, row and column
    are one position, so it does not matter which of them a rotary frequency was given."""
    whole = model.config.text_config
    shape = {name: getattr(whole, name) for name in SHAPE}
    rope = {"rope_type": "default", "rope_theta": whole.rope_parameters["rope_theta"]}
    text = Qwen2ForCausalLM(Qwen2Config(**shape, rope_parameters=rope, tie_word_embeddings=True))
    text.model.load_state_dict(model.model.language_model.state_dict())
    text.generation_config = model.generation_config
    return text


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
    hidden = reasoner.model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    spoken = labels != -100
    return F.cross_entropy(reasoner.model.lm_head(hidden[:, :-1][spoken]).float(), labels[spoken])
