"""Export: the merged model is the adapter on the unquantised base, loads without this kit, and says what it is."""

import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rftkit.cli import main
from rftkit.evaluate import answer_rows
from rftkit.models import BUNDLED, load
from rftkit.run import execute
from rftkit.settings import load_settings


def trained(folder, **changes):
    """A short run whose adapter is not nothing."""
    return execute(load_settings("smoke", "sft", steps=6, learning_rate=3e-3, test_items=24, **changes), folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exported(run):
    out = run.parent.parent / "exported"
    assert main(["export", str(run), str(out)]) == 0
    return out


def completions(model, processor, examples):
    return [row["completion"] for row in answer_rows(model, processor, examples, "no_thinking", max_tokens=12)]


def test_the_same_greedy_answers_as_the_adapter_on_the_base(run, exported, shapes, capsys):
    adapter = completions(*load("nano-s", adapter=str(run / "adapter"), device="cpu"), shapes)
    assert completions(*load(str(exported), device="cpu"), shapes) == adapter
    assert completions(*load("nano-s", device="cpu"), shapes) != adapter  # the adapter matters
    assert "in fp32: 48 of 48" in (exported / "README.md").read_text()


def test_every_merged_weight_is_rounded_once(run, exported):
    before, after = (load_file(folder / "model.safetensors") for folder in (BUNDLED / "nano-s", exported))
    lora = load_file(run / "adapter" / "adapter_model.safetensors")
    layer = "layers.0.mlp.up_proj"
    # On disk in the names of the first Qwen2-VL checkpoints, as on the hub.
    a, b = (lora[f"base_model.model.model.language_model.{layer}.lora_{part}.weight"] for part in "AB")
    merged = (before[f"model.{layer}.weight"].float() + 2.0 * b @ a).bfloat16()  # alpha is twice the rank
    assert torch.equal(after[f"model.{layer}.weight"], merged)
    assert {weight.dtype for weight in after.values()} == {torch.bfloat16} and set(after) == set(before)


def test_it_loads_without_the_kit(exported):
    code = (
        "import sys, json; from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer\n"
        "folder = sys.argv[1]; model = AutoModelForImageTextToText.from_pretrained(folder)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder); AutoImageProcessor.from_pretrained(folder)\n"
        "assert tokenizer.apply_chat_template([{'role': 'user', 'content': 'hi'}], tokenize=False)\n"
        "assert 'rftkit' not in sys.modules and model.generation_config.eos_token_id == tokenizer.eos_token_id"
    )
    subprocess.run([sys.executable, "-c", code, str(exported)], check=True, cwd=exported)
    words = "".join(path.read_text() for path in exported.glob("*.json"))
    assert "ImageTextProcessor" not in words and "rftkit" not in words


def test_the_card_says_what_it_is_and_no_path(run, exported):
    card = (exported / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["base_model"] == "nano-s" and head["pipeline_tag"] == "image-text-to-text"
    for word in ("seed: 0", "data_sha256", "profile: smoke", "| base | 24 |", "| new | 24 |", "as the run wrote down"):
        assert word in card
    assert str(run.parent.parent) not in card


def test_agreement_with_a_quantised_run_is_reported(tmp_path, capsys):
    run = trained(tmp_path, quantize=True)
    assert main(["export", str(run), str(tmp_path / "out"), "--check", "24"]) == 0
    said = capsys.readouterr().out
    assert "in fp32: 48 of 48" in said and "as the NF4 run wrote down: " in said


def test_what_cannot_be_exported_is_one_line(run, tmp_path, capsys):
    def line(*arguments):
        assert main(["export", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "exists" in line(run, tmp_path)
    assert "no run folder" in line(tmp_path, tmp_path / "out")
    assert "--check must be at least 0" in line(run, tmp_path / "out", "--check", -1)
    zero = execute(load_settings("smoke", "zero_shot", test_items=2, pass_items=0), tmp_path)
    assert "trained nothing" in line(zero, tmp_path / "out")
    truncated = shutil.copytree(run, tmp_path / "truncated")
    (truncated / "results.json").unlink()
    assert "not complete" in line(truncated, tmp_path / "out")
    shutil.copy(run / "results.json", truncated)
    shutil.rmtree(truncated / "adapter")
    assert "has no adapter" in line(truncated, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


TORN = [
    ("config.yaml", "no run folder of this version"),
    ("results.json", "results.json' is not what a run writes"),
    ("adapter/adapter_model.safetensors", "cannot put adapter"),
    ("adapter/adapter_config.json", "cannot put adapter"),
]


@pytest.mark.parametrize(("name", "said"), TORN)
@pytest.mark.parametrize("share", [0, 2, 0.5])
def test_truncated_and_missing_files_are_one_line_and_leave_nothing(run, tmp_path, capsys, name, said, share):
    truncated = shutil.copytree(run, tmp_path / "truncated")
    content = (truncated / name).read_bytes()
    if share == 2:
        (truncated / name).unlink()
    else:
        (truncated / name).write_bytes(content[: int(share * len(content))])
    assert main(["export", str(truncated), str(tmp_path / "out")]) == 2
    written = capsys.readouterr().err
    missing = {"results.json": "is not complete", "adapter/adapter_config.json": "has no adapter",
               "adapter/adapter_model.safetensors": "the folder has no adapter_model.safetensors"}  # fmt: skip
    assert (missing.get(name, said) if share == 2 else said) in written and written.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["truncated"]


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("config.yaml", "method: sft", "method: nope", "unknown method 'nope'"),
        ("config.yaml", "test_items: 24", "test_items: x", "setting 'test_items' needs a whole number"),
        ("config.yaml", "protocol: base_to_new", "protocol: nope", "unknown protocol 'nope'"),
        ("results.json", "{", "[]{", "is not what a run writes"),
    ],
)
def test_files_that_were_changed_are_one_line(run, tmp_path, capsys, name, old, new, said):
    changed = shutil.copytree(run, tmp_path / "changed")
    content = (changed / name).read_text()
    assert old in content
    (changed / name).write_text(content.replace(old, new, 1))
    assert main(["export", str(changed), str(tmp_path / "out")]) == 2
    assert said in (written := capsys.readouterr().err) and written.count("\n") == 1


def test_nothing_of_the_users_is_overwritten(run, tmp_path, capsys):
    mine = tmp_path / ".out.partial"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert main(["export", str(run), str(tmp_path / "link"), "--check", "0"]) == 2
    assert main(["export", str(run), str(run / "adapter" / "new"), "--check", "0"]) == 2
    assert main(["export", str(run), str(tmp_path / "out"), "--check", "0"]) == 0
    assert (mine / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.partial", "link", "out"]
    assert "lies in the run folder" in capsys.readouterr().err
