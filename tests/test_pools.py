"""Processes beside this one: one that is killed is one line, and none is left behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rftkit.common.errors import UserError
from rftkit.common.pool import attempt, pool

WORKING = """
import os, signal, time
from rftkit.common.pool import pool
signal.signal(signal.SIGINT, signal.default_int_handler)  # the background jobs of a shell ignore it
with pool(1) as workers:
    print(workers.submit(os.getpid).result(), flush=True)
    workers.submit(time.sleep, 600).result()
"""


def test_a_worker_that_is_killed_is_a_user_error():
    with pytest.raises(UserError, match="ended before it was done"), pool(1) as workers:
        workers.submit(os._exit, 9).result()


def killed(*_):
    os._exit(9)


@pytest.mark.parametrize("command", ["bench", "card", "select"])
def test_all_that_work_in_processes_say_so(command, tmp_path, monkeypatch):
    from rftkit.nano import card  # not above, or each worker would load them too
    from rftkit.study import select
    from rftkit.tools.bench import compare

    monkeypatch.setattr(card, "_row", killed)
    monkeypatch.setattr(select, "make_run", killed)
    with pytest.raises(UserError, match="ended before it was done"):
        {
            "bench": lambda: compare._elsewhere(killed),
            "card": lambda: card.zero_shot_rows("nano-s", ["shapes"]),
            "select": lambda: select.select("smoke", "shapes", tmp_path),
        }[command]()


def test_work_that_fails_returns_what_is_wrong_and_work_that_takes_too_long_is_stopped():
    with pool(1) as workers:
        told = [
            workers.submit(attempt, *work, minutes=minutes).result()
            for *work, minutes in (
                (int, "7", None),
                (divmod, 1, 0, None),
                (open, "/nowhere/at/all", None),
                (sys.exit, 3, None),
                (exec, "while True: pass", 0.01),
                (int, "7", 0.01),
            )
        ]
    assert [told[0], told[5]] == [None, None]
    assert told[1].startswith("; its last lines:\nTraceback") and "\nZeroDivisionError: " in told[1]
    assert told[2].startswith(": cannot read or write '/nowhere/at/all'") and "\n" not in told[2]
    assert told[3].endswith("SystemExit: 3")
    assert told[4] == ": stopped: the time limit of 0.01 minutes was reached"


def surroundings(folder, count):
    """What a worker is given; each waits for the others, so that none works for two."""
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + 120
    while len(list(folder.iterdir())) < count and time.monotonic() < until:
        time.sleep(0.05)
    import torch  # not above, or each worker of the other tests would load it

    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["TQDM_DISABLE"], torch.get_num_threads()


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_workers_end_with_their_parent(end):
    parent = subprocess.Popen([sys.executable, "-c", WORKING], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(getattr(signal, end))
    parent.wait(60)
    until = time.monotonic() + 60
    while is_at_work(worker) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_at_work(worker)


def is_at_work(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
