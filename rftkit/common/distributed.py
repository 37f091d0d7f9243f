"""Several processes under `accelerate launch`: who writes, and how what one knows gets to all. Usually there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from rftkit.common.errors import UserError


def _state() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available())  # on a CPU it would not look for others unasked


def count() -> int:
    """How many processes train together."""
    return _state().num_processes


def is_main() -> bool:
    """Whether this process is the one that writes, evaluates and prints."""
    return _state().is_main_process


def from_main(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns in the main process, in every process; only the main one makes the call."""
    found = [function(*arguments) if is_main() else None]
    return broadcast_object_list(found)[0] if count() > 1 else found[0]


def share(total: int, micro_batch: int, what: str) -> tuple[int, int]:
    """Sequences in memory at once and accumulated micro-batches of each process, for `total` sequences a step of all.

    UserError if they cannot be shared out evenly: the step would not be the one of a single process.
    """
    own, rest = divmod(total, count())
    micro_batch = min(micro_batch, own)
    if rest or own % micro_batch:
        raise UserError(
            f"{count()} processes cannot share the {total} {what} of a step in micro-batches of {micro_batch}: choose "
            f"another number of processes or micro_batch"
        )
    return micro_batch, own // micro_batch
