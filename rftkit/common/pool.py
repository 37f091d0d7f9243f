"""Work in other processes of this machine, which end with this one, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process

from rftkit.common.child import end_with
from rftkit.common.errors import UserError


@contextmanager
def pool(count: int | None = None, threads: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """So many processes (None: one a core), each with so many of torch's threads (None: torch's own choice).

    They are ended at once if an error or Ctrl-C leaves the block. One that is killed is a UserError.
    """
    others = set(active_children())
    try:
        # Started anew, not forked: torch's threads do not survive a fork.
        with ProcessPoolExecutor(count, get_context("spawn"), initializer=_begin, initargs=(threads,)) as workers:
            try:
                yield workers
            except BaseException:  # what waits in the queue would still be done; nothing else starts processes here
                for process in set(active_children()) - others:
                    process.terminate()
                raise
    except BrokenProcessPool as error:
        raise UserError(
            "a process that did a part of the work ended before it was done. If no error stands above, memory ran out: "
            "end other programs, or take a smaller model or batch, and start the same command again"
        ) from error


def _begin(threads: int | None) -> None:
    end_with(parent_process().pid)  # a parent that is killed tells nobody: its workers would wait for more for ever
    if threads is not None:
        import torch  # it takes seconds to load

        torch.set_num_threads(threads)
