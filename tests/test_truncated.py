"""Files that were truncated or changed by hand, and places where nothing can be written: one line and exit status 2."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli import one_line
from test_report import make_run
from transformers import PreTrainedModel

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.models import BUNDLED
from rftkit.nano import corpus, pretrain
from rftkit.run import execute
from rftkit.runs.folder import read_predictions, read_results
from rftkit.runs.log import read_log
from rftkit.settings import load_settings
from rftkit.tasks.worlds import worlds

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
        *(((key,), None) for key in ("task", "dataset", "method", "model", "profile", "mode", "seed", "eval")),
        *(((key,), None) for key in ("measures", "training", "completion_length", "seconds", "versions")),
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
def test_results_that_are_truncated(run, capsys, content):
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
def test_predictions_that_are_truncated(trained, tmp_path, capsys, share):
    truncated = shutil.copytree(trained, tmp_path / "runs" / "run")
    path = truncated / "predictions.parquet"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for command in (f"report --runs {tmp_path / 'runs'}", f"export {truncated} {tmp_path / 'out'} --check 1"):
        assert "predictions.parquet' is not what a run writes" in one_line(capsys, *command.split())
    refused = "it is not UTF-8 text" if share else "holds no predictions"
    assert refused in one_line(capsys, "rescore", str(path))
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("content", ["", "step\n1\nx\n", "loss\n0.5\n", "\0"])
@pytest.mark.parametrize("table", ["metrics.csv", "completions.parquet"])
def test_a_truncated_log_of_a_run_that_goes_on_is_a_user_error(trained, tmp_path, table, content):
    truncated = shutil.copytree(trained, tmp_path / trained.parent.name / trained.name)
    (truncated / "results.json").unlink()
    (truncated / table).write_text(content)
    with pytest.raises(UserError, match=f"{table}' is not what a run writes: remove the folder"):
        read_log(truncated / table)
    if table == "metrics.csv":
        with pytest.raises(UserError, match="is not what a run writes"):
            execute(load_settings("smoke", "sft", steps=1, test_items=2, pass_items=0), tmp_path)


def test_a_run_is_whole_again_once_its_results_are_removed(trained, tmp_path):
    truncated = shutil.copytree(trained, tmp_path / trained.parent.name / trained.name)
    (truncated / "predictions.parquet").write_bytes(b"")
    (truncated / "results.json").unlink()
    execute(load_settings("smoke", "sft", steps=1, test_items=2, pass_items=0), tmp_path)
    assert read_results(truncated).parts == read_results(trained).parts
    pd.testing.assert_frame_equal(read_predictions(truncated), read_predictions(trained))


# A file of a model's folder, what becomes of it (None: it is missing), and what is said.
MODELS = [
    ("config.json", None, "no model '"),
    ("config.json", b"", "its config.json is truncated"),
    ("config.json", b"[]", "its config.json is truncated"),
    ("config.json", b"{}", "Should have a `model_type` key"),
    ("config.json", b'{"model_type": "qwen2_vl", "text_config": 3}', "Validation error for field 'text_config': "),
    ("model.safetensors", None, "no file named model.safetensors"),
    ("model.safetensors", b"", "its weights are truncated"),
    ("model.safetensors", 0.5, "its weights are truncated"),
    ("tokenizer.json", None, "it has no tokenizer.json"),
    ("tokenizer.json", 0.5, "its tokenizer.json is truncated"),
    ("tokenizer_config.json", b"[]", "its tokenizer_config.json is truncated"),
    ("processor_config.json", None, "it has no processor_config.json"),
    ("processor_config.json", b"{", "its processor_config.json is truncated"),
    ("generation_config.json", b"{}", "has no end token"),
    ("generation_config.json", b"[]", "its generation_config.json is truncated"),
    ("chat_template.jinja", None, "has no chat template"),
    ("chat_template.jinja", 0.5, "the chat template of model"),
    ("chat_template.jinja", b"hello", "does not write <|image_pad|> where a picture stands"),
]


def broken_model(folder, name, content):
    """A copy of the bundled model with a file that is missing, cut to a share, or replaced."""
    shutil.copytree(BUNDLED / "nano-s", folder)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(whole[: int(content * len(whole))] if isinstance(content, float) else content)
    return folder


@pytest.mark.parametrize(("name", "content", "said"), MODELS)
def test_broken_models(tmp_path, capsys, name, content, said):
    model = broken_model(tmp_path / "model", name, content)
    commands = (f"diagnose {model} --data shapes --test-items 1",
                f"evaluate --model {model} --data shapes --test-items 1",
                f"run --profile smoke --model {model} --out {tmp_path / 'runs'}")  # fmt: skip
    for command in commands:
        line = one_line(capsys, *command.split())
        assert said in line and str(model) in line


def test_weights_of_another_size(tmp_path, capsys):
    config = json.loads((BUNDLED / "nano-s" / "config.json").read_text())
    config["text_config"]["intermediate_size"] //= 2
    model = broken_model(tmp_path / "model", "config.json", json.dumps(config).encode())
    line = one_line(capsys, "evaluate", "--model", str(model), "--data", "shapes", "--test-items", "1")
    assert "its weights are truncated, or do not fit its config.json" in line


def test_weights_that_lack_a_part_are_not_made_up(tmp_path, capsys):
    weights = load_file(BUNDLED / "nano-s" / "model.safetensors")
    del weights["model.layers.3.mlp.up_proj.weight"]
    model = broken_model(tmp_path / "model", "model.safetensors", None)
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    line = one_line(capsys, "evaluate", "--model", str(model), "--data", "shapes", "--test-items", "1")
    assert "its weights lack 1 parts, such as model.language_model.layers.3.mlp.up_proj.weight" in line


def test_a_broken_base_is_not_exported(trained, tmp_path, capsys):
    run, model = shutil.copytree(trained, tmp_path / "run"), broken_model(tmp_path / "model", "tokenizer.json", None)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("model: nano-s", f"model: {model}"))
    assert "it has no tokenizer.json" in one_line(capsys, "export", str(run), str(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "run"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"parameters": 1, "vague": 0.5, "seed": 0, "sets": 3}'])
def test_a_card_of_a_truncated_recipe(tmp_path, capsys, content):
    model = broken_model(tmp_path / "model", "recipe.json", content.encode())
    line = one_line(capsys, "nano", "card", "--model", str(model))
    assert "recipe.json' is not what rftkit nano pretrain writes" in line


def test_a_truncated_checkpoint_of_pretraining(tmp_path, capsys):
    (tmp_path / "checkpoint.pt").write_bytes(b"truncated")
    line = one_line(capsys, "nano", "pretrain", "--out", str(tmp_path))
    assert "checkpoint.pt' is truncated: delete it to start from the beginning" in line


def test_pretraining_goes_on_where_its_last_save_was_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "CLASSES_IN_MEMORY", dict.fromkeys(worlds(), 2))
    steps = dict.fromkeys(pretrain.STEPS, 1)
    recipe = corpus.Recipe(**steps, sets=("shapes",), vision_batch=4, language_batch=4)
    whole = load_file(pretrain.pretrain(recipe, tmp_path / "whole") / "model.safetensors")
    save = PreTrainedModel.save_pretrained

    def interrupted(self, folder):
        save(self, folder)
        (folder / "model.safetensors").write_bytes(b"truncated")
        raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(recipe, tmp_path / "truncated")
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save)
    resumed = load_file(pretrain.pretrain(recipe, tmp_path / "truncated") / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    with pytest.raises(UserError, match="already holds a model"):
        pretrain.pretrain(recipe, tmp_path / "truncated")


def test_a_place_that_cannot_be_written(run, trained, capsys):
    commands = (f"report --runs {run.parent} --out {NOTHING}", f"run --profile smoke --out {NOTHING}",
                f"select --profile smoke --out {NOTHING}", f"nano pretrain --out {NOTHING}",
                f"export {trained} {NOTHING}/out")  # fmt: skip
    for command in commands:
        assert f"cannot read or write '{NOTHING}" in one_line(capsys, *command.split())
    assert main(["study", "--profile", "smoke", "--only", "03", "--out", NOTHING]) == 2
    assert f"rftkit: cannot read or write '{NOTHING}" in capsys.readouterr().err


def test_what_killed_exports_left_is_removed_and_nothing_else(trained, tmp_path):
    for name in (".out.999999999.partial", f".out.{os.getppid()}.partial", ".out.mine.partial", ".other.1.partial"):
        (tmp_path / name).mkdir()
    assert main(["export", str(trained), str(tmp_path / "out"), "--check", "0"]) == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".out.mine.partial", f".out.{os.getppid()}.partial", ".other.1.partial", "out"}
