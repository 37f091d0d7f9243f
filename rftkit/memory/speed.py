"""How fast a device is, measured in about a second: what `rftkit estimate` makes times of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import bitsandbytes as bnb
import torch
from torch import nn


@dataclass(frozen=True)
class Speed:
    """Seconds a weight of the language model's matrices costs in a forward pass: for many rows (a row), for the rows
    of one decoding step (all rows together); and seconds of launching a small operation, and of an element in it."""

    a_row: float
    a_decoding: float
    a_launch: float
    an_element: float


def measure(width: int, inner: int, rows: int, quantize: bool, device: str) -> Speed:
    """About a second of work: one matrix of a language model (`width` to `inner`) in the precision that training has.

    Args:
        rows: sequences that are decoded at once.
        quantize: the matrix is in NF4.
    """
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    layer = nn.Linear(width, inner, bias=False, dtype=dtype)
    if quantize:
        packed = bnb.nn.Linear4bit(width, inner, bias=False, compute_dtype=dtype, quant_type="nf4")
        packed.load_state_dict(layer.state_dict())
        layer = packed
    layer = layer.to(device).train()
    many = 256 if device == "cpu" else 4096
    row = {count: torch.ones(count, width, device=device, dtype=dtype) for count in (many, rows)}
    tiny, weights = torch.ones(8, device=device), width * inner
    with torch.no_grad():
        return Speed(
            a_row=_seconds(lambda: layer(row[many])) / many / weights,
            a_decoding=_seconds(lambda: layer(row[rows])) / weights,
            a_launch=_seconds(lambda: [tiny.add(1) for _ in range(100)]) / 100,
            an_element=_seconds(lambda: row[many].add(1)) / row[many].numel(),
        )


def _seconds(work: Callable[[], object]) -> float:
    """The fastest of several repetitions within a quarter of a second, after one that warms up."""
    found, began = [], time.perf_counter()
    while len(found) < 3 or time.perf_counter() - began < 0.25:
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found[1:])
