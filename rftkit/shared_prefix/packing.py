"""Several completions of one prompt as one sequence: the layout behind `sharing.py`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence


@dataclass
class Packed:
    """Groups packed into one sequence each, right-padded to length L.

    ids [N, L]; mask [N, 1, L, L], True where a token may look; positions [3, N, L]; labels [N, L], the token each
    position predicts (-100: none); rows and columns [M] say where the M completion tokens' predictions stand, in the
    order of the completions.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor


def pack(prompts: list[torch.Tensor], positions: list[torch.Tensor], completions: list[list[torch.Tensor]]) -> Packed:
    """Pack groups: a prompt [P], its positions [3, P] and the group's completions [C_g] each."""
    ids, segments, places, labels, rows, columns = [], [], [], [], [], []
    for row, (prompt, place, group) in enumerate(zip(prompts, positions, completions, strict=True)):
        device, length = prompt.device, len(prompt) - 1
        nothing = torch.full((1,), -100, device=device)
        parts, marks, steps, targets = [prompt[:-1]], [torch.zeros(length, device=device)], [place[:, :-1]], []
        targets.append(nothing.expand(length))
        start = length
        for number, completion in enumerate(group, 1):
            size = len(completion) + 1
            parts.append(torch.cat([prompt[-1:], completion]))
            marks.append(torch.full((size,), number, device=device))
            steps.append(place[:, -1:] + torch.arange(size, device=device))
            targets.append(torch.cat([completion, nothing]))
            columns.append(torch.arange(start, start + size - 1, device=device))
            rows.append(torch.full((size - 1,), row, device=device))
            start += size
        ids.append(torch.cat(parts))
        segments.append(torch.cat(marks))
        places.append(torch.cat(steps, 1).T)
        labels.append(torch.cat(targets))
    segment = pad_sequence(segments, True, -1)  # [N, L]; padding is a segment of its own
    order = torch.arange(segment.shape[1], device=segment.device)
    same = (segment[:, :, None] == segment[:, None, :]) | (segment[:, None, :] == 0)
    return Packed(
        ids=pad_sequence(ids, True, 0),
        mask=((order[:, None] >= order) & same)[:, None],
        positions=pad_sequence(places, True, 0).permute(2, 0, 1),
        labels=pad_sequence(labels, True, -100),
        rows=torch.cat(rows),
        columns=torch.cat(columns),
    )
