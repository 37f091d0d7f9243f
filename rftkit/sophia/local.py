"""A language model on this machine as a reasoner: a bundled one on text alone, or any causal language model."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from rftkit.common.errors import UserError
from rftkit.common.processor import FAMILIES
from rftkit.models import load, pick_device, read, resolve
from rftkit.sophia.reasoners import Problem, messages

AT_ONCE = 128  # reasonings in memory


@dataclass
class LocalModel:
    """A model with its tokenizer. `taught`: it was taught problems as they are, by the kit; else it is instructed."""

    model: PreTrainedModel
    tokenizer: Any
    taught: bool = False
    max_tokens: int = 512
    temperature: float = 1.0
    seconds: float = math.inf  # for a batch; what was not begun until then is not there

    @classmethod
    def named(
        cls, name: str, device: str | None = None, max_tokens: int = 512, seconds: float = math.inf
    ) -> LocalModel:
        """By a bundled name, a folder or a hub id; safetensors only."""
        if read(AutoConfig.from_pretrained, name).model_type in FAMILIES:
            model, processor = load(name, device=device)
            tokenizer = processor.tokenizer
            tokenizer.chat_template = tokenizer.chat_template or processor.chat_template
        else:
            tokenizer = read(_tokenizer, name)
            device = device or pick_device()
            dtype = torch.float32 if device == "cpu" else torch.bfloat16  # as in `rftkit.models.load`
            options = {"use_safetensors": True, "dtype": dtype, "output_loading_info": True}
            model, info = read(AutoModelForCausalLM.from_pretrained, name, **options)
            if missing := sorted(info["missing_keys"]):  # they would be random numbers
                raise UserError(f"cannot read model '{name}': its weights lack {len(missing)} parts")
            model = model.to(device).eval()
        if tokenizer.chat_template is None:
            raise UserError(f"model '{name}' has no chat template: name one that is tuned to instructions")
        tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.pad_token or tokenizer.eos_token
        return cls(model, tokenizer, (Path(resolve(name)) / "recipe.json").is_file(), max_tokens, seconds=seconds)

    def asked(self, problem: Problem) -> str:
        """A problem as this model's prompt."""
        talk = [{"role": "user", "content": problem.text}] if self.taught else messages(problem)
        return self.tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)

    @torch.no_grad()
    def reason(self, problems: Sequence[Problem], n: int, seed: int) -> list[list[str | None]]:
        """`n` reasonings on each caption, drawn at `temperature`."""
        set_seed(seed)
        ends = self.model.generation_config.eos_token_id or self.tokenizer.eos_token_id
        config = GenerationConfig(
            max_new_tokens=self.max_tokens, do_sample=True, temperature=self.temperature, top_k=0, top_p=1.0,
            num_return_sequences=n, eos_token_id=ends,
            pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        said, size, ends = [], max(1, AT_ONCE // n), time.monotonic() + self.seconds
        for start in range(0, len(problems), size):
            if (left := ends - time.monotonic()) <= 0:
                return said + [[None] * n] * (len(problems) - start)
            config.max_time = None if left == math.inf else left  # it stops by itself: nothing goes on behind training
            texts = [self.asked(problem) for problem in problems[start : start + size]]
            batch = self.tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
            batch = {name: batch[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
            full = self.model.generate(**batch, generation_config=config)
            out = self.tokenizer.batch_decode(full[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            said += [out[row : row + n] for row in range(0, len(out), n)]
        return said


def _tokenizer(path: str):
    """A model's tokenizer. AutoTokenizer (5.23) splits words by Qwen2's rule for every qwen2, whatever its files say: a
    model with a rule of its own would be asked in other tokens than it was taught."""
    alone = get_tokenizer_config(path).get("tokenizer_class") == PreTrainedTokenizerFast.__name__
    return (PreTrainedTokenizerFast if alone else AutoTokenizer).from_pretrained(path)
