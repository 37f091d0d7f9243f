"""Processes beside this one: one that is killed is one line, and none is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rftkit.common.errors import UserError
from rftkit.common.pool import attempt, in_time, pool

WORKING = """
import os, signal, time
from rftkit.common.pool import pool
signal.signal(signal.SIGINT, signal.default_int_handler)  # the background jobs of a shell ignore it
with pool(1) as workers:
    print(workers.submit(os.getpid).result(), flush=True)
    workers.submit(time.sleep, 600).result()
"""
HANGING = """
import subprocess, sys, tempfile, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path({told!r}).write_text(f"{{child.pid}} {{tempfile.mkdtemp()}}")
time.sleep(600)
"""


def test_a_worker_that_is_killed_is_a_user_error():
    with pytest.raises(UserError, match="ended before it was done"), pool(1) as workers:
        workers.submit(os._exit, 9).result()


def killed(*_):
    os._exit(9)


@pytest.mark.parametrize("command", ["bench", "card", "select"])
def test_all_that_work_in_processes_say_so(command, tmp_path, monkeypatch):
    from rftkit.nano import card  # not above, or each worker would load them too
    from rftkit.tools import select
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


def test_work_in_a_process_of_its_own_is_ended_in_time_with_all_that_it_started(tmp_path):
    assert in_time(60, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        in_time(60, divmod, 7, 0)
    told = tmp_path / "told"
    for seconds in (2, 8, 32):  # a busy machine takes long to start it
        with pytest.raises(TimeoutError):
            in_time(seconds, exec, HANGING.format(told=str(told)))
        if told.exists():
            break
    child, place = told.read_text().split(maxsplit=1)
    assert wait_for_the_end(int(child)) and not Path(place).exists()


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
    assert wait_for_the_end(worker.pid)


def wait_for_the_end(number):
    until = time.monotonic() + 60
    while is_at_work(number) and time.monotonic() < until:
        time.sleep(0.1)
    return not is_at_work(number)


def is_at_work(number):
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
