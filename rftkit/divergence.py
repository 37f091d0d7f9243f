"""How far training moved a model: forward KL from the base model (RL's Razor, arXiv 2509.04259)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rftkit.decoding import prefill
from rftkit.evaluate import encode, generate, log_probs_behind
from rftkit.tasks import Example
from rftkit.vision import with_features


class BaseAnswers:
    """What a model draws before it is trained, a completion an example, and its log-probabilities then.

    Make it before training; the caller's random numbers are left as they were.

    Args:
        options: `max_tokens`, `batch_size` and `max_pixels` as of `evaluate.generate`.
    """

    def __init__(self, model, processor, examples: Sequence[Example], mode: str, seed: int, **options) -> None:
        self.model, self.processor, self.examples, self.mode, self.options = model, processor, examples, mode, options
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = generate(model, processor, examples, mode, samples=1, **options)
        self.completions = [answer.ids[0] for answer in drawn]
        self.before = self._log_probs()

    def forward_kl(self) -> float:
        """KL(base || model) in nats a completion, estimated on the drawn completions."""
        return float((self.before - self._log_probs()).mean())

    @torch.no_grad()
    def _log_probs(self) -> torch.Tensor:
        size, found, was_training = self.options["batch_size"], [], self.model.training
        self.model.eval()
        for start in range(0, len(self.examples), size):
            part = slice(start, start + size)
            batch = encode(self.processor, self.examples[part], self.mode, self.options.get("max_pixels"))
            batch = batch.to(self.model.device)
            ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
            cache = prefill(self.model, ids, mask, with_features(self.model, batch))
            answers = [[completion.tolist()] for completion in self.completions[part]]
            found.append(log_probs_behind(self.model, ids, mask, cache, answers)[:, 0].cpu())
        self.model.train(was_training)
        return torch.cat(found)
