"""TRL's fused head, made to score only the positions that have a label."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trl.trainer import utils


@contextmanager
def labelled_positions_only() -> Iterator[None]:
    """While this lasts, log-probs are computed where there is a label only, on every device.

    TRL 1.16 does so on a GPU. Elsewhere it scores every position, those of the prompt and the picture too, since some
    devices would compile for each new shape; a CPU would not.
    """
    kept = utils._use_triton  # in this module it decides about nothing else
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = kept
