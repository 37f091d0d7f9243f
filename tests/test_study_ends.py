"""How a study ends if a notebook fails, a kernel dies or is stuck, or the study itself is interrupted or killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from test_report import make_run

from rftkit.runs.folder import complete_runs
from rftkit.settings import METHODS
from rftkit.study import workers as jobs
from rftkit.study.batch import study
from rftkit.study.chapters import dealt, parts_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
FAILS = "1 / 0"
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
# Neither it nor what it starts ends when it is told to.
STUCK = """
import signal, subprocess, sys, time
from pathlib import Path

signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
Path("child").write_text(str(child.pid))
time.sleep(100)
"""
HERE = """
import sys
from pathlib import Path

from rftkit import cli
from rftkit.study import workers as jobs

if __name__ == "__main__":
    jobs.NOTEBOOKS = Path.cwd()
    sys.exit(cli.main())
"""


def write_notebook(name, source):
    cells = [new_code_cell("", metadata={"tags": ["parameters"]}), new_code_cell(source)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), f"{name}.ipynb")


def complete(profile, out, *numbers):
    """Runs of these notebooks as if they had been made, so that only the notebooks are left to execute."""
    for part in parts_of(dealt(profile, numbers, [0], [], None), profile, None, out):
        for folder, run in part.runs.items():
            if folder.exists():  # two notebooks share it
                continue
            given = {"profile": run.profile, "dataset": run.dataset, "model": run.model}
            make_run(folder, run.method, run.seed, METHODS[run.method].mode, [1, 0], [1, 0], **given)


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
    complete(mine, tmp_path / "out", "01", "02", "03", "04")
    (tmp_path / "01_sft_baseline.ipynb").write_text("{}")  # no notebook
    for name, source in (("02_cls_rl", FAILS), ("03_no_thinking_rl", DIES), ("04_think_after_answer", "print(6 * 7)")):
        write_notebook(name, source)
    # A dead kernel is noticed: nobody waits for the time limit.
    assert study(mine, only=("01", "02", "03", "04"), seeds=1, out=tmp_path / "out", time_limit=2) == 1
    printed = capsys.readouterr()
    assert "the time limit" not in printed.err and "report: " in printed.out
    for title, error in (("02_cls_rl", "ZeroDivisionError: division by zero"), ("03_no_thinking_rl", "Kernel died")):
        said = printed.err.partition(f"{title} failed; its last lines:")[2].partition(" failed; its last lines:")[0]
        assert error in said
        assert f"failed: {title}; " in printed.err and f"{title}: failed, see" in printed.out
    assert "failed: 01_sft_baseline; " in printed.err and "failed: 04" not in printed.err
    executed = nbformat.read(tmp_path / "out" / "mine" / "notebooks" / "04_think_after_answer.ipynb", 4)
    assert executed.cells[-1].outputs[0].text == "42\n" and "04_think_after_answer: done, see" in printed.out
    failing = nbformat.read(tmp_path / "out" / "mine" / "notebooks" / "02_cls_rl.ipynb", 4)
    assert failing.cells[-1].outputs[0].ename == "ZeroDivisionError"  # it is kept too


def test_a_notebook_that_is_stuck_is_killed_with_all_that_it_started(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "NOTEBOOKS", tmp_path)
    complete(mine, tmp_path / "out", "03")
    write_notebook("03_no_thinking_rl", STUCK)
    assert study(mine, only=("03",), seeds=1, out=tmp_path / "out", time_limit=0.25) == 1
    said = capsys.readouterr().err
    assert "03_no_thinking_rl failed: stopped: the time limit of 0.25 minutes was reached\n" in said
    child = int((tmp_path / "child").read_text())
    assert wait_for(lambda: not psutil.pid_exists(child) or ended(psutil.Process(child)))


@pytest.mark.parametrize("sent, at", [("SIGINT", "run"), ("SIGTERM", "notebook"), ("SIGKILL", "notebook")])
def test_a_study_that_is_ended_leaves_no_process(sent, at, mine, tmp_path):
    (tmp_path / "here.py").write_text(HERE)
    write_notebook("03_no_thinking_rl", STUCK.replace("signal.signal(signal.SIGTERM, signal.SIG_IGN)", ""))
    if at == "notebook":
        complete(mine, tmp_path / "out", "03")
    command = [sys.executable, "here.py", "study", "--profile", mine, "--out", "out", "--only", "03", "--jobs", "2"]
    process = subprocess.Popen(
        [*command, "--seeds", "1" if at == "notebook" else "3"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip
    family = []
    try:
        seen = "child" if at == "notebook" else "out/mine/.locks/*"
        assert wait_for(lambda: list(tmp_path.glob(seen)), 120)
        family = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, getattr(signal, sent))
        assert process.wait(timeout=30) == (-signal.SIGKILL if sent == "SIGKILL" else 130)
        if sent == "SIGKILL":
            stuck_child(tmp_path).kill()  # a kernel that ends by itself does not end what its cells have started
        assert len(family) >= 3 and wait_for(lambda: all(map(ended, family)), 30)
    finally:
        for one in [process, *family]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    said = process.stderr.read()
    assert ("interrupted; start the same command again" in said) == (sent != "SIGKILL")
    assert len(complete_runs(tmp_path / "out")) == (2 if at == "notebook" else 0)
    assert not list(tmp_path.glob("out/mine/notebooks/[0-9]*"))  # so it is executed when the study goes on
