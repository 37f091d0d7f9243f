"""Mathematical equality of two texts by math-verify, in a worker process that is killed after a second of work.

math-verify guards itself with signals, which fail outside the main thread and take five seconds on a hostile answer.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
import time
from functools import lru_cache
from queue import Empty, Queue

import psutil

from rftkit.common.errors import UserError

MAX_CHARACTERS = 200  # longer texts are compared by their last characters, where an answer stands
START_SECONDS = 60.0
HUNG = 60  # times the seconds allowed, on the clock
_worker: _Worker | None = None


class _Worker:
    """A child process that reads a JSON pair a line and answers a JSON truth value a line."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "rftkit.common.mathematics.math_verify"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.answers: Queue[str | None] = Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            started = self.answers.get(timeout=START_SECONDS)
        except Empty:
            started = None
        if started is None:
            self.process.kill()
            raise UserError("math-verify does not start: install it again from requirements.lock")

    def _read(self) -> None:
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)  # the worker has ended

    def ask(self, gold: str, text: str, seconds: float) -> bool:
        self.process.stdin.write(json.dumps([gold, text]) + "\n")
        self.process.stdin.flush()
        begun, worked = time.monotonic(), self._worked()
        while True:
            try:
                answer = self.answers.get(timeout=seconds / 10)
            except Empty:
                if self._worked() - worked >= seconds or time.monotonic() - begun >= HUNG * seconds:
                    raise
                continue
            if answer is None:
                raise BrokenPipeError
            return json.loads(answer)

    def _worked(self) -> float:
        """Seconds of processor time: a busy machine must not change a score."""
        spent = psutil.Process(self.process.pid).cpu_times()
        return spent.user + spent.system


def math_equal(gold: str, text: str, seconds: float = 1.0) -> bool:
    """Whether math-verify finds `text` equal to `gold`; False if it cannot tell within `seconds` of work."""
    for _ in range(2):  # the worker may have died since the last question: that is no answer to this one
        try:
            return _ask(gold[-MAX_CHARACTERS:], text[-MAX_CHARACTERS:], seconds)
        except Empty:
            _stop()
            return False
        except (OSError, psutil.Error):
            _stop()
    return False


@lru_cache(maxsize=2**16)  # a few milliseconds each, and a study asks the same thousands of times
def _ask(gold: str, text: str, seconds: float) -> bool:
    global _worker
    if _worker is None:
        _worker = _Worker()
        atexit.register(_stop)
    return _worker.ask(gold, text, seconds)


def _stop() -> None:
    global _worker
    if _worker is not None:
        _worker.process.kill()
        _worker.process.wait()
        _worker = None


def _serve() -> None:
    from math_verify import parse, verify

    print("ready", flush=True)
    for line in sys.stdin:
        gold, text = json.loads(line)
        try:
            answer = verify(parse(gold), parse(text))
        except Exception:  # whatever sympy raises on hostile text, it is not equal
            answer = False
        print(json.dumps(bool(answer)), flush=True)


if __name__ == "__main__":
    _serve()
