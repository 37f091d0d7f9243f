"""Log-probabilities of several answers to each prompt, in one pass behind the prompt's cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from rftkit.shared_prefix.vision import unwrapped

LOGITS_BYTES = 256 * 2**20  # of answers' logits in one pass, in fp32; a single answer to each prompt may have more


def log_probs_behind(model, ids, mask, cache, answers: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
    """Log-probabilities [B, K] of up to K answers, token ids each, behind each prompt [B, P]; -inf where there is none.

    They go through the model together, as many as their logits allow, each behind the prompt's last token: they see it,
    what is in `prefill`'s cache, which stays, and themselves.
    """
    most, words = max(map(len, answers)), unwrapped(model).config.get_text_config().vocab_size
    if most > 1 and 4 * words * len(ids) * max(sum(map(len, own)) for own in answers) > LOGITS_BYTES:
        halves = [own[: most // 2] for own in answers], [own[most // 2 :] for own in answers]
        return torch.cat([log_probs_behind(model, ids, mask, cache, half) for half in halves], 1)
    rows, shift = [], unwrapped(model).model.rope_deltas  # an image's rows and columns share steps; None without images
    predicted: list[tuple[int, int, int, int]] = []  # row, answer, place of the token before, token
    for row, (last, own) in enumerate(zip(ids[:, -1].tolist(), answers, strict=True)):
        packed = [(last, 0, 0)]  # a token, its answer (0: the prompt) and its distance from the prompt
        for number, answer in enumerate(own):
            places = [0, *range(len(packed), len(packed) + len(answer) - 1)]
            predicted += [(row, number, *pair) for pair in zip(places, answer, strict=True)]
            packed += [(token, number + 1, step) for step, token in enumerate(answer[:-1], 1)]
        rows.append(torch.tensor(packed))
    tokens, segment, step = pad_sequence(rows, True).to(ids.device).unbind(-1)  # [B, W]
    here = (segment[:, :, None] == segment[:, None, :]) | (segment[:, None, :] == 0)
    sees = torch.cat([mask[:, None, :-1].bool().expand(-1, tokens.shape[1], -1), here.tril()], -1)
    positions = mask.sum(1, keepdim=True) - 1 + step + (0 if shift is None else shift)
    logits = model(
        input_ids=tokens,
        attention_mask=sees[:, None],
        # The model's own positions would count the cache's tokens again.
        position_ids=positions.expand(3, -1, -1),
        past_key_values=cache,
        use_cache=True,
    ).logits
    cache.crop(-tokens.shape[1])
    row, number, place, token = torch.tensor(predicted, device=ids.device).T
    found = logits.float().log_softmax(-1)[row, place, token]
    count = torch.tensor([len(own) for own in answers], device=ids.device)
    totals = found.new_zeros(len(ids), int(count.max())).index_put((row, number), found, accumulate=True)
    return totals.masked_fill(torch.arange(totals.shape[1], device=ids.device) >= count[:, None], -torch.inf)
