"""The batch: profiles of one's own, its plan, its workers, and runs that fail."""

import json
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import MINE
from test_pools import surroundings
from test_report import OUTCOME
from test_study_ends import write_notebook

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.models import BUNDLED
from rftkit.run import execute
from rftkit.runs.durations import estimate as estimate_text
from rftkit.runs.durations import kind_of, seconds_by_kind
from rftkit.runs.folder import (
    METRICS,
    PREDICTIONS,
    RESULTS,
    complete_runs,
    locked,
    read_results,
    run_folder,
    write_config,
    write_results,
)
from rftkit.settings import load_settings
from rftkit.study import batch as module
from rftkit.study import workers as jobs
from rftkit.study.batch import study
from rftkit.study.chapters import CHAPTERS, datasets_of, dealt, parts_of


def test_a_profile_by_path_with_its_own_dataset_runs_reports_and_is_found_complete(mine, tmp_path, capfd):
    assert study(mine, only=("01",), out=tmp_path / "out") == 0
    folders = {folder.name.rpartition("-")[0]: folder for folder in complete_runs(tmp_path / "out" / "mine")}
    assert folders.keys() == {f"digits-{method}-nano-s-s0" for method in CHAPTERS[0].methods}
    printed, bars = capfd.readouterr()
    assert re.search(r"^digits, SFT, loss on the answer: base \d+\.\d %, new \d+\.\d % \(runs: 1\)$", printed, re.M)
    assert "3/3" in bars and "evaluate" not in bars  # workers have none of their own
    assert "| SFT, loss on the answer | 1 |" in printed and str(tmp_path / "out" / "mine" / "report.md") in printed
    assert re.search(r"took \d+\.\d minutes$", printed.strip())
    executed = tmp_path / "out" / "mine" / "notebooks" / "01_sft_baseline.ipynb"
    assert "seeds = [0]" in executed.read_text()
    alone = execute(load_settings(mine, "sft"), tmp_path / "alone")  # as the kernel of a notebook does
    made = folders["digits-sft-nano-s-s0"]
    assert alone.name == made.name
    pd.testing.assert_frame_equal(pd.read_parquet(alone / PREDICTIONS), pd.read_parquet(made / PREDICTIONS))
    columns = ["step", "loss", "grad_norm", "learning_rate"]
    losses = [pd.read_csv(folder / METRICS)[columns] for folder in (alone, made)]
    pd.testing.assert_frame_equal(*losses, rtol=1e-4)
    written = executed.stat().st_mtime_ns
    assert study(mine, only=("01",), out=tmp_path / "out") == 0
    assert "01_sft_baseline: complete" in capfd.readouterr().out and executed.stat().st_mtime_ns == written


def test_a_run_that_fails_is_one_line_and_its_notebook_is_left_out(mine, tmp_path, capfd):
    Path(mine).write_text(f"{MINE}\nmethods: {{sft: {{learning_rate: 1.0e+30}}}}\n")
    assert study(mine, only=("01",), out=tmp_path / "out", jobs=1) == 1
    printed, said = capfd.readouterr()
    assert len(complete_runs(tmp_path / "out")) == 2 and "| SFT, loss on all tokens | 1 |" in printed
    assert re.search(r"^.*digits-sft-nano-s-s0-\w+ failed: training stopped: .* lower the learning rate", said, re.M)
    assert "Traceback" not in said and "failed: 01_sft_baseline; runs not made: 1\n" in said
    assert not (tmp_path / "out" / "mine" / "notebooks").exists()
    assert "loss on the answer: base" not in printed


def test_a_study_in_which_every_run_fails_says_so(mine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "make_runs", lambda *_: None)
    assert study(mine, only=("02", "03"), seeds=1, out=tmp_path / "out") == 1
    assert capsys.readouterr().err.count("failed: 0") == 2


def test_shards_share_out_every_run_once(mine, tmp_path, capsys):
    def planned(*shard):
        assert main(["study", "--profile", mine, "--seeds", "3", "--out", "out", "--dry-run", *shard]) == 0
        return [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]

    parts = [planned("--shard", f"{i}/3") for i in (1, 2, 3)]
    trained = [name for part in parts for name in part if "zero_shot" not in name]
    assert sorted(trained) == sorted(name for name in planned() if "zero_shot" not in name)
    assert not any(set(a) & set(b) for a in parts for b in parts if a is not b)


def test_seeds_begin_where_they_are_told(mine, capsys):
    command = ["study", "--profile", mine, "--only", "02", "--seeds", "2", "--out", "out", "--dry-run"]
    assert main([*command, "--first-seed", "7"]) == 0
    planned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [re.search(r"-(\w+)-nano-s-(s\d)-", name).groups() for name in planned] == [
        ("zero_shot", "s7"), ("cls_rl", "s7"), ("cls_rl", "s8"),
    ]  # fmt: skip
    assert main([*command, "--first-seed", "-1"]) == 2
    assert "--first-seed must be at least 0" in capsys.readouterr().err


def test_the_time_is_that_of_runs_that_differ_only_by_the_seed(mine, tmp_path):
    def made(place, seconds, **changes):
        settings = load_settings(mine, "sft", seed=3, **changes)
        folder = run_folder(tmp_path / place, settings, "abc")
        write_config(folder, settings)
        write_results(folder, settings, OUTCOME | {"seconds": seconds}, "")

    def estimate(missing, jobs=1):
        return estimate_text(missing, seconds_by_kind(tmp_path), mine, jobs)

    asked = load_settings(mine, "sft", seed=0, eval_dataset="digits")
    command = "rftkit estimate --profile=mine.yaml --dataset=digits --method=sft --model=nano-s"
    command += " --eval-dataset=digits --protocol=base_to_new"
    unknown = f"1 runs take an unknown time, as none of their kind was made before; of the last: {command}\n"
    assert estimate([asked]) == unknown
    assert main(shlex.split(command)[1:]) == 0
    made("a", 600, eval_dataset="digits")
    made("b", 9000, eval_dataset="digits", max_answer_tokens=64)
    made("b", 9000, eval_dataset="digits", steps=3)
    assert estimate([asked]) == "about 10 minutes, by runs made before\n"
    assert estimate([asked] * 4, 2) == "about 20 minutes, by runs made before\n"
    other = replace(asked, sft_batch=5)
    some = estimate([asked, other])
    assert some == f"about 10 minutes for 1 of 2 runs, by runs made before\n{unknown}"
    assert estimate([]) == ""  # complete
    for results in tmp_path.rglob("results.json"):
        results.write_text("{")  # truncated: of no use, and no harm
    assert estimate([asked]) == unknown


def test_the_committed_runs_are_those_of_the_nano_profile(tmp_path):
    runs = [load_settings("nano", method, seed=4) for method in ("zero_shot", "cls_rl")]
    said = estimate_text(runs, seconds_by_kind(tmp_path), "nano", 1)
    assert re.fullmatch(r"about [1-9]\d* minutes, by runs made before\n", said)


def test_the_longest_run_is_made_first_each_once_and_one_of_unknown_length_before_all(tmp_path):
    parts = parts_of(dealt("smoke", ("01", "02", "06"), [0, 1], [], None), "smoke", "shapes", tmp_path)
    every = module._together(parts)
    seconds = {"zero_shot": 3, "sft": 2, "sft_all": 5, "cls_rl": 9, "no_thinking_rl": 4, "adaptive": 7}
    took = {kind_of(s): seconds[s.method] for s in every.values() if s.method in seconds}
    order = [settings.method for settings in module._longest_first(parts, took).values()]
    known = ["cls_rl", "cls_rl", "adaptive", "adaptive", "sft_all", "sft_all", "no_thinking_rl", "no_thinking_rl"]
    # 02 and 06 share cls_rl, and one run of zero_shot is for all seeds.
    assert [name for name in order if name != "think_after_answer"][:-3] == known
    assert order[:2] == ["think_after_answer"] * 2 and order[-3:] == ["zero_shot", "sft", "sft"]
    folder = next(folder for folder, settings in every.items() if settings.method == "sft")
    write_config(folder, every[folder])
    write_results(folder, every[folder], OUTCOME, "")
    assert len(module._longest_first(parts, took)) == len(order) - 1


def test_a_run_that_two_chapters_share_has_a_curve_if_one_of_them_looks_at_it(tmp_path):
    profile = tmp_path / "curve.yaml"
    profile.write_text("like: smoke\neval_every: 1\n")
    first, second, *_ = dealt(str(profile), ("02", "06"), [0], [], None)
    for seeds in ([0, 1], [1, 0]):
        plan = {first: seeds, second: [1]}
        curves = {s.seed: s.eval_every for s in module._together(parts_of(plan, str(profile), None, tmp_path)).values()
                  if s.method == "cls_rl"}  # fmt: skip
        assert curves == {seeds[0]: 1, 1: 1} | {0: int(seeds[0] == 0)}


def test_all_and_single_notebooks_can_be_named(mine, capsys):
    assert main(["study", "--profile", mine, "--only", "05,06", "--seeds", "1", "--out", "out", "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "digits-adaptive-nano-s-s0" in planned and "emoji-sft-nano-s-s0" in planned and "01_" not in planned
    assert "05_math_spatial_puzzle-few_shot: 6 runs to do" in planned and "shapes-few_shot-sft-nano-s-s0" in planned
    command = f"study --profile {mine} --only 05 --dataset math --seeds 1 --out out --dry-run".split()
    assert main(command) == 0 and "few_shot" not in capsys.readouterr().out  # few shots are for classification


def test_the_larger_model_is_part_of_the_study_of_the_designs_base_models_alone():
    def larger(profile, *models):
        every = dealt(profile, ("05",), range(10), models, None)
        return {chapter: seeds for chapter, seeds in every.items() if chapter.seeds and not chapter.protocol}

    ((chapter, seeds),) = larger("nano").items()
    assert chapter.title == "05_math_spatial_puzzle-nano-m" and seeds == [0, 1, 2, 3, 4]
    assert datasets_of(chapter, None) == ("math", "spatial", "puzzle", "shapes")
    assert datasets_of(chapter, "math") == ("math",) and datasets_of(chapter, "emoji") == ()
    (part,) = parts_of({chapter: seeds}, "nano", "math", Path("out"))
    assert part.parameters == json.loads(json.dumps(part.parameters)) == {  # what papermill can write
        "profile": "nano", "seeds": [0, 1, 2, 3, 4], "out": str(Path("out").resolve()), "model": "nano-m",
        "datasets": ["math"], "protocol": "base_to_new", "methods": ["zero_shot", "cls_rl", "no_thinking_rl"],
        "matrix_items": 0,
    }  # fmt: skip
    assert not larger("nano-swapped") and not larger("gpu-2b") and not larger("nano", "nano-s")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/0"])
def test_a_shard_that_is_none_is_one_line(mine, shard, capsys):
    assert main(["study", "--profile", mine, "--shard", shard]) == 2
    assert "--shard must be i/n" in capsys.readouterr().err


def test_a_run_is_stopped_at_the_time_limit(mine, tmp_path, capfd):
    Path(mine).write_text(MINE.replace("steps: 2", "steps: 2000"))
    assert study(mine, only=("03",), seeds=1, out=tmp_path / "out", jobs=1, time_limit=0.02) == 1
    said = capfd.readouterr().err
    assert re.search(r"digits-no_thinking_rl-\S+ failed: stopped: the time limit of 0.02 minutes was reached\n", said)
    assert "Traceback" not in said and all("zero_shot" in folder.name for folder in complete_runs(tmp_path / "out"))


def test_a_run_that_another_process_makes_is_waited_for(tmp_path):
    folder = tmp_path / "nano" / "run"
    script = (
        "import sys, time; from pathlib import Path; from rftkit.runs.folder import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    threading.Timer(1.0, lambda: os.kill(other.pid, signal.SIGKILL)).start()
    began = time.perf_counter()
    with locked(folder):  # a killed process holds nothing
        assert 0.5 < time.perf_counter() - began < 30
    other.wait()


def test_several_base_models_are_run_one_after_the_other(mine, tmp_path, monkeypatch, capsys):
    shutil.copytree(BUNDLED / "nano-s", tmp_path / "mymodel")
    assert (
        study(mine, only=("02",), seeds=2, out=tmp_path / "out", models=["nano-s", "mymodel", "nano-s"], dry_run=True)
        == 0
    )
    printed = capsys.readouterr().out
    assert "02_cls_rl-nano-s: 3 runs to do" in printed and "02_cls_rl-mymodel: 3 runs to do" in printed
    assert [printed.count(f"digits-cls_rl-{model}-s") for model in ("nano-s", "mymodel")] == [2, 2]
    monkeypatch.setattr(jobs, "NOTEBOOKS", tmp_path)
    write_notebook("02_cls_rl", f"assert model == {str((tmp_path / 'mymodel').resolve())!r}")
    assert study(mine, only=("02",), seeds=1, out=tmp_path / "out", models=["mymodel"], jobs=1) == 0
    made = complete_runs(tmp_path / "out")  # the untrained model too
    assert [read_results(folder).model for folder in made] == [str((tmp_path / "mymodel").resolve())] * 2
    with pytest.raises(UserError, match="no model 'nano-x'"):
        study(mine, only=("02",), seeds=1, out=tmp_path / "out", models=["nano-x"], dry_run=True)


def test_models_of_a_profile_take_the_seeds_in_turn_and_named_ones_have_all(mine, tmp_path, capsys):
    assert all(seeds == [0, 1] for seeds in dealt(mine, ("01", "02"), range(2), ["a", "b"], None).values())
    parts = [dealt(mine, ("01", "02"), range(4), ["a", "b"], f"{i}/3") for i in (1, 2, 3)]
    assert sum(len(seeds) for part in parts for seeds in part.values()) == 16
    shutil.copytree(BUNDLED / "nano-s", tmp_path / "second")
    listed = MINE.replace("model: nano-s", "model: [nano-s, second]").replace("study: {seeds: 1}", "")
    (tmp_path / mine).write_text(f"{listed}\nstudy: {{seeds: 3}}\n")
    assert study(mine, only=("01", "02"), out=tmp_path / "out", dry_run=True) == 0
    planned = re.findall(r"digits-(\w+)-(\w+-?\w*)-s(\d)", capsys.readouterr().out)
    assert [(model, seed) for method, model, seed in planned if method == "zero_shot"] == [
        ("nano-s", "0"),
        ("second", "1"),
    ]
    assert [(model, seed) for method, model, seed in planned if method == "cls_rl"] == [
        ("nano-s", "0"), ("second", "1"), ("nano-s", "2")
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_worker_that_is_killed_is_one_line_and_a_second_start_goes_on(mine, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(jobs, "NOTEBOOKS", tmp_path)
    write_notebook("03_no_thinking_rl", "6 * 7")

    def kill_at_the_second_run():
        while len(list(out.glob("mine/.locks/*"))) < 2:
            time.sleep(0.05)
        (worker,) = multiprocessing.active_children()
        worker.kill()

    threading.Thread(target=kill_at_the_second_run, daemon=True).start()
    with pytest.raises(UserError, match="ended before it was done"):
        study(mine, only=("03",), seeds=2, out=out, jobs=1)
    made = {folder: (folder / RESULTS).stat().st_mtime_ns for folder in complete_runs(out)}
    assert len(made) == 1
    assert study(mine, only=("03",), seeds=2, out=out, jobs=1) == 0
    again = {folder: (folder / RESULTS).stat().st_mtime_ns for folder in complete_runs(out)}
    assert len(again) == 3 and again | made == again
    assert (out / "mine" / "notebooks" / "03_no_thinking_rl.ipynb").is_file()


def test_workers_share_cores_and_have_a_gpu_each(tmp_path, monkeypatch):
    def told(count):
        folder = tmp_path / str(count)
        folder.mkdir()
        with jobs.processes(count) as workers:
            futures = [workers.submit(surroundings, folder, count) for _ in range(count)]
            return sorted(future.result() for future in futures)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(jobs.torch.cuda, "device_count", lambda: 0)
    assert told(1) == [(None, "1", os.cpu_count())]
    monkeypatch.setattr(jobs.torch.cuda, "device_count", lambda: 2)
    threads = max(1, os.cpu_count() // 3)
    assert told(3) == [("0", "1", threads), ("0", "1", threads), ("1", "1", threads)]
    assert "TQDM_DISABLE" not in os.environ and os.environ.keys() >= jobs.ENVIRONMENT.keys()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    assert jobs.devices() == ["5", "GPU-abc"]
