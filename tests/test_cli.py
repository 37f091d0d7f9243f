"""The command line: what a user gets wrong is one line and exit status 2, before any model is loaded."""

import errno
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import bad_data
import pytest
import torch

from rftkit.cli import main
from rftkit.common.errors import UserError, as_user_error
from rftkit.common.validation import check_lists
from rftkit.models import BUNDLED
from rftkit.settings import Settings, load_settings

COMMANDS = (
    "",
    "doctor",
    "run",
    "estimate",
    "export",
    "evaluate",
    "study",
    "report",
    "select",
    "nano",
    "nano pretrain",
    "nano agent",
    "nano card",
    "nano reasoner",
)


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
        ("evaluate --model nano-s --data shapse", "unknown dataset 'shapse': choose one of digits, emoji, flags"),
        (
            "evaluate --model nano-s --data .",
            "'.' is a folder without a split_zhou_*.json and without folders of images",
        ),
        ("evaluate --model nano-s --data shapes --mode think", "unknown mode 'think': choose one of thinking"),
        ("evaluate --model nano-s --data shapes --scoring loose", "unknown scoring rule 'loose': choose one of strict"),
        ("evaluate --model nano-s --data shapes --split old", "unknown half 'old': choose one of base, new, all"),
        ("evaluate --model nano-s --data shapes --test-items 0", "--test-items must be at least 1, not 0"),
        ("evaluate --model nano-s --data shapes --batch 0", "--batch must be at least 1, not 0"),
        ("evaluate --model nano-s --data shapes --max-tokens -5", "--max-tokens must be at least 1, not -5"),
        ("evaluate --model nano-s --data shapes --max-pixels 0", "--max-pixels must be at least 1, not 0"),
        ("evaluate --model nano-s --data shapes --device tpu", "unknown device 'tpu': choose one of cpu, cuda"),
        ("evaluate --model nano-s --data shapes --adapter .", "no adapter in '.': the folder has no adapter_config"),
        ("evaluate --model nano-x --data shapes --test-items 1", "no model 'nano-x': name a bundled one"),
        ("evaluate --model no/such --data shapes --test-items 1", "model 'no/such' is not on this machine and HF_HUB"),
        ("run --method rl", "unknown method 'rl': choose one of zero_shot"),
        ("run --profile nona", "no profile 'nona': choose one of gpu-2b"),
        ("run --dataset shapse", "unknown dataset 'shapse': choose one of digits, emoji, flags"),
        ("run --task maths", "unknown task 'maths': choose one of classification, math, puzzle, spatial"),
        ("run --task math --dataset shapes", "dataset 'shapes' belongs to the task 'classification', not 'math'"),
        ("evaluate --model nano-s --data math --split level", "unknown part 'level' of math: choose one of level 1"),
        ("run --protocol one_shot", "unknown protocol 'one_shot'"),
        ("run --dataset ''", "empty text behind '--dataset': name something, or leave it out"),
        ("evaluate --model nano-s --data ' '", "empty text behind '--data'"),
        ("evaluate --model '' --data shapes", "empty text behind '--model'"),
        ("data check ''", "empty text behind 'check'"),
        ("run --profile smoke --out ''", "empty text behind '--out'"),
        ("run --profile smoke --out=", "empty text behind '--out'"),
        ("evaluate --model nano-s --data shapes --min-pixels 99999999999", "--min-pixels must be at most 40000000"),
        ("run --model nano-x --profile smoke", "no model 'nano-x'"),
        ("run --device tpu", "unknown device 'tpu': choose one of cpu, cuda"),
        ("run --steps 0", "setting 'steps' must be at least 1, not 0"),
        ("run --steps many", "setting 'steps' needs a whole number, not 'many'"),
        ("estimate --micro-batch 5", "micro_batch 5 must divide the 64 rollouts of a step"),
        ("estimate --lora-rank 0 --quantize", "set lora_rank above 0 or quantize to false"),
        ("run --seed -1", "setting 'seed' must be at least 0, not -1"),
        ("run --learning-rate nan", "setting 'learning_rate' needs a number, not 'nan'"),
        ("estimate --profile nona", "no profile 'nona'"),
        ("estimate --model nano-x", "no model 'nano-x'"),
        ("run --epochs 0", "setting 'epochs' must be at least 1, not 0"),
        ("export missing out", "'missing' is no run folder"),
        ("evaluate --model m --data shapes --min-pixels 9 --max-pixels 8", "--min-pixels must be at most 8, not 9"),
        ("evaluate --model nano-s --data shapes --min-pixels 0", "--min-pixels must be at least 1, not 0"),
        ("study --profile nona", "no profile 'nona'"),
        ("study --only 99", "no notebook 99 in the study"),
        ("study --models nano-s,, --dry-run", "--models: a name between commas is missing"),
        ("study --models ../nano-x --dry-run", "no model '../nano-x'"),
        ("study --jobs 0", "--jobs must be at least 1, not 0"),
        ("study --seeds 0", "--seeds must be at least 1, not 0"),
        ("select --profile nona", "no profile 'nona'"),
        ("select --dataset shapse", "unknown dataset 'shapse'"),
        ("report --runs missing", "no folder 'missing': give the --out of a study"),
        ("report --runs .", "no complete runs under '.': start rftkit study or rftkit run first"),
        ("bench --preset nano-x", "unknown preset 'nano-x': choose one of nano-s"),
        ("bench --device tpu", "unknown device 'tpu': choose one of cpu, cuda"),
        ("bench --group 1", "setting 'group' must be at least 2"),
        ("bench --group 99999999999", "setting 'group' must be at most 1024"),
        ("bench --pairs 0", "setting 'pairs' must be at least 1, not 0"),
        ("bench --mode dreaming", "unknown mode 'dreaming': choose one of no_thinking"),
        ("nano pretrain --sets cubes --out x", "unknown dataset 'cubes': --sets names some of digits"),
        ("nano pretrain --sets , --out x", "unknown dataset ''"),
        ("nano pretrain --sets . --out x", "unknown dataset '.'"),
        ("nano pretrain --seed -1 --out x", "--seed must be at least 0, not -1"),
        ("nano pretrain --seed 99999999999999999999 --out x", "--seed must be at most 4294967295"),
        ("nano pretrain --vague nan --out x", "--vague is a share between 0 and 1, not nan"),
        ("nano pretrain --drill-steps 99999999 --out x", "--drill-steps must be at most 1000000"),
        ("nano card --model nano-x", "no model 'nano-x'"),
        ("diagnose .", "no model '.': name a bundled one"),
        ("rescore .", "cannot read or write '.': Is a directory"),
        ("nano pretrain --size xl --out xl", "unknown size 'xl': choose one of s, m"),
        ("nano pretrain --vision-steps 0 --out x", "--vision-steps must be at least 1, not 0"),
        ("nano pretrain --language-steps -1 --out x", "--language-steps must be at least 1, not -1"),
        ("nano pretrain --vague 2 --out x", "--vague is a share between 0 and 1, not 2"),
    ],
)
def test_mistakes_are_one_line(capsys, monkeypatch, tmp_path, command, said):
    monkeypatch.chdir(tmp_path)
    assert said in one_line(capsys, *shlex.split(command))
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["run --profile smoke", "evaluate --model nano-s --data shapes", "bench"])
def test_a_gpu_that_is_not_there_is_one_line(capsys, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    assert "GPU" in one_line(capsys, *command.split(), "--device", "cuda")


def test_an_out_that_cannot_be_written_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    line = one_line(capsys, "run", "--profile", "smoke", "--out", str(tmp_path / "file"))
    assert "cannot read or write" in line and "file" in line


@pytest.fixture
def torn(tmp_path):
    """A copy of the bundled model whose weights file was cut short."""
    folder = shutil.copytree(BUNDLED / "nano-s", tmp_path / "torn")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return folder


def test_a_torn_model_file_is_one_line(capsys, torn):
    assert "cannot read model" in one_line(capsys, "evaluate", "--model", str(torn), "--data", "shapes")


def test_a_card_needs_a_recipe(capsys, torn):
    (torn / "recipe.json").unlink()
    assert "has no recipe.json" in one_line(capsys, "nano", "card", "--model", str(torn))


def test_an_adapter_of_another_model_is_one_line_before_the_model_is_loaded(capsys, tmp_path, monkeypatch):
    from peft import get_peft_model

    from rftkit.models import load_processor, lora_config
    from rftkit.nano.build import build_model

    get_peft_model(build_model("m", load_processor("nano-s")), lora_config(4)).save_pretrained(tmp_path / "adapter")
    command = f"evaluate --model nano-s --data shapes --test-items 1 --adapter {tmp_path / 'adapter'}"
    monkeypatch.setattr("rftkit.models.AutoModelForImageTextToText.from_pretrained", lambda *_, **__: pytest.fail())
    assert "takes 320 numbers and the adapter 640" in one_line(capsys, *command.split())
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert f"cannot put adapter '{tmp_path / 'adapter'}' on this model: " in one_line(capsys, *command.split())
    for config in ("{}", '{"peft_type": "MORE"}'):
        (tmp_path / "adapter" / "adapter_config.json").write_text(config)
        assert "its adapter_config.json lacks or has an unknown" in one_line(capsys, *command.split())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "x/results.json"),
            "write 'x/results.json': No space left on device",
        ),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "the disk is full"),
        (RuntimeError("basic_ios::clear: iostream error"), "the disk is full"),
        (OSError(errno.ENOLCK, "No locks available"), "the file system cannot lock files: write to another one"),
        (OSError(errno.ENOSYS, "Not implemented", "x"), "the file system of 'x' cannot lock files"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory: lower micro_batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory: lower micro_batch"),
        (MemoryError(), "out of memory: lower micro_batch"),
    ],
)
def test_a_full_disk_or_memory_is_one_line(capsys, monkeypatch, error, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("rftkit.run.execute", fail)
    assert said in one_line(capsys, "run", "--profile", "smoke")


def test_a_file_system_without_locks_is_one_line(capsys, monkeypatch, tmp_path):
    fcntl = pytest.importorskip("fcntl")

    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")  # as NFS without its lock daemon

    monkeypatch.setattr(fcntl, "flock", refused)
    line = one_line(capsys, "run", "--profile", "smoke", "--out", str(tmp_path))
    assert "the file system cannot lock files: write to another one (--out" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full is Linux's")
@pytest.mark.parametrize("size", [3, 10**6])
def test_torch_saves_to_a_full_disk_in_words_that_are_known(size):
    with pytest.raises(RuntimeError) as error:
        torch.save({"weights": torch.zeros(size)}, "/dev/full")
    assert "the disk is full" in str(as_user_error(error.value))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seeds": 3}, "'seeds' must be a list with something in it, not 3: give papermill -y '{seeds: [3]}'"),
        ({"seeds": [0], "datasets": "math"}, "papermill -y '{datasets: [math]}'"),
        ({"seeds": "[0, 1]"}, "papermill -y '{seeds: [0, 1]}'"),
        ({"seeds": []}, "papermill -y '{seeds: [...]}'"),
        ({"seeds": None}, "not None"),
    ],
)
def test_a_parameter_that_is_no_list_is_one_line_that_says_how_papermill_takes_one(values, said):
    with pytest.raises(UserError) as error:
        check_lists(**values)
    assert said in str(error.value)
    check_lists(seeds=[0], methods=("sft",))


def test_other_errors_keep_their_traceback(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("rftkit.run.execute", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main(["run", "--profile", "smoke"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as exit:
        main([*command.split(), "--help"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: rftkit {command}".strip())


@pytest.mark.parametrize(
    "command", ["", "fly", "doctor --nosuch", "evaluate", "nano", "run fast", "study --seeds many"]
)
def test_what_the_parser_refuses_ends_with_status_two(capsys, command):
    with pytest.raises(SystemExit) as exit:
        main(command.split())
    assert exit.value.code == 2
    assert "rftkit" in capsys.readouterr().err


def test_doctor_writes_json(capsys):
    assert main(["doctor", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert {"name", "ok", "seen", "fix"} == set(lines[0])
    assert {"python", "torch", "memory", "disk", "cpu"} <= {line["name"] for line in lines}
    assert all(line["ok"] or line["fix"] for line in lines)


def test_doctor_and_estimate_say_the_same_of_a_gpu_profile(capsys):
    assert main(["doctor", "--json"]) == 0
    seen = {line["name"]: line["seen"] for line in json.loads(capsys.readouterr().out)}
    command = ["estimate", "--profile", "gpu-2b", "--method", "adaptive", "--device", "cuda", "--no-time", "--json"]
    assert main(command) == 0
    total = json.loads(capsys.readouterr().out)["memory"]["total"]
    assert seen["profile gpu-2b"] == f"needs {round(total / 2**30, 2):g} GiB GPU memory, 12 GiB disk"


@pytest.mark.parametrize("missing", ["psutil", "torch", "packaging"])
def test_doctor_survives_a_missing_package(capsys, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    for name in [name for name in sys.modules if name.startswith(f"{missing}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["doctor"]) == 0
    written = capsys.readouterr().out
    assert f"pip install {missing}" in written and "[ok] python" in written and "[ok] notebooks" in written


def test_doctor_writes_a_line_a_finding(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.startswith(("[ok] ", "[no] ")) for line in lines)


def test_help_does_not_wait_for_torch():
    code = "import sys, rftkit.cli as cli; cli._parser('run').format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_doctor_does_not_need_what_settings_need():
    code = "import sys, rftkit.cli as cli; cli._parser('doctor'); sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("command", ["run", "estimate"])
def test_every_setting_has_a_flag(monkeypatch, command):
    given = {}
    monkeypatch.setattr(f"rftkit.cli.{command}", lambda **options: given.update(options))
    assert main([command]) == 0
    usual = {field.name: None for field in fields(Settings)} | {"profile": "nano", "method": "no_thinking_rl"}
    assert {name: given[name] for name in usual} == usual
    assert given.keys() - usual.keys() == ({"out"} if command == "run" else {"json", "time"})
    for name, value in asdict(Settings()).items():
        flag = f"--{name.replace('_', '-')}"
        flags = [flag, flag.replace("--", "--no-", 1)] if isinstance(value, bool) else [flag]
        for flag in flags:
            assert main([command, flag] if isinstance(value, bool) else [command, flag, "3"]) == 0
            assert given[name] == (flag == flags[0] if isinstance(value, bool) else "3")
    assert main([command, "--no-memory-check"]) == 0 and given["check_memory"] is False


def test_flags_become_settings(monkeypatch, tmp_path):
    found = []
    monkeypatch.setattr("rftkit.run.execute", lambda settings, out: found.append(settings) or tmp_path)
    monkeypatch.setattr("rftkit.common.distributed.is_main", lambda: False)
    text = "run --profile smoke --micro-batch 4 --beta 4e-2 --lora-rank 8 --no-share-prefix --seed 3 --max-pixels 4096"
    assert main(text.split()) == 0
    smoke = load_settings("smoke", "no_thinking_rl", seed=3)
    changes = {"micro_batch": 4, "beta": 0.04, "lora_rank": 8, "share_prefix": False, "max_pixels": 4096}
    assert found == [replace(smoke, **changes)]


def test_the_module_runs_as_a_command():
    finished = subprocess.run([sys.executable, "-m", "rftkit.cli", "--help"], capture_output=True, text=True)
    assert finished.returncode == 0 and finished.stdout.startswith("usage: rftkit")
