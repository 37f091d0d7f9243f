"""`python -m rftkit.child PARENT MODULE ...` does what `python -m MODULE ...` does, and ends when process PARENT has.

A study that is killed outright (no memory left, say) cannot end what it started; that would go on unseen.
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
    """End this process within seconds of another's end, whatever either is doing."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(parent)
        # A zombie has ended too: whoever started it has not asked yet.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    Thread(target=end_with, args=(int(sys.argv[0]),), daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
