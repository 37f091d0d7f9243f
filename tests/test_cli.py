"""The command line: what a user gets wrong is one line and exit status 2, before any model is loaded."""

import json
import shlex
import subprocess
import sys

import bad_data
import pytest

from rftkit.cli import main

COMMANDS = ("", "doctor", "run", "evaluate", "study", "report", "select", "nano", "nano pretrain", "nano card")


def one_line(capsys, *arguments):
    """The one line on stderr of a command that must end with status 2."""
    assert main(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("rftkit: ") and written.err.count("\n") == 1 and written.err.endswith("\n")
    return written.err


@pytest.mark.parametrize(("content", "place", "said"), bad_data.contents())
def test_evaluate_refuses_bad_data(capsys, pictures, content, place, said):
    path = pictures / "data.jsonl"
    path.write_bytes(content)
    line = one_line(capsys, "evaluate", "--model", "nano-s", "--data", str(path))
    assert place in line and said in line


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("evaluate --model nano-s --data shapse", "no data 'shapse': name a bundled set (digits, emoji, shapes) or a"),
        ("evaluate --model nano-s --data .", "'.' is a folder: give the JSONL file in it"),
        ("evaluate --model nano-s --data shapes --mode think", "unknown mode 'think': choose one of thinking"),
        ("evaluate --model nano-s --data shapes --scoring loose", "unknown scoring rule 'loose': choose one of strict"),
        ("evaluate --model nano-s --data shapes --split old", "unknown half 'old': choose one of base, new, all"),
        ("evaluate --model nano-s --data shapes --limit 0", "--limit must be at least 1, not 0"),
        ("evaluate --model nano-s --data shapes --batch 0", "--batch must be at least 1, not 0"),
        ("evaluate --model nano-s --data shapes --max-tokens -5", "--max-tokens must be at least 1, not -5"),
        ("evaluate --model nano-x --data shapes --limit 1", "no model 'nano-x': name a bundled one"),
        ("evaluate --model no/such --data shapes --limit 1", "cannot read model 'no/such'"),
        ("run --method rl", "unknown method 'rl': choose one of zero_shot"),
        ("run --profile nona", "no profile 'nona': choose one of gpu-2b"),
        ("run --dataset shapse", "unknown bundled dataset 'shapse': choose one of digits, emoji, shapes"),
        ("run --protocol one_shot", "unknown protocol 'one_shot'"),
        ("run --model nano-x --profile smoke", "no model 'nano-x'"),
        ("run --device tpu", "unknown device 'tpu': choose one of cpu, cuda"),
        ("run --steps 0", "setting 'steps' must be at least 1, not 0"),
        ("run --seed -1", "setting 'seed' must be at least 0, not -1"),
        ("run --learning-rate nan", "setting 'learning_rate' needs a number, not 'nan'"),
        ("study --profile nona", "no profile 'nona'"),
        ("study --only 99", "no notebook 99 in the study"),
        ("study --seeds 0", "--seeds must be at least 1, not 0"),
        ("select --profile nona", "no profile 'nona'"),
        ("select --dataset shapse", "unknown bundled dataset 'shapse'"),
        ("report --runs missing", "no folder 'missing': give the --out of a study"),
        ("report --runs .", "no complete runs under '.': start rftkit study or rftkit run first"),
        ("nano pretrain --size xl --out xl", "unknown size 'xl': choose one of s, m"),
    ],
)
def test_mistakes_are_one_line(capsys, monkeypatch, tmp_path, command, said):
    monkeypatch.chdir(tmp_path)
    assert said in one_line(capsys, *shlex.split(command))
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as exit:
        main([*command.split(), "--help"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: rftkit {command}".strip())


@pytest.mark.parametrize("command", ["", "fly", "doctor --nosuch", "evaluate", "run --steps many", "nano", "run fast"])
def test_what_the_parser_refuses_ends_with_status_two(capsys, command):
    with pytest.raises(SystemExit) as exit:
        main(command.split())
    assert exit.value.code == 2
    assert "rftkit" in capsys.readouterr().err


def test_doctor_writes_json(capsys):
    assert main(["doctor", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert {"name", "ok", "seen", "mend"} == set(lines[0])
    assert {"python", "torch", "memory", "disk", "cpu"} <= {line["name"] for line in lines}
    assert all(line["ok"] or line["mend"] for line in lines)


def test_doctor_writes_a_line_a_finding(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.startswith(("[ok] ", "[no] ")) for line in lines)


def test_help_does_not_wait_for_torch():
    code = "import sys, rftkit.cli as cli; cli._parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_module_runs_as_a_command():
    finished = subprocess.run([sys.executable, "-m", "rftkit", "--help"], capture_output=True, text=True)
    assert finished.returncode == 0 and finished.stdout.startswith("usage: rftkit")
