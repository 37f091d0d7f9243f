"""The agent's model: prompts of states, sampling in one batch, and log-probabilities and values of what was said."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import NamedTuple

import torch
from PIL import Image
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

from rftkit.gtr.replies import conversation, thought_tokens
from rftkit.gtr.rules import State
from rftkit.gtr.worlds import picture
from rftkit.shared_prefix.generation import generate_forked, generates_by, positions_of, prefill
from rftkit.shared_prefix.merged_adapter import merged
from rftkit.shared_prefix.vision import unwrapped, with_features

LARGEST = 300  # pixels of a picture's side, as in the released environments; a bundled model sees fewer


class Scores(NamedTuple):
    """Of replies to states: log-probability of each token [N, T] (0 beyond the end) and value of each state [N]."""

    log_probs: torch.Tensor
    values: torch.Tensor


class Policy(nn.Module):
    """A vision-language model that acts, and a value head on the last prompt token's final hidden state.

    The head is the paper's (4096-1024-512-1 on a 7B model) in proportion to the model's width. The prompt that is
    scored is the one that was sampled from: both are made from the state.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, detached: bool = False) -> None:
        super().__init__()
        self.model, self.processor, self.detached = model, processor, detached
        width = unwrapped(model).config.get_text_config().hidden_size
        self.value = nn.Sequential(
            nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width // 8), nn.ReLU(),
            nn.Linear(width // 8, 1),
        ).to(model.device)  # fmt: skip
        config = unwrapped(model).config
        self.never = [config.image_token_id, config.video_token_id]  # no reply may hold a picture's tokens
        self.side = min(LARGEST, isqrt(processor.image_processor.size["longest_edge"]))

    def encode(self, states: Sequence[State]) -> dict[str, torch.Tensor]:
        """Prompts of states, left-padded, with their pictures' features."""
        pictures = [picture(state, self.side) for state in states]
        return encoded(self.model, self.processor, [conversation(state) for state in states], pictures)

    def sample(
        self, states: Sequence[State], temperature: float, most: int, penalty: float = 1.0, batch: int = 256
    ) -> list[list[int]]:
        """A reply to each state as token ids, up to and with its end; greedy at temperature 0.

        Args:
            most: longest reply, tokens.
            penalty: on tokens that have been said, in sampling only (the paper: 1.2); 1 is none.
        """
        options = {"most": most, "penalty": penalty, "never": self.never}
        parts = (states[start : start + batch] for start in range(0, len(states), batch))
        encode = map(self.encode, parts)
        return [r for vision in encode for r in completions(self.model, self.processor, vision, temperature, **options)]

    def score(self, states: Sequence[State], replies: Sequence[list[int]], temperature: float = 1.0) -> Scores:
        """Log-probabilities of replies, at a temperature, and values of the states. A reply may be empty."""
        vision = self.encode(states)
        prompts, mask = vision.pop("input_ids"), vision.pop("attention_mask")
        width = prompts.shape[1]
        answers = pad_sequence([torch.tensor(reply, dtype=torch.long) for reply in replies], batch_first=True)
        lengths = torch.tensor([len(reply) for reply in replies])[:, None]
        said = (torch.arange(answers.shape[1]) < lengths).to(mask)  # [N, T], 1 where a token was said
        answers = answers.to(prompts)
        mask = torch.cat([mask, said], 1)
        vision["mm_token_type_ids"] = torch.cat([vision["mm_token_type_ids"], torch.zeros_like(answers)], 1)
        inner = unwrapped(self.model)
        hidden = inner.model(
            input_ids=torch.cat([prompts, answers], 1),
            attention_mask=mask,
            position_ids=positions_of(inner.model, mask, vision),
            use_cache=False,
            **vision,
        ).last_hidden_state  # [N, P + T, width]
        last = hidden[:, width - 1].float()
        values = self.value(last.detach() if self.detached else last)[:, 0]
        if not answers.shape[1]:
            return Scores(values.new_zeros(len(states), 0), values)
        logits = inner.lm_head(hidden[:, width - 1 : -1]).float() / temperature
        logits[..., self.never] = -torch.inf
        log_probs = logits.log_softmax(-1).gather(-1, answers[..., None])[..., 0]
        return Scores(log_probs * said, values)

    def text(self, reply: list[int]) -> str:
        return self.processor.tokenizer.decode(reply, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def tokens(self, text: str) -> list[int]:
        """A text as a whole reply: its tokens and the end."""
        tokenizer = self.processor.tokenizer
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    def thought_tokens(self, reply: list[int]) -> int:
        return thought_tokens(self.processor.tokenizer, reply)


def encoded(model, processor, conversations: Sequence[list[dict]], pictures: Sequence[Image.Image]) -> dict:
    """Prompts with a picture each, left-padded, with the pictures' features."""
    batch = processor(
        text=[processor.apply_chat_template(messages, add_generation_prompt=True) for messages in conversations],
        images=[[image] for image in pictures],
        padding=True,
        padding_side="left",
        add_special_tokens=False,
        return_tensors="pt",
    )
    return with_features(model, batch.to(model.device))


@torch.no_grad()
def completions(
    model, processor, vision: dict, temperature: float, most: int, penalty: float = 1.0, never: Sequence[int] = ()
) -> list[list[int]]:
    """What a model says to encoded prompts, as token ids up to and with the end; greedy at temperature 0."""
    config = GenerationConfig(
        max_new_tokens=most,
        do_sample=bool(temperature),
        repetition_penalty=penalty,
        suppress_tokens=list(never) or None,
        eos_token_id=unwrapped(model).generation_config.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        **({"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}),
    )
    ends, was_training = torch.tensor(config.eos_token_id).view(-1), model.training
    model.eval()
    with merged(model), generates_by(model, config):
        ids, mask = vision.pop("input_ids"), vision.pop("attention_mask")
        full = generate_forked(model, ids, mask, vision, 1, config, prefill(model, ids, mask, vision))
    model.train(was_training)
    said = full[:, ids.shape[1] :].cpu()
    ended = torch.isin(said, ends).int()
    lengths = (ended.cumsum(1) - ended == 0).sum(1).tolist()  # up to and with the first end token
    return [row[:length].tolist() for row, length in zip(said, lengths, strict=True)]
