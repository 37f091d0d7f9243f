"""`python -m rftkit.common.child PARENT MODULE ...`: `python -m MODULE ...` that ends when process PARENT has.

What is killed outright (no memory left, say) cannot end what it started; that would go on unseen.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from contextlib import suppress
from threading import Thread

import psutil


def end_with(parent: int) -> None:
    """From now on end this process within seconds of another's end, whatever either is doing."""
    Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(parent)
        # A zombie has ended too: whoever started it has not asked yet.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    _, parent, *sys.argv = sys.argv
    end_with(int(parent))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
