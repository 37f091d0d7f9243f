"""The batch: profiles of one's own, its plan, its helpers, an interruption."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import replace

import psutil
import pytest
from conftest import MINE
from test_report import OUTCOME

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.models import BUNDLED
from rftkit.runs.folder import complete_runs, is_complete, locked, read_results, run_folder, write_config, write_results
from rftkit.settings import load_settings
from rftkit.study import batch as module
from rftkit.study import workers as jobs
from rftkit.study.batch import study
from rftkit.study.chapters import CHAPTERS, datasets_of, dealt, runs_of


def test_a_profile_by_path_with_its_own_dataset_runs_reports_and_is_found_complete(mine, tmp_path, capsys):
    assert study(mine, ("01",), None, tmp_path / "out") == 0
    names = {folder.name.rpartition("-")[0] for folder in complete_runs(tmp_path / "out" / "mine")}
    assert names == {f"digits-{method}-nano-s-s0" for method in CHAPTERS[0].methods}
    printed = capsys.readouterr().out
    assert "SFT, loss on the answer" in printed and str(tmp_path / "out" / "mine" / "report.md") in printed
    assert re.search(r"took \d+\.\d minutes$", printed.strip())
    assert study(mine, ("01",), None, tmp_path / "out") == 0
    assert "01_sft_baseline: complete" in capsys.readouterr().out


def test_a_study_in_which_every_notebook_fails_says_so(mine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "execute_chapter", lambda *_: False)
    assert study(mine, ("02", "03"), 1, tmp_path / "out") == 1
    assert capsys.readouterr().err.count("failed: 0") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_what_runs_and_starts_no_more(sent, mine, tmp_path):
    command = [sys.executable, "-m", "rftkit.cli", "study", "--profile", mine, "--out", "out", "--jobs", "2"]
    command += ["--only", "03", "--seeds", "3"]  # a notebook and a helper
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip
    while process.poll() is None and not (tmp_path / "out" / "mine" / "notebooks").is_dir():
        time.sleep(0.05)
    time.sleep(1)
    children = psutil.Process(process.pid).children()
    commands = [child.cmdline() for child in children]
    os.kill(process.pid, sent)
    assert process.wait(timeout=30) == 130
    assert all("rftkit.common.child" in command for command in commands)  # so they end: test_study_ends.py
    assert len(children) == 2 and not psutil.wait_procs(children, timeout=10)[1]
    assert "interrupted; start the same command again" in process.stderr.read()
    assert not complete_runs(tmp_path / "out")


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
    assert ["-s7-" in planned[0], "-s8-" in planned[1], len(planned)] == [True, True, 2]
    assert main([*command, "--first-seed", "-1"]) == 2
    assert "--first-seed must be at least 0" in capsys.readouterr().err


def test_the_time_is_that_of_runs_that_differ_only_by_the_seed(mine, tmp_path):
    def made(place, seconds, **changes):
        settings = load_settings(mine, "sft", seed=3, **changes)
        folder = run_folder(tmp_path / place, settings, "abc")
        write_config(folder, settings)
        write_results(folder, settings, OUTCOME | {"seconds": seconds}, "")

    asked = load_settings(mine, "sft", seed=0, eval_dataset="digits")
    estimate = "rftkit estimate --profile mine.yaml --dataset=digits --method=sft --model=nano-s --eval-dataset=digits"
    unknown = f"1 runs take an unknown time, as none of their kind was made before; of the last: {estimate}\n"
    assert module._estimate([asked], mine, tmp_path, 1) == unknown
    assert main(shlex.split(estimate)[1:]) == 0
    made("a", 600, eval_dataset="digits")
    made("b", 9000, eval_dataset="digits", max_answer_tokens=64)
    made("b", 9000, eval_dataset="digits", steps=3)
    assert module._estimate([asked], mine, tmp_path, 1) == "about 10 minutes, by runs made before\n"
    assert module._estimate([asked] * 4, mine, tmp_path, 2) == "about 20 minutes, by runs made before\n"
    other = replace(asked, sft_batch=5)
    some = module._estimate([asked, other], mine, tmp_path, 1)
    assert some == f"about 10 minutes for 1 of 2 runs, by runs made before\n{unknown}"
    assert module._estimate([], mine, tmp_path, 1) == ""  # complete
    for results in tmp_path.rglob("results.json"):
        results.write_text("{")  # truncated: of no use, and no harm
    assert module._estimate([asked], mine, tmp_path, 1) == unknown


def test_the_committed_runs_are_those_of_the_nano_profile(tmp_path):
    runs = [load_settings("nano", method, seed=4) for method in ("zero_shot", "cls_rl")]
    assert re.fullmatch(r"about [1-9]\d* minutes, by runs made before\n", module._estimate(runs, "nano", tmp_path, 1))


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
    assert not larger("nano-swapped") and not larger("gpu-2b") and not larger("nano", "nano-s")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/0"])
def test_a_shard_that_is_none_is_one_line(mine, shard, capsys):
    assert main(["study", "--profile", mine, "--shard", shard]) == 2
    assert "--shard must be i/n" in capsys.readouterr().err


def test_a_notebook_is_stopped_at_the_time_limit(mine, tmp_path, capfd):
    assert study(mine, ("03",), 1, tmp_path / "out", time_limit=0.02) == 1
    assert "stopped: the time limit of 0.02 minutes" in capfd.readouterr().err


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
    with locked(folder, wait=False) as mine:
        assert not mine
    with locked(folder):  # a killed process holds nothing
        assert 0.5 < time.perf_counter() - began < 30
    other.wait()


def test_several_base_models_are_run_one_after_the_other(mine, tmp_path, capsys):
    shutil.copytree(BUNDLED / "nano-s", tmp_path / "mymodel")
    assert study(mine, ("02",), 2, tmp_path / "out", models=["nano-s", "mymodel", "nano-s"], dry_run=True) == 0
    printed = capsys.readouterr().out
    assert "02_cls_rl-nano-s: 2 runs to do" in printed and "02_cls_rl-mymodel: 2 runs to do" in printed
    assert [printed.count(f"digits-cls_rl-{model}-s") for model in ("nano-s", "mymodel")] == [2, 2]
    assert study(mine, ("02",), 1, tmp_path / "out", models=["mymodel"]) == 0
    (folder,) = complete_runs(tmp_path / "out")
    assert read_results(folder).model == str((tmp_path / "mymodel").resolve())
    with pytest.raises(UserError, match="no model 'nano-x'"):
        study(mine, ("02",), 1, tmp_path / "out", models=["nano-x"], dry_run=True)


def test_models_of_a_profile_take_the_seeds_in_turn_and_named_ones_have_all(mine, tmp_path, capsys):
    assert all(seeds == [0, 1] for seeds in dealt(mine, ("01", "02"), range(2), ["a", "b"], None).values())
    parts = [dealt(mine, ("01", "02"), range(4), ["a", "b"], f"{i}/3") for i in (1, 2, 3)]
    assert sum(len(seeds) for part in parts for seeds in part.values()) == 16
    shutil.copytree(BUNDLED / "nano-s", tmp_path / "second")
    listed = MINE.replace("model: nano-s", "model: [nano-s, second]").replace("study: {seeds: 1}", "")
    (tmp_path / mine).write_text(f"{listed}\nstudy: {{seeds: 3}}\n")
    assert study(mine, ("01", "02"), None, tmp_path / "out", dry_run=True) == 0
    planned = re.findall(r"digits-(\w+)-(\w+-?\w*)-s(\d)", capsys.readouterr().out)
    assert [(model, seed) for method, model, seed in planned if method == "zero_shot"] == [
        ("nano-s", "0"),
        ("second", "1"),
    ]
    assert [(model, seed) for method, model, seed in planned if method == "cls_rl"] == [
        ("nano-s", "0"), ("second", "1"), ("nano-s", "2")
    ]  # fmt: skip


def test_a_free_core_makes_the_last_runs_of_a_notebook(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "WORTH_A_HELPER", 1)
    made = []

    def notebook(chapter, profile, dataset, seeds, out, of, limit):
        runs = list(runs_of(chapter, profile, dataset, seeds, out))
        with locked(runs[0]):  # as if it were slow with the first run
            until = time.monotonic() + 120
            while not all(map(is_complete, runs[1:])) and time.monotonic() < until:
                time.sleep(0.1)
            made.extend(map(is_complete, runs))
        return True

    monkeypatch.setattr(jobs, "execute_chapter", notebook)
    assert study(mine, ("03",), 3, tmp_path / "out", jobs=2) == 0
    assert made == [False, True, True]
    assert "failed" not in capsys.readouterr().err


def test_a_helper_that_fails_says_why_and_is_left_out(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "WORTH_A_HELPER", 1)
    settings = load_settings(mine, "sft")
    folder, (chapter, *_) = run_folder(tmp_path, settings, "abc"), CHAPTERS
    (tmp_path / "file").write_text("no folder")
    still, ended = Future(), Future()
    ended.set_result(False)
    for future, said in ((ended, False), (still, True)):  # only notebooks that run are helped
        jobs._help({future: chapter}, {chapter: {folder: settings}}, tmp_path / "file", jobs.Jobs(1), None)
        assert ("a helper failed; its last lines" in capsys.readouterr().err) == said


def test_processes_share_cores_and_have_a_gpu_each(monkeypatch):
    tell = [sys.executable, "-c", "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(jobs.torch.cuda, "device_count", lambda: 0)
    assert jobs.Jobs(2).run(tell) == (0, "None\n")
    monkeypatch.setattr(jobs.torch.cuda, "device_count", lambda: 2)
    both = jobs.Jobs(3)
    with both._environment() as first, both._environment() as second, both._environment() as third:
        assert [e["CUDA_VISIBLE_DEVICES"] for e in (first, second, third)] == ["0", "1", "0"]
        assert first["OMP_NUM_THREADS"] == str(max(1, os.cpu_count() // 3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    assert jobs.devices() == ["5", "GPU-abc"]
