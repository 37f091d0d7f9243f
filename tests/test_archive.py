"""Archived runs: the same report out of two small files, which are whole or refused."""

import re
import shutil
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_report import make_run, two_methods  # noqa: F401 (the fixture `runs`)

from rftkit.common.errors import UserError
from rftkit.common.paths import KEPT, LOGS
from rftkit.report.pages import write_report
from rftkit.runs.archive import archived_runs, is_archive, read_archive, write_archive
from rftkit.runs.collect import load_runs


def test_archived_runs_make_the_same_report(runs, tmp_path_factory):
    make_run(runs / "zero", "zero_shot", 0, "no_thinking", [0, 0, 1, 0, 1, 1, 0, 1, 1], [1] * 9, model="other")
    kept, again = tmp_path_factory.mktemp("kept") / "archive", tmp_path_factory.mktemp("again")
    text, path = write_report(runs, keep=kept)
    assert {file.name for file in kept.iterdir()} == {"runs.parquet", "answers.parquet"}
    assert write_report(kept, again)[0] == text
    assert (again / "report.json").read_text() == path.with_suffix(".json").read_text()
    write_report([kept, runs], again, keep=kept)  # an archive may be written anew, and pooled with folders
    assert write_report(kept, again)[0] == text


@pytest.fixture
def archive(runs, tmp_path):
    """One of two parts, three seeds and two rules."""
    write_archive([run for methods in load_runs(runs).values() for run in methods["sft"]], tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.parametrize("name", ["runs.parquet", "answers.parquet"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"\0" + content,
        lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
    ],
    ids=["a half", "a byte short", "nothing", "a byte more", "a bit"],
)
def test_a_truncated_or_altered_archive_is_one_line(archive, name, spoil):
    file = archive / name
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(UserError, match="no whole archive"):
        load_runs(archive)


CHANGES = {
    "an item is missing": ("answers", lambda table: table.slice(1)),
    "the answers of others": ("answers", lambda table: table.slice(0, 0)),
    "half a seed": ("runs", lambda table: changed(table, seed=1.5)),
    "an unknown mode": ("runs", lambda table: changed(table, mode="loud")),
    "a digest that is none": ("runs", lambda table: changed(table, tests_sha256=5)),
    "no model": ("runs", lambda table: table.drop_columns("model")),
    "fewer tokens than none": ("runs", lambda table: changed(table, completion_length=-1.0)),
    "no digest of the answers": ("runs", lambda table: table.replace_schema_metadata(None)),
}


def changed(table, **values):
    """A table with the same value in each row of a column."""
    for name, value in values.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array([value] * len(table)))
    return table


@pytest.mark.parametrize(("name", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_an_archive_that_was_changed_by_hand_is_one_line(archive, name, change):
    path = archive / f"{name}.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(UserError, match="no whole archive"):
        load_runs(archive)


def test_nothing_else_is_written_over_by_an_archive(runs, tmp_path_factory):
    with pytest.raises(UserError, match="holds something else"):
        write_report(runs, keep=runs)
    kept = tmp_path_factory.mktemp("kept")
    write_report(runs, keep=kept)
    shutil.rmtree(runs / "sft-0")
    with pytest.raises(UserError, match="--keep: 1 of the runs in '.*' are not among these"):
        write_report(runs, keep=kept)
    assert len(archived_runs(kept)) == 6


def test_items_called_na_are_archived_by_their_names(runs, tmp_path):
    run = load_runs(runs)["nano", "shapes", ("nano-s",)]["sft"][0]
    answers = pd.read_parquet(run.folder / "predictions.parquet").assign(group="NA")
    write_archive([replace(run, answers=answers)], tmp_path / "kept")
    assert set(read_archive(tmp_path / "kept")[0].answers["group"]) == {"NA"}


def test_the_runs_of_the_kit_can_be_read():
    counts = {place.name: len(archived_runs(place)) for place in LOGS.iterdir() if is_archive(place)}
    assert counts == {"study": 266, "sets": 592, "swapped": 51}


def test_a_study_of_three_seeds_stands_beside_the_archived_one_of_ten(tmp_path):
    runs = [run for methods in load_runs(KEPT).values() for of in methods.values() for run in of]
    write_archive([run for run in runs if run.seed < 3 and not run.control and run.method != "adaptive"], tmp_path)
    text, _ = write_report(tmp_path)
    assert "### Beside the archived study of 10 seeds" in text and "All 10 seeds: `make study SEEDS=10`" in text
    assert re.search(r"\| CLS-RL \(thinking\) \| 3 on 3 .* \| 10 on 3 .* \| 93.5 / 93.1 \|", text)
    assert "Verdicts that agree: 7 of 7." in text
