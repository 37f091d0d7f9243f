"""Work in other processes of this machine, which end with this one, however it ends."""

from __future__ import annotations

import os
import signal
import tempfile
import traceback
from _thread import interrupt_main
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.queues import SimpleQueue
from threading import TIMEOUT_MAX, Event, Thread, Timer
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
                    end_children(process.pid)
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
    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent ends its workers
    os.environ["TQDM_DISABLE"] = "1"
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    if places is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = places.get()


def _end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, however, and whatever this one is doing."""
    parent_process().join()
    os._exit(1)


def end_children(parent: int | None = None) -> None:
    """End all that a process (None: this one) has started, by force."""
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(parent).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # one that has ended meanwhile
                process.kill()


def in_time(seconds: float, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do work in a process of its own and return its result.

    After so many seconds the process and all that it started are killed, whatever they wait for: TimeoutError. What it
    left in temporary folders goes with it.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, pool(1) as workers:
        return workers.submit(_at, place, work, *arguments).result(seconds)


def _at(place: str, work: Callable[..., Any], *arguments: Any) -> Any:
    tempfile.tempdir = place
    return work(*arguments)


def attempt(
    work: Callable[..., Any], *arguments: Any, minutes: float | None, stop: Callable[[], None] = interrupt_main
) -> str | None:
    """Do work in a process of a pool. Returns what went wrong, if something did: in a line, or the last lines of it.

    Args:
        minutes: how long it may take.
        stop: called in a thread when it takes longer; ends it with an error.
    """
    late = Event()

    def end() -> None:
        late.set()
        stop()

    timer = Timer(TIMEOUT_MAX if minutes is None else 60 * minutes, end)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what `interrupt_main` calls
    timer.start()
    try:
        try:
            work(*arguments)
        finally:
            timer.cancel()
            timer.join()  # it ends the work here, or not at all
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except BaseException as error:  # KeyboardInterrupt is not even an Exception
        if late.is_set():
            return f": stopped: the time limit of {minutes:g} minutes was reached"
        known = as_user_error(error)
        return f": {known}" if known else "\n".join(["; its last lines:", *traceback.format_exc().splitlines()[-30:]])
    return None
