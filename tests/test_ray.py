"""A study on a Ray cluster: two machines, on this one, of which one is lost; and what a user can get wrong."""

import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from test_study_ends import write_notebook

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before it is loaded
pytest.importorskip("ray")

from ray.cluster_utils import Cluster

from rftkit.cli import main
from rftkit.run import execute, folder_of
from rftkit.runs.fingerprint import installed
from rftkit.runs.folder import METRICS, PREDICTIONS, complete_runs, read_results, read_settings, run_files, write_run
from rftkit.settings import load_settings
from rftkit.study import elsewhere
from rftkit.study import workers as jobs

COMMAND = ["study", "--profile", "mine.yaml", "--only", "02,03", "--seeds", "2", "--out", "out", "--ray"]


def started(start, **options):
    """A machine with a core, started again if Ray has given up on it: it waits for 15 seconds, however busy we are."""
    for _ in range(4):
        with suppress(Exception):
            return start(**options)
    return start(**options)


@pytest.fixture(scope="module")
def cluster():
    """A machine with a core. Tests add others."""
    alone = {"num_cpus": 1, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    made = started(Cluster, initialize_head=True, head_node_args=alone)
    yield made
    made.shutdown()


@pytest.mark.parametrize(
    "address, reason",
    [
        ("somewhere", "name HOST:PORT"),
        ("127.0.0.1:1", "Connection refused"),
        ("nowhere.invalid:6379", "."),
        ("{silent}", "timed out"),
        ("auto", "Could not find any running Ray instance"),
    ],
)
def test_a_wrong_address_is_one_line(address, reason, mine, monkeypatch, capfd):
    # Stands before all tests with a cluster: `auto` would find it.
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", os.getcwd())  # where `auto` looks for clusters
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = address.format(silent=f"127.0.0.1:{silent.getsockname()[1]}")
        assert main([*COMMAND, address]) == 2
    said = capfd.readouterr().err
    assert re.fullmatch(rf"rftkit: --ray: no cluster at '{address}' that can be used: .*{reason}.*\n", said)


def test_a_machine_is_lost_and_the_study_has_the_numbers_of_one_made_here(cluster, mine, tmp_path, monkeypatch, capfd):
    nowhere = SimpleNamespace(name=str(tmp_path / "out" / "nowhere"))
    monkeypatch.setattr(elsewhere, "NamedTemporaryFile", lambda **_: nullcontext(nowhere))  # no disk seems shared
    monkeypatch.setattr(jobs, "NOTEBOOKS", tmp_path)
    for name in ("02_cls_rl", "03_no_thinking_rl"):
        write_notebook(name, "6 * 7")
    second, made = started(cluster.add_node, num_cpus=1), []

    def lose():
        while not made:
            time.sleep(0.02)
            made.extend(complete_runs(tmp_path / "out"))
        cluster.remove_node(second, allow_graceful=False)

    threading.Thread(target=lose, daemon=True).start()
    assert main([*COMMAND, cluster.address]) == 0
    printed, bars = capfd.readouterr()
    assert len(made) < 5 and "5/5" in bars and "failed" not in bars
    assert "digits, CLS-RL (thinking): base " in printed and "(runs: 2)" in printed
    runs = complete_runs(tmp_path / "out")
    assert len(runs) == 5 and not list(tmp_path.glob("out/mine/.d*"))
    for run in runs:
        here = execute(read_settings(run), tmp_path / "here")
        assert here.name == run.name and read_results(here).parts == read_results(run).parts
        pd.testing.assert_frame_equal(pd.read_parquet(here / PREDICTIONS), pd.read_parquet(run / PREDICTIONS))
        assert run_files(here).keys() == run_files(run).keys()
    assert main([*COMMAND, cluster.address]) == 0  # all is there: nobody is asked


def test_a_machine_with_another_version_or_too_small_a_cluster_is_one_line(cluster, mine, tmp_path, capfd):
    other = tmp_path / "bitsandbytes-0.50.99.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: bitsandbytes\nVersion: 0.50.99\n")
    path = os.pathsep.join((str(tmp_path), os.environ["PYTHONPATH"]))
    node = started(cluster.add_node, num_cpus=1, env_vars={"PYTHONPATH": path})
    assert main([*COMMAND, cluster.address]) == 2
    said = re.sub(r"^\[20.*\n", "", capfd.readouterr().err, flags=re.M)  # Ray's own log, on a busy machine
    version = re.escape(installed()["bitsandbytes"])
    assert re.fullmatch(
        rf"rftkit: --ray: \S+ \(\S+\) has bitsandbytes 0\.50\.99, not {version}: install the same there as here\n", said
    )
    cluster.remove_node(node)
    with (tmp_path / mine).open("a") as profile:
        profile.write("study: {num_cpus: 64}\n")
    assert main([*COMMAND, cluster.address]) == 2
    assert capfd.readouterr().err == "rftkit: --ray: no machine of the cluster has 64 CPUs and 0 GPUs for a run\n"


def test_without_ray_it_is_one_line(mine, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*COMMAND, "auto"]) == 2
    assert capsys.readouterr().err == "rftkit: --ray needs Ray, which is not installed: pip install 'rftkit[cluster]'\n"


def test_a_machine_that_shares_the_disk_writes_there_and_one_with_other_data_makes_nothing(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # those of a worker are not ours
    run = load_settings(mine, "sft", seed=3)
    folder, mark = folder_of(run, tmp_path), tmp_path / "mark"
    name = folder.relative_to(tmp_path)

    def told(settings):
        return elsewhere._elsewhere(settings, name, mark, None)

    assert " has other data, another model, " in told(replace(run, test_seed=1))
    assert " has other data, another model, " in told(replace(run, steps=3))
    assert not folder.exists()
    mark.touch()
    assert told(run) == {} and complete_runs(tmp_path) == [folder]


def test_a_run_comes_home_whole_over_the_beginning_of_the_same(mine, tmp_path):
    made = execute(load_settings(mine, "zero_shot"), tmp_path / "a")
    (made / "checkpoints").mkdir()
    (made / "checkpoints" / "weights").touch()
    files = run_files(made)
    assert "checkpoints/weights" not in files and {PREDICTIONS, "results.json"} <= files.keys()
    home = tmp_path / "b" / made.name
    home.mkdir(parents=True)
    (home / METRICS).touch()  # a beginning
    write_run(home, files)
    assert run_files(home) == files and [path.name for path in home.parent.iterdir() if path != home] == [".locks"]
    write_run(home, {"results.json": b"another"})  # what is complete stays
    assert run_files(home) == files
