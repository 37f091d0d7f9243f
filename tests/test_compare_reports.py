"""`rftkit report` over several people's runs, and against an earlier report."""

import json

import pytest
from test_report import make_run

from rftkit.cli import main
from rftkit.report.compare_reports import worse
from rftkit.runs.collect import load_runs


@pytest.fixture
def runs(tmp_path):
    for seed, person in enumerate(("ada", "bob", "eve")):
        make_run(tmp_path / "class" / person / "run", "sft", seed, "no_thinking", [1, 1, 1, 0], [1, 0, 0, 0])
    return tmp_path / "class"


def test_seeds_of_several_people_are_pooled(runs, capsys):
    people = sorted(runs.iterdir())
    (methods,) = load_runs(*people).values()
    assert [run.seed for run in methods["sft"]] == [0, 1, 2]
    assert main(["report", "--runs", *map(str, people)]) == 0
    assert "| SFT, loss on the answer | 3 |" in capsys.readouterr().out
    assert (runs / "report" / "report.md").is_file() and not (people[0] / "report.md").exists()


def test_a_report_goes_where_it_is_told(runs, tmp_path):
    assert main(["report", "--runs", str(runs), "--out", str(tmp_path / "there")]) == 0
    assert {path.name for path in (tmp_path / "there").iterdir()} >= {"report.md", "report.html", "report.json"}


def test_runs_tested_on_different_items_are_not_pooled(runs, capsys):
    make_run(runs / "dan" / "run", "sft", 3, "no_thinking", [1, 1], [1, 0])
    assert main(["report", "--runs", str(runs)]) == 2
    assert "tested on different items" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "status", "failures"), [(0.0, 0, 0), (0.01, 0, 0), (0.05, 1, 1), (-0.5, 0, 0)])
def test_what_is_worse_than_before_is_said_and_ends_with_one(runs, tmp_path, capsys, change, status, failures):
    assert main(["report", "--runs", str(runs)]) == 0
    numbers = json.loads((runs / "report.json").read_text())
    numbers["nano/shapes/nano-s/sft/strict/base"] += change
    (tmp_path / "baseline.json").write_text(json.dumps(numbers))
    command = ["report", "--runs", str(runs), "--against", str(tmp_path / "baseline.json")]
    capsys.readouterr()
    assert main(command) == status
    printed = capsys.readouterr().out
    assert f"{len(numbers) - failures} of {len(numbers)} numbers" in printed
    assert printed.count("worse: nano/shapes/nano-s/sft/strict/base: ") == failures


def test_a_number_without_runs_is_a_failure(runs, tmp_path, capsys):
    (tmp_path / "baseline.json").write_text(json.dumps({"nano/shapes/nano-s/cls_rl/strict/base": 0.9}))
    assert main(["report", "--runs", str(runs), "--against", str(tmp_path / "baseline.json")]) == 1
    assert "no runs of it any more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "no baseline"),
        ("{", "is no report.json"),
        ("[1]", "is no report.json"),
        ("{}", "is no report.json"),
        ('{"a": "b"}', "is no report.json"),
        *((f'{{"a": {value}}}', "is no report.json") for value in ("NaN", "-Infinity", "true", "93.5", 10**400)),
        (r'{"a\u0000b": 0.5}', "is no report.json"),
        (r'{"\ud800": 0.5}', "is no report.json"),
        ('{"a":' * 200_000, "is no report.json"),
    ],
)
def test_a_wrong_baseline_is_one_line(runs, tmp_path, capsys, content, line):
    if content is not None:
        (tmp_path / "baseline.json").write_text(content)
    assert main(["report", "--runs", str(runs), "--against", str(tmp_path / "baseline.json")]) == 2
    assert line in capsys.readouterr().err


def test_a_tolerance_may_be_used_up(tmp_path):
    (tmp_path / "report.json").write_text('{"a": 0.3}')
    assert worse(tmp_path / "report.json", {"a": 0.4}, 0.1) == []  # 0.4 - 0.1 is a little above 0.3
    assert worse(tmp_path / "report.json", {"a": 0.4}, 0.09) == ["worse: a: 40.0 % before, 30.0 % now"]


def test_a_wrong_tolerance_is_one_line(runs, capsys):
    assert main(["report", "--runs", str(runs), "--tolerance", "2"]) == 2
    assert "--tolerance is a share" in capsys.readouterr().err


def test_the_baseline_may_be_the_last_report(runs, capsys):
    assert main(["report", "--runs", str(runs)]) == 0
    numbers = json.loads((runs / "report.json").read_text())
    (runs / "report.json").write_text(json.dumps({name: min(1, value + 0.1) for name, value in numbers.items()}))
    assert main(["report", "--runs", str(runs), "--against", str(runs / "report.json")]) == 1
