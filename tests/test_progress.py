"""Who waits sees that something happens, and what."""

import sys
import time

import pytest
from test_report import make_run

from rftkit.common.progress import ticking
from rftkit.report.pages import write_report
from rftkit.run import run_methods


def test_the_clock_of_a_bar_goes_on_while_its_work_says_nothing(capsys):
    with ticking(every=0.02, total=3, desc="runs") as bar:
        time.sleep(0.2)
        assert bar.n == 0
    assert capsys.readouterr().err.count("runs:   0%") > 3


def test_it_ends_with_an_error_too(capsys):
    with pytest.raises(ValueError, match="in the work"), ticking(every=0.02, desc="runs"):
        raise ValueError("in the work")
    before = capsys.readouterr().err
    time.sleep(0.1)
    assert before and not capsys.readouterr().err


def test_a_report_says_what_it_does_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for seed in range(2):
        make_run(tmp_path / f"{seed}", "sft", seed, "no_thinking", [1, 0], [1, 0])
    write_report(tmp_path)
    said = capsys.readouterr().err
    stages = ("shapes, nano-s: methods", "shapes, nano-s: controls", "Set by set", "Effect against dose")
    places = [said.index(f"report: {stage}") for stage in stages]
    assert places == sorted(places)


def test_the_runs_of_a_notebook_are_counted(mine, tmp_path, capsys):
    run_methods(mine, ["zero_shot", "no_thinking_rl"], [0], tmp_path / "out", test_items=2, steps=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    assert lines == ["run 1 of 2: Zero-shot, seed 0", "run 2 of 2: No-Thinking-RL, seed 0"]
