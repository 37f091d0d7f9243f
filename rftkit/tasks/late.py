"""Pictures opened when a batch needs them: memory holds those of a batch, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rftkit.tasks.example import Example
from rftkit.tasks.images import open_image, pixels_of

BATCH_PIXELS = 2**26  # of pictures that are open at once: 200 MB


def batches(examples: Sequence[Example], size: int) -> list[slice]:
    """Batches of up to `size` examples whose pictures have up to `BATCH_PIXELS` together; or of one that has more."""
    found, start, held = [], 0, 0
    for place, example in enumerate(examples):
        own = sum(pixels_of(image, example.id) for image in example.images)
        if place > start and (place - start == size or held + own > BATCH_PIXELS):
            found.append(slice(start, place))
            start, held = place, 0
        held += own
    return [*found, slice(start, len(examples))] if examples else []


def open_late(collate: Callable, examples: Sequence[Example]) -> Callable:
    """A collator that first opens the pictures of a batch of `training_rows`, each once.

    So start-up opens none of them, and memory holds those of a batch, however many there are to train on.
    """
    pictures = [(image, example.id) for example in examples for image in example.images]

    def opened(rows: Sequence[dict[str, Any]]) -> Any:
        numbers = dict.fromkeys(number for row in rows for number in row["images"])
        images = {number: open_image(*pictures[number]) for number in numbers}
        return collate([row | {"images": [images[number] for number in row["images"]]} for row in rows])

    return opened
