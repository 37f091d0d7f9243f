"""Work in other processes of this machine, which end with this one, however it ends."""

from __future__ import annotations

import os
import signal
import time
import traceback
from _thread import interrupt_main
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.queues import SimpleQueue
from threading import Event, Thread, Timer
from typing import Any

import psutil

from rftkit.common.errors import UserError, as_user_error


@contextmanager
def pool(
    count: int | None = None, threads: int | None = None, devices: Sequence[str] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Processes that print no progress bars.

    They are ended at once if an error or Ctrl-C leaves the block. One that is killed is a UserError.

    Args:
        count: how many; None: one a core.
        threads: of torch in each; None: torch's own choice.
        devices: GPUs, of which each process sees one, in turn.
    """
    count = count or os.cpu_count() or 1
    others = set(active_children())
    context = get_context("spawn")  # started anew, not forked: torch's threads do not survive a fork
    places = context.SimpleQueue()
    for device in islice(cycle(devices), count):
        places.put(device)
    begun = (threads, places if devices else None)
    try:
        with ProcessPoolExecutor(count, context, initializer=_begin, initargs=begun) as workers:
            try:
                yield workers
            except BaseException:  # what waits in the queue would still be done; nothing else starts processes here
                for process in set(active_children()) - others:
                    process.kill()
                raise
    except BrokenProcessPool as error:
        raise UserError(
            "a process that did a part of the work ended before it was done. If no error stands above, memory ran out: "
            "end other programs, or take a smaller model or batch, and start the same command again"
        ) from error


def _begin(threads: int | None, places: SimpleQueue[str] | None) -> None:
    """Set up a process before anything slow is loaded: torch and tqdm read these variables when they are loaded."""
    # A parent that is killed tells nobody: its workers would wait for more for ever.
    Thread(target=_end_with, args=(parent_process().pid,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent ends its workers
    os.environ["TQDM_DISABLE"] = "1"
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    if places is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = places.get()


def _end_with(parent: int) -> None:
    """End this process within seconds of another's end, whatever either is doing."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(parent)
        # A zombie has ended too: whoever started it has not asked yet.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
    os._exit(1)


def attempt(
    work: Callable[..., Any], *arguments: Any, stop: Callable[[], None] = interrupt_main, minutes: float | None
) -> str | None:
    """Do work in a process of the pool. Returns what went wrong, if something did: a line, or the last lines.

    Args:
        minutes: how long it may take.
        stop: ends it with an error when it has taken longer.
    """
    try:
        with _time_limit(minutes, stop):
            work(*arguments)
    except Exception as error:
        known = as_user_error(error)
        return f": {known}" if known else "\n".join(["; its last lines:", *traceback.format_exc().splitlines()[-30:]])
    return None


@contextmanager
def _time_limit(minutes: float | None, stop: Callable[[], None]) -> Iterator[None]:
    """UserError if the block takes longer."""
    if minutes is None:
        yield
        return
    reached = Event()

    def end() -> None:
        reached.set()
        stop()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = Timer(60 * minutes, end)
    timer.start()
    try:
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # it stops the block here, or not at all
    except BaseException as error:
        if reached.is_set():
            raise UserError(f"stopped: the time limit of {minutes:g} minutes was reached") from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
