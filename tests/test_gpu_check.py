"""The check of a GPU, rehearsed on a CPU: it runs, says what it measured and what it did not, and keeps its time."""

import json
import time
from functools import partial

import pytest

from rftkit.common.pool import in_time
from rftkit.memory.peak_memory import estimate
from rftkit.tools import gpu_check
from rftkit.tools.bench import compare
from rftkit.tools.bench.trainers import TOKENS, Options
from rftkit.tools.gpu_check import REAL, REHEARSAL, bench_settings, main, parts_of

FOUND = {"step_s": 1.0, "peak_bytes": 2**30, "estimated": {"total": 2**31, "reserve": 2**30}}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Parts and peaks are measured in processes of their own, which take seconds to start; not here."""
    monkeypatch.setattr(gpu_check, "in_time", lambda seconds, measure: measure())
    monkeypatch.setitem(TOKENS, "thinking", 12)  # shorter thoughts, too
    monkeypatch.setattr(compare, "_elsewhere", lambda function, kind, *rest: {"stock": 2 * 2**30, "ours": 2**30}[kind])


def test_the_rehearsal_measures_every_part(tmp_path, capsys):
    out = tmp_path / "benchmarks" / "check.json"
    assert main(["--rehearse", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert list(report["parts"]) == list(parts_of(REHEARSAL)) and not report["left_out"]
    steps, *benches = report["parts"].values()
    assert len(steps["step_s"]) == 2 and min(steps["step_s"]) > 0
    assert [(one["mode"], one["quantize"], one["group"]) for one in benches] == [
        (mode, quantize, 2) for quantize in (False, True) for mode in ("no_thinking", "thinking")
    ]
    assert all(part["estimated"]["total"] > 0 for part in report["parts"].values())
    lines = capsys.readouterr().out.splitlines()
    assert sum("GiB, estimated" in line for line in lines) == 5 and [path.name for path in out.parent.iterdir()] == [
        "check.json"
    ]


def test_parts_that_fail_or_have_no_time_are_named_and_the_rest_is_kept(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no kernel image\nmore of it")

    now = iter(range(0, 10_000, 100))  # a look at the clock takes 100 seconds
    monkeypatch.setattr(gpu_check.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(gpu_check, "three_steps", broken)
    monkeypatch.setattr(gpu_check, "one_bench", lambda *_: FOUND)
    assert main(["--rehearse", "--minutes", "6", "--out", str(tmp_path / "check.json")]) == 1
    report = json.loads((tmp_path / "check.json").read_text())
    assert list(report["parts"]) == ["bench nano-s, no_thinking, unquantised"]
    reasons = list(report["left_out"].values())
    assert "no kernel image" in reasons[0] and reasons[1:] == ["no time left"] * 3
    assert "1.00 s a step, peak 1.00 GiB, estimated 1.00 GiB" in capsys.readouterr().out


def test_a_part_that_hangs_is_ended_in_time_and_what_was_measured_is_kept(tmp_path, monkeypatch):
    parts = {"measured": partial(dict, FOUND), "hangs": partial(time.sleep, 600), "late": partial(dict, FOUND)}
    monkeypatch.setattr(gpu_check, "parts_of", lambda size: parts)
    monkeypatch.setattr(gpu_check, "in_time", in_time)
    now = iter([0, 0, 10, 464, 480, 480, 480])  # a second is left for what hangs
    monkeypatch.setattr(gpu_check.time, "perf_counter", lambda: next(now))
    assert main(["--rehearse", "--out", str(tmp_path / "check.json")]) == 1
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["parts"] == {"measured": FOUND}
    assert report["left_out"] == {"hangs": "stopped: the 8 minutes were over", "late": "no time left"}


def test_without_a_gpu_it_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--out", str(tmp_path / "check.json")]) == 2
    written = capsys.readouterr().err
    assert "there is no GPU that torch can use" in written and written.count("\n") == 1
    assert not (tmp_path / "check.json").exists()


def test_the_estimate_of_the_real_bench_is_of_the_real_shape(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (2**40, 2**40))
    totals = []
    for quantize in (False, True):
        options = Options(REAL.preset, "thinking", group=REAL.group, quantize=quantize, device=REAL.device)
        found = estimate(bench_settings(REAL, options), gpu_check.prompts(options, 1))
        assert found.parameters > 2e9 and found.tokens.completion == 12
        totals.append(found.memory["total"] / 2**30)
    assert 24 > totals[0] > totals[1] > 2
