"""The small pieces the notebooks carry by hand: four fixed rollouts a mode, the group's advantage and the GRPO loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rftkit.prompts import conversation
from rftkit.tasks import Example

# One right and well-formed, one right with broken tags (or prose around it), one wrong, one vague.
ROLLOUTS = {
    "thinking": (
        "<think> it has five points </think> <answer> star </answer>",
        "<think> it has five points <answer> star </answer>",
        "<think> it has three corners </think> <answer> triangle </answer>",
        "The picture shows an angular thing.",
    ),
    "no_thinking": ("star", "The picture shows a star.", "triangle", "The picture shows an angular thing."),
    "think_after_answer": (
        "<answer> star </answer> <reason> it has five points </reason>",
        "<answer> star <reason> it has five points </reason>",
        "<answer> triangle </answer> <reason> it has three corners </reason>",
        "The picture shows an angular thing.",
    ),
}


def group_advantage(rewards: Sequence[float]) -> torch.Tensor:
    """How much better than its group each completion did: (r - mean) / (std + 1e-4)."""
    r = torch.tensor(rewards, dtype=torch.float32)
    return (r - r.mean()) / (r.std() + 1e-4)


def grpo_loss(log_probs: Sequence[torch.Tensor], advantages: torch.Tensor) -> torch.Tensor:
    """The on-policy GRPO loss: each completion's mean over its tokens of -ratio x advantage, then the group's mean.

    On the policy that sampled, the ratio is 1 in value, but its gradient is that of the log-probability.
    """
    ratios = [torch.exp(lp - lp.detach()) for lp in log_probs]
    return torch.stack([-(r * a).mean() for r, a in zip(ratios, advantages, strict=True)]).mean()


def completion_log_probs(
    model, processor, example: Example, mode: str, completions: Sequence[str]
) -> list[torch.Tensor]:
    """The log-probability of each token of each completion [T] (end token included), given the example's prompt."""
    found = []
    for completion in completions:
        prompt = processor.apply_chat_template(conversation(example, mode), add_generation_prompt=True)
        answer = completion + processor.tokenizer.eos_token
        batch = processor(text=[prompt + answer], images=[list(example.images)], return_tensors="pt").to(model.device)
        length = len(processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
        log_probs = model(**batch).logits[0, -length - 1 : -1].log_softmax(-1)  # [T, V]
        found.append(log_probs.gather(1, batch["input_ids"][0, -length:, None])[:, 0])
    return found
