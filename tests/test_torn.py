"""Files that were torn or changed by hand, and places where nothing can be written: one line and exit status 2."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from test_cli import one_line
from test_report import make_run

from rftkit.cli import main
from rftkit.models import BUNDLED
from rftkit.results import read_predictions, read_results
from rftkit.run import execute
from rftkit.settings import load_settings

NOTHING = "/proc/nothing"  # no file can be made there, not even by root


@pytest.fixture
def run(tmp_path):
    """A run folder as a study leaves it."""
    make_run(tmp_path / "runs" / "run", "sft", 0, "no_thinking", [1, 0, 1, 1], [0, 0, 1, 0])
    return tmp_path / "runs" / "run"


def change(path, *place, value=None):
    """Set a value deep in a JSON file; None removes it."""
    whole = content = json.loads(path.read_text())
    for key in place[:-1]:
        content = content[key]
    if value is None:
        del content[place[-1]]
    else:
        content[place[-1]] = value
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *(((key,), None) for key in ("task", "dataset", "method", "model", "profile", "mode", "seed", "eval", "measures")),
        *(((key,), None) for key in ("training", "completion_length", "seconds", "data_sha256", "versions")),
        *(((key,), 3) for key in ("profile", "dataset", "model", "control", "eval", "measures", "training")),
        *(((key,), "many") for key in ("method", "task", "protocol", "seed", "eval", "measures", "completion_length")),
        (("completion_length",), float("nan")),
        (("completion_length",), float("inf")),
        (("training", "seconds"), "12"),
        (("eval", "base", "accuracy"), "0.5"),
        (("eval", "base", "accuracy"), float("nan")),
        (("eval", "base", "n"), None),
        (("measures", 0, "accuracy"), 50.0),
        (("measures", 0, "split"), 1),
        (("measures", 0), "base"),
    ],
)
def test_results_that_were_changed_by_hand(run, capsys, place, value):
    change(run / "results.json", *place, value=value)
    line = one_line(capsys, "report", "--runs", str(run.parent))
    assert f"{run / 'results.json'}' is not what a run writes: remove it" in line


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", "\0", '"text"', '{"profile": "nano"}'])
def test_results_that_are_torn(run, capsys, content):
    (run / "results.json").write_text(content)
    assert "results.json' is not what a run writes" in one_line(capsys, "report", "--runs", str(run.parent))


def test_a_control_that_is_no_more_has_its_own_name(run, capsys):
    change(run / "results.json", "control", value="last_years")
    assert main(["report", "--runs", str(run.parent)]) == 0


TABLES = {
    "two rows of an item": lambda table: pd.concat([table, table[:1]]),
    "no scores": lambda table: table.drop(columns="strict"),
    "no items": lambda table: table.drop(columns="id"),
    "no drawings": lambda table: table.drop(columns="group"),
    "no rows": lambda table: table[:0],
    "scores that are texts": lambda table: table.assign(strict="yes"),
    "scores that are missing": lambda table: table.assign(strict=np.nan),
    "scores beyond one": lambda table: table.assign(strict=7.0),
}


@pytest.mark.parametrize("change", TABLES.values(), ids=TABLES.keys())
def test_predictions_that_were_changed_by_hand(run, capsys, change):
    path = run / "predictions.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    line = one_line(capsys, "report", "--runs", str(run.parent))
    assert f"{path}' is not what a run writes: remove results.json beside it" in line


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run with an adapter."""
    settings = load_settings("smoke", "sft", steps=1, test_items=2, pass_items=0)
    return execute(settings, tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_predictions_that_are_torn(trained, tmp_path, capsys, share):
    torn = shutil.copytree(trained, tmp_path / "runs" / "run")
    path = torn / "predictions.parquet"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for command in (f"report --runs {tmp_path / 'runs'}", f"export {torn} {tmp_path / 'out'} --check 1"):
        assert "predictions.parquet' is not what a run writes" in one_line(capsys, *command.split())
    assert "it is not UTF-8 text" in one_line(capsys, "rescore", str(path)) or share == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_run_is_whole_again_once_its_results_are_removed(trained, tmp_path):
    torn = shutil.copytree(trained, tmp_path / trained.parent.name / trained.name)
    (torn / "predictions.parquet").write_bytes(b"")
    (torn / "results.json").unlink()
    execute(load_settings("smoke", "sft", steps=1, test_items=2, pass_items=0), tmp_path)
    assert read_results(torn)["eval"] == read_results(trained)["eval"]
    pd.testing.assert_frame_equal(read_predictions(torn), read_predictions(trained))
