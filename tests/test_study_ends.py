"""How a study ends if a notebook fails, a kernel dies, a process is stuck, or the study itself is killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from threading import Thread

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from test_report import make_run

from rftkit.cli import main
from rftkit.runs.folder import RESULTS, complete_runs
from rftkit.study import workers as jobs
from rftkit.study.batch import study

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
FAILS = "1 / 0"
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
# Its second run goes on for as long as there is a file `hold`.
HOLDS = """
import time
from pathlib import Path

from rftkit.run import run_methods

def on_row(rows):
    while Path("hold").exists():
        Path("held").touch()
        time.sleep(0.1)

for some, called in ((seeds[:1], None), (seeds, on_row)):
    run_methods(profile, ["no_thinking_rl"], some, out, called, dataset=dataset, model=model)
"""
HERE = """
import sys
from pathlib import Path

from rftkit import cli
from rftkit.study import workers as jobs

jobs.NOTEBOOKS = Path.cwd()
sys.exit(cli.main())
"""
# Neither it nor what it starts ends when it is told to.
STUCK = """
import signal, subprocess, sys, time
from pathlib import Path

signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
Path("child").write_text(str(child.pid))
time.sleep(100)
"""
PARENT = """
import os, subprocess, sys

child = subprocess.Popen([sys.executable, "-m", "rftkit.common.child", str(os.getpid()), "stuck"])
child.wait()
"""


def write_notebook(name, source):
    cells = [new_code_cell("", metadata={"tags": ["parameters"]}), new_code_cell(source)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), f"{name}.ipynb")


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


def ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def stuck_child(folder):
    """The process that STUCK has started."""
    assert wait_for(lambda: (folder / "child").exists() and (folder / "child").read_text())
    return psutil.Process(int((folder / "child").read_text()))


def test_a_failing_cell_and_a_kernel_that_dies_are_named_and_stop_no_other(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "NOTEBOOKS", tmp_path)
    (tmp_path / "01_sft_baseline.ipynb").write_text("{}")  # no notebook
    for name, source in (("02_cls_rl", FAILS), ("03_no_thinking_rl", DIES), ("04_think_after_answer", "print(6 * 7)")):
        write_notebook(name, source)
    make_run(tmp_path / "out" / "mine" / "before", "sft", 0, "no_thinking", [1, 0], [1, 0])
    # A dead kernel is noticed: nobody waits for the time limit.
    assert study(mine, ("01", "02", "03", "04"), 1, tmp_path / "out", time_limit=2) == 1
    printed = capsys.readouterr()
    assert "the time limit" not in printed.err and "report: " in printed.out
    for title, error in (("02_cls_rl", "ZeroDivisionError: division by zero"), ("03_no_thinking_rl", "Kernel died")):
        said = printed.err.partition(f"{title} failed; its last lines:")[2].partition(" failed; its last lines:")[0]
        assert error in said
        assert f"failed: {title}; " in printed.err and f"{title}: failed after" in printed.out
    assert "failed: 01_sft_baseline; " in printed.err and "failed: 04" not in printed.err
    executed = nbformat.read(tmp_path / "out" / "mine" / "notebooks" / "04_think_after_answer.ipynb", 4)
    assert executed.cells[-1].outputs[0].text == "42\n" and "04_think_after_answer: done after" in printed.out


def test_a_study_that_is_killed_leaves_no_process_and_goes_on_with_what_is_missing(mine, tmp_path, monkeypatch):
    write_notebook("03_no_thinking_rl", HOLDS)
    (tmp_path / "hold").touch()
    arguments = ["study", "--profile", mine, "--only", "03", "--seeds", "2", "--out", "out", "--jobs", "1"]
    process = subprocess.Popen([sys.executable, "-c", HERE, *arguments])
    family = []
    try:
        assert wait_for((tmp_path / "held").exists, 300)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        assert len(family) >= 2  # papermill and its kernel
        assert wait_for(lambda: all(map(ended, family)), 30)
    finally:
        for one in [process, *family]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    made = {folder: (folder / RESULTS).stat().st_mtime_ns for folder in complete_runs(tmp_path / "out")}
    locks = {lock.name for lock in (tmp_path / "out" / "mine" / ".locks").iterdir()}
    assert len(made) == 1 and locks - {folder.name for folder in made}  # the other is truncated, and its lock is there
    (tmp_path / "hold").unlink()
    monkeypatch.setattr(jobs, "NOTEBOOKS", tmp_path)
    assert main(arguments) == 0
    again = {folder: (folder / RESULTS).stat().st_mtime_ns for folder in complete_runs(tmp_path / "out")}
    assert len(again) == 2 and again | made == again


@pytest.mark.parametrize("by", ["the time limit", "the end of the study"])
def test_a_process_that_is_stuck_is_killed_with_all_that_it_started(by, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "GRACE", 0.5)
    one, returned = jobs.Jobs(1), []
    limit = 0.1 if by == "the time limit" else None
    runs = Thread(target=lambda: returned.append(one.run([sys.executable, "-c", STUCK], minutes=limit)), daemon=True)
    runs.start()
    child = stuck_child(tmp_path)
    if limit is None:
        one.end()
    runs.join(timeout=20)  # it reads what the child could write, too
    assert returned[0][0] == -signal.SIGKILL
    assert wait_for(lambda: ended(child))


def test_a_child_ends_with_its_parent_whatever_it_does(tmp_path):
    (tmp_path / "stuck.py").write_text(STUCK)
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path)
    child = stuck_child(tmp_path).parent()
    assert "rftkit.common.child" in child.cmdline()
    parent.kill()
    parent.wait()
    stuck_child(tmp_path).kill()
    assert wait_for(lambda: ended(child), 20)


def test_a_child_is_told_its_arguments_and_tells_its_status(tmp_path):
    (tmp_path / "tell.py").write_text("import sys; print(__name__, sys.argv[1:]); sys.exit(3)")
    command = [sys.executable, "-m", "rftkit.common.child", str(os.getpid()), "tell", "-a", "b"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (3, "__main__ ['-a', 'b']\n")
