"""Kills runs and studies at random moments, starts them again, and compares what is left with what nobody disturbed.

    python -m tests.kill_campaign --kills 20

It takes about a minute a kill on two cores. `tests/test_kills.py` makes a few, of a run as small as can be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import pandas as pd
import yaml
from filelock import FileLock, Timeout

CLOCKED = ("seconds", "step_seconds", "generate_seconds", "update_seconds")  # differ from run to run
LIMIT = 600  # seconds that a command may take
# 36 pictures, 8 a step: several epochs are crossed, and most checkpoints lie within one.
LONG = {"like": "nano", "shots": 1, "save_every": 2, "test_items": 16, "pass_items": 4, "eval_every": 0,
        "methods": {name: {"steps": 16} for name in ("cls_rl", "no_thinking_rl", "sft")}}  # fmt: skip
SHORT = LONG | {"like": "smoke", "methods": {"no_thinking_rl": {"steps": 6}}}
COMMANDS = {
    "thinking": ("run", "--method=cls_rl"),
    "not thinking": ("run", "--method=no_thinking_rl"),
    "SFT": ("run", "--method=sft"),
    "study": ("study", "--only=03", "--seeds=2"),
}


@dataclass
class Subject:
    """A command that is to be killed, and what it leaves if it is not."""

    command: list[str]
    whole: Path
    seconds: float  # that it takes

    @classmethod
    def of(cls, command: list[str], place: Path) -> Subject:
        began = time.perf_counter()
        finish(start(command, place), place)
        return cls(command, place, time.perf_counter() - began)


def start(command: list[str], out: Path) -> subprocess.Popen:
    """The command in a process group of its own, writing below `out` and saying what it says beside it."""
    with out.with_suffix(".log").open("ab") as log:
        whole = [sys.executable, "-m", "rftkit.cli", *command, f"--out={out}"]
        return subprocess.Popen(whole, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def finish(process: subprocess.Popen, out: Path) -> None:
    """Wait for a command; stop with its last lines if it fails or hangs."""
    try:
        code = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        code = f"not done after {LIMIT} s"
    if code:
        lines = out.with_suffix(".log").read_text(errors="replace").splitlines()[-15:]
        raise SystemExit("\n".join([*lines, f"{' '.join(process.args)}: {code}"]))


def kill(process: subprocess.Popen, seconds: float) -> bool:
    """SIGKILL it after so long; whether it still ran. What it has started must end by itself, within ten seconds."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return False
    process.kill()
    process.wait()
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    raise SystemExit(f"processes of {' '.join(process.args)} outlive it")


def complete(out: Path) -> dict[Path, int]:
    """The complete runs below a folder, and when each was."""
    return {path.parent.relative_to(out): path.stat().st_mtime_ns for path in out.rglob("results.json")}


def contents(run: Path) -> dict[str, object]:
    """What a run left, by file: all bytes, but for what a clock measured. Checkpoints say when they were."""
    found: dict[str, object] = {}
    for path in sorted(file for file in run.rglob("*") if file.is_file() and "checkpoints" not in file.parts):
        name = str(path.relative_to(run))
        if path.name == "results.json":
            found[name] = _unclocked(json.loads(path.read_text()))
        elif path.suffix == ".csv":
            found[name] = pd.read_csv(path, dtype=str).drop(columns=list(CLOCKED), errors="ignore").to_csv()
        else:
            found[name] = path.read_bytes()
    return found


def _unclocked(value):
    if isinstance(value, dict):
        return {key: _unclocked(item) for key, item in value.items() if key not in CLOCKED}
    return value


def differences(whole: Path, again: Path) -> Iterator[str]:
    """In what the runs below two folders differ; locks still held, and files left half-written in the second."""
    once, twice = complete(whole).keys(), complete(again).keys()
    yield from (f"{run} is lost" for run in once - twice)
    yield from (f"{run} is new" for run in twice - once)
    for run in sorted(once & twice):
        one, other = contents(whole / run), contents(again / run)
        yield from (
            f"{run}: {name} differs" for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)
        )
    for path in again.rglob("*"):
        if path.parent.name == ".locks":
            try:
                FileLock(path, timeout=5).acquire().lock.release()
            except Timeout:
                yield f"{path.name} is still locked"
        elif path.is_file() and path.name.startswith("."):
            yield f"{path.relative_to(again)} is left behind"


def campaign(subject: Subject, out: Path, moments: random.Random) -> list[str] | None:
    """Kill a command once, start it again, and say in what it differs; None if it was done before it was killed."""
    process = start(subject.command, out)
    if not kill(process, moments.uniform(0, subject.seconds)):
        return None
    made = complete(out)
    finish(start(subject.command, out), out)
    now = complete(out)
    return [*differences(subject.whole, out), *(f"{run} is made twice" for run in made if now.get(run) != made[run])]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill_campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", choices=COMMANDS, action="append", help="what to kill; may be given again")
    parser.add_argument("--short", action="store_true", help="a run as small as can be")
    given = parser.parse_args(arguments)
    moments, failed = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        profile = place / "profile.yaml"
        profile.write_text(yaml.safe_dump(SHORT if given.short else LONG))
        names = given.only or [*COMMANDS]
        subjects = {}
        for name in names:
            subjects[name] = Subject.of([*COMMANDS[name], f"--profile={profile}"], place / f"whole {name}")
            print(f"{name}: {subjects[name].seconds:.0f} s undisturbed", flush=True)
        for number, name in enumerate(islice(cycle(names), given.kills), 1):
            found = None
            while found is None:
                found = campaign(subjects[name], place / f"{number} {random.Random().random()}", moments)
            failed += bool(found)
            print(f"kill {number}, {name}: {'; '.join(found) or 'identical'}", flush=True)
    print(f"{given.kills - failed} of {given.kills} kills left identical results")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
