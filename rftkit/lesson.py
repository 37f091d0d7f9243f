"""What the notebooks share: four rollouts written by hand, GRPO's arithmetic small enough to read, self-checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets
import pandas as pd
import torch
from torch.nn.functional import pad
from transformers import set_seed

from rftkit.evaluate import encode
from rftkit.models import pick_device, quieten
from rftkit.prompts import MODES
from rftkit.rewards import RULES, reward_functions, score
from rftkit.run import folder_of
from rftkit.runs.collect import Methods
from rftkit.runs.fingerprint import versions
from rftkit.runs.folder import is_complete, read_results
from rftkit.settings import METHODS, load_settings
from rftkit.sft import Collator, sft_rows
from rftkit.tasks.example import Example
from rftkit.tasks.registry import open_set
from rftkit.trainer import open_late

# A group of completions of `fixed_example`, an arrow: right, right but not as asked, wrong, vague prose.
STRAIGHT, VAGUE = "it has straight sides", "The picture shows an angular thing."
ROLLOUTS = {
    "thinking": [
        f"<think> {STRAIGHT} </think> <answer> arrow </answer>",
        f"<think> {STRAIGHT} <answer> arrow </answer>",
        "<think> it has six corners </think> <answer> bolt </answer>",
        f"<think> {STRAIGHT} </think> {VAGUE}",
    ],
    "adaptive": [
        "<answer> arrow </answer>",
        f"<think> {STRAIGHT} <answer> arrow </answer>",
        "<think> it has six corners </think> <answer> bolt </answer>",
        VAGUE,
    ],
    "no_thinking": ["arrow", "The picture shows an arrow.", "bolt", VAGUE],
    "think_after_answer": [
        f"<answer> arrow </answer> <reason> {STRAIGHT} </reason>",
        f"<answer> arrow </answer> <reason> {STRAIGHT}",
        "<answer> bolt </answer> <reason> it has six corners </reason>",
        f"{VAGUE} <reason> {STRAIGHT} </reason>",
    ],
}


def fixed_example() -> Example:
    """The example of the hand-written rollouts."""
    return open_set("shapes").examples("test", "base", 1)[0]


def group_advantage(rewards: torch.Tensor) -> torch.Tensor:
    """Advantages [G] of a group's rewards [G]: how far each is above the group's mean, in standard deviations."""
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)


def grpo_loss(log_probs: torch.Tensor, mask: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """GRPO's loss, on-policy: the mean over completions of the mean over each one's tokens.

    log_probs and mask are [G, T], advantages [G].
    """
    ratio = torch.exp(log_probs - log_probs.detach())  # 1, but its gradient is that of log_probs
    per_token = -ratio * advantages[:, None] * mask  # [G, T]
    return (per_token.sum(1) / mask.sum(1)).mean()


def completion_log_probs(model, processor, example: Example, mode: str, completions: Sequence[str]):
    """Log-probs [G, T] of the tokens of G completions, each with its end token, and their mask [G, T]."""
    inputs = encode(processor, [example] * len(completions), mode).to(model.device)
    texts = [text + processor.tokenizer.eos_token for text in completions]
    answer = processor.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").to(model.device)
    for name in ("input_ids", "attention_mask"):
        inputs[name] = torch.cat([inputs[name], answer[name]], 1)
    length = answer["input_ids"].shape[1]
    inputs["mm_token_type_ids"] = pad(inputs["mm_token_type_ids"], (0, length))
    logits = model(**inputs, logits_to_keep=length + 1).logits[:, :-1].float()  # [G, T, V]
    return logits.log_softmax(-1).gather(2, answer["input_ids"][..., None])[..., 0], answer["attention_mask"]


def loss_tokens(processor, example: Example, method: str) -> list[int]:
    """The tokens that carry the loss of `sft` or `sft_all` when it is trained on an example."""
    row = sft_rows([example], METHODS[method].mode)[0]
    collate = open_late(Collator(processor, completion_only_loss=method == "sft"), [example], None)
    labels = collate([row])["labels"][0]
    return labels[labels != -100].tolist()


def check(statement: str, holds: Callable[[], bool]) -> None:
    """Print whether a statement about an exercise's solution holds; an unsolved exercise fails and does not raise."""
    try:
        passed = bool(holds())
    except Exception:  # whatever half a solution raises
        passed = False
    print(f"[{'pass' if passed else 'fail'}] {statement}")


def set_up(seed: int) -> str:
    """Seed everything, quieten the libraries, and return a line about what runs here."""
    set_seed(seed)
    quieten()
    return f"seed {seed}, device {pick_device()}, " + ", ".join(f"{name} {v}" for name, v in versions().items())


def finished(profile: str, methods: Sequence[str], seeds: Sequence[int], out: Path, **overrides) -> Methods:
    """The complete runs by method, whichever notebook made them."""
    found = {}
    for method in methods:
        folders = [folder_of(load_settings(profile, method, seed=seed, **overrides), out) for seed in seeds]
        found[method] = [read_results(folder) for folder in folders if is_complete(folder)]
    return found


def judge(completions: Sequence[str], example: Example, mode: str, rule: str = "strict") -> pd.DataFrame:
    """A row a completion: the parsed answer, each reward of the mode, and their sum."""
    table = pd.DataFrame({"completion": list(completions)})
    table["parsed"] = [score(text, example, mode, rule).parsed for text in completions]
    given = {"answer": [example.answer] * len(completions), "choices": [example.choices] * len(completions)}
    for reward in reward_functions(mode, rule):
        table[reward.__name__] = reward(completions, **given)
    table["reward"] = table.filter(like="_reward").sum(axis=1)
    return table


def playground(example: Example, completion: str) -> ipywidgets.VBox:
    """Type a completion of an example, choose mode and rule, and see how it is judged."""
    wide = ipywidgets.Layout(width="95%")
    text = ipywidgets.Textarea(completion, description="completion", layout=wide)
    modes = ipywidgets.Dropdown(options=list(MODES), value="thinking", description="mode")
    rules = ipywidgets.Dropdown(options=list(RULES), value="strict", description="rule")
    shown = ipywidgets.HTML()

    def update(_=None) -> None:
        shown.value = judge([text.value], example, modes.value, rules.value).drop(columns="completion").to_html()

    for control in (text, modes, rules):
        control.observe(update, "value")
    update()
    return ipywidgets.VBox([text, ipywidgets.HBox([modes, rules]), shown])
