"""Kept runs: the same report out of three small files, which are whole or refused."""

import re
import shutil

import pandas as pd
import pytest
from test_report import make_run, two_methods  # noqa: F401 (the fixture `runs`)

from rftkit.common.errors import UserError
from rftkit.report.pages import write_report
from rftkit.runs.archive import kept_results, read_archive, write_archive
from rftkit.runs.collect import load_runs


def test_kept_runs_make_the_same_report(runs, tmp_path_factory):
    make_run(runs / "zero", "zero_shot", 0, "no_thinking", [0, 0, 1, 0, 1, 1, 0, 1, 1], [1] * 9, model="other")
    kept, again = tmp_path_factory.mktemp("kept") / "archive", tmp_path_factory.mktemp("again")
    text, path = write_report(runs, keep=kept)
    assert {file.name for file in kept.iterdir()} == {"runs.jsonl", "items.csv", "answers.csv"}
    assert write_report(kept, again)[0] == text
    assert (again / "report.json").read_text() == path.with_suffix(".json").read_text()
    write_report([kept, runs], again, keep=kept)  # an archive may be written anew, and pooled with folders
    assert write_report(kept, again)[0] == text


@pytest.mark.parametrize("name", ["runs.jsonl", "items.csv", "answers.csv"])
@pytest.mark.parametrize("spoil", [lambda text: text[: len(text) // 2], lambda text: "", lambda text: "\0" + text])
def test_a_torn_archive_is_one_line(runs, tmp_path, name, spoil):
    write_archive([run for methods in load_runs(runs).values() for run in methods["sft"]], tmp_path / "kept")
    file = tmp_path / "kept" / name
    file.write_text(spoil(file.read_text()))
    with pytest.raises(UserError, match="no whole archive|is not what a run writes|no complete runs"):
        load_runs(tmp_path / "kept")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("answers.csv", r"^0,new,.*\n", ""),  # a part of a run
        ("answers.csv", r"^0,.*strict.*\n", ""),  # a rule
        ("answers.csv", r"^(0,base,.*strict.*)$", r"\1\n\1"),
        ("answers.csv", r"^(0,base,.*strict.*),e0$", r"\1,f0"),
        ("answers.csv", "^0,", "-3,"),
        ("answers.csv", "lenient", "mode"),
        ("items.csv", r"base1", "base0"),
        ("items.csv", r"^.*base0.*\n", ""),
        ("runs.jsonl", r'"seed": 1', '"seed": 1.5'),
        ("runs.jsonl", r'"mode": "no_thinking"', '"mode": "loud"'),
        ("runs.jsonl", r'"data_sha256"', '"tests_sha256": [], "data_sha256"'),
        ("runs.jsonl", r'"data_sha256"', '"answers": 5, "data_sha256"'),
        ("runs.jsonl", r'"model": "nano-s"', r'"model": "\\ud800"'),
        ("runs.jsonl", r", 4, 3\]", f", {10**400}, 3]"),
        ("runs.jsonl", r"^.*$", "[" * 200_000),
    ],
)
def test_an_archive_that_was_changed_by_hand_is_one_line(runs, tmp_path, name, old, new):
    write_archive([run for methods in load_runs(runs).values() for run in methods["sft"]], tmp_path / "kept")
    file = tmp_path / "kept" / name
    changed = re.sub(old, new, file.read_text(), count=1, flags=re.MULTILINE)
    assert changed != file.read_text()
    file.write_text(changed)
    with pytest.raises(UserError, match="no whole archive"):
        load_runs(tmp_path / "kept")


def test_nothing_else_is_written_over_by_keeping(runs, tmp_path_factory):
    with pytest.raises(UserError, match="holds something else"):
        write_report(runs, keep=runs)
    kept = tmp_path_factory.mktemp("kept")
    write_report(runs, keep=kept)
    shutil.rmtree(runs / "sft-0")
    with pytest.raises(UserError, match="--keep: 1 of the runs in '.*' are not among these"):
        write_report(runs, keep=kept)
    assert len(kept_results(kept)) == 6


def test_items_called_na_are_kept_by_their_names(runs, tmp_path):
    run = load_runs(runs)["nano", "shapes", "nano-s"]["sft"][0]
    answers = pd.read_parquet(run["folder"] / "predictions.parquet").assign(group="NA")
    write_archive([run | {"answers": answers}], tmp_path / "kept")
    assert set(read_archive(tmp_path / "kept")[0]["answers"]["group"]) == {"NA"}
