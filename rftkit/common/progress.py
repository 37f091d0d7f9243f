"""A progress bar that moves although its work does not report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from tqdm.auto import tqdm


@contextmanager
def ticking(every: float | None = None, **options: Any) -> Iterator[tqdm]:
    """A bar whose clock goes on while the work between two of its updates takes long.

    Args:
        every: seconds between two looks at the clock; None: one on a terminal, 60 in a file.
        options: of tqdm.
    """
    every = every or (1.0 if sys.stderr.isatty() else 60.0)
    done = Event()
    with tqdm(**options) as bar:

        def tick() -> None:
            while not done.wait(every):
                bar.refresh()

        clock = Thread(target=tick, daemon=True)
        clock.start()
        try:
            yield bar
        finally:
            done.set()
            clock.join()
