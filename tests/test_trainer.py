"""The trainers: they learn, resume, keep their numbers, and stop on NaN."""

import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from rftkit.cli import main
from rftkit.common.errors import Diverged, UserError
from rftkit.evaluate import answer_rows
from rftkit.models import BUNDLED, load
from rftkit.report.pages import write_report
from rftkit.run import execute, folder_of, run_methods, training_examples
from rftkit.runs.fingerprint import sha256_model
from rftkit.runs.folder import read_results
from rftkit.runs.log import RunLog
from rftkit.settings import load_settings
from rftkit.sft import VisionOnce, sft_trainer, shuffled_passes
from rftkit.shared_prefix.vision import VisionFeatures, with_features
from rftkit.tasks.registry import DRAWN
from rftkit.trainer import grpo_trainer, last_checkpoint, train

TIMINGS = ["step_seconds", "generate_seconds"]


def smoke(method, **changes):
    return load_settings("smoke", method, **changes)


def make(method, folder, quantize=False, **changes):
    settings = smoke(method, quantize=quantize, **changes)
    model, processor = load("nano-s", quantize=quantize, device="cpu")
    maker = sft_trainer if method.startswith("sft") else grpo_trainer
    return maker(settings, model, processor, training_examples(settings), RunLog(folder, method)), model, processor


@pytest.mark.parametrize("method", ["sft", "cls_rl"])
def test_qlora_trains_on_a_cpu_after_an_evaluation(tmp_path, shapes, method):
    trainer, model, processor = make(method, tmp_path, quantize=True, learning_rate=1e-3)
    answer_rows(
        trainer.model, processor, shapes[:4], "thinking", max_tokens=8
    )  # breaks bitsandbytes' backward unguarded
    adapters = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in adapters.items()}
    assert {p.dtype for p in adapters.values()} == {torch.float32}
    trainer.train()
    rows = pd.read_csv(tmp_path / "metrics.csv")
    assert len(rows) == 3 and rows["grad_norm"].max() > 0
    assert any(not torch.equal(before[name], p) for name, p in adapters.items())


def test_quantisation_spares_the_vision_tower_and_the_head(tmp_path):
    model, _ = load("nano-s", quantize=True, device="cpu")
    four_bit = {name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"}
    assert four_bit and all("language_model" in name for name in four_bit)


@pytest.mark.parametrize(("method", "answer_only"), [("sft", True), ("sft_all", False)])
def test_sft_labels_decode_to_what_is_learnt(tmp_path, method, answer_only):
    trainer, _, processor = make(method, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    kept = batch["labels"][0][batch["labels"][0] != -100]
    text = processor.tokenizer.decode(kept)
    assert processor.image_token not in text
    assert text.endswith("<|im_end|>\n")
    assert ("Please choose one from list" not in text) == answer_only


@pytest.mark.parametrize("method", ["sft", "sft_all"])
def test_sft_is_stock_trls_with_each_picture_seen_once_and_labelled_positions_scored_only(
    tmp_path, method, monkeypatch
):
    scored, forward = [], ChunkedLogProbFunction.forward
    monkeypatch.setattr(
        ChunkedLogProbFunction,
        "forward",
        staticmethod(lambda ctx, hidden, *rest: scored.append(len(hidden)) or forward(ctx, hidden, *rest)),
    )
    monkeypatch.setattr("rftkit.sft.with_features", partial(with_features, kept=VisionFeatures()))
    trainer, *_ = make(method, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    tower, seen = trainer.model.get_base_model().model.visual, []
    tower.patch_embed.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    loss, gradients = [], []
    for compute in (trainer.compute_loss, super(VisionOnce, trainer).compute_loss):
        found = compute(trainer.model, dict(batch))
        loss.append(found)
        gradients.append(torch.autograd.grad(found, [p for p in trainer.model.parameters() if p.requires_grad]))
    assert torch.allclose(*loss, rtol=1e-6)
    assert all(torch.allclose(*pair, atol=1e-7) for pair in zip(*gradients, strict=True))
    labels = batch["labels"][:, 1:]
    assert scored == [(labels != -100).sum(), labels.numel()]
    looked = len({picture.numpy().tobytes() for picture in batch["pixel_values"].split(64)})
    assert seen == [64 * looked, len(batch["pixel_values"])]  # each picture once, and in stock TRL each row's
    trainer.compute_loss(trainer.model, dict(batch))
    assert len(seen) == 2


@pytest.mark.parametrize("method", ["sft", "no_thinking_rl"])
def test_nan_stops_the_run_with_one_line(tmp_path, method):
    trainer, _, _ = make(method, tmp_path)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data.fill_(torch.nan)
    with pytest.raises(Diverged, match="lower the learning rate") as error:
        train(trainer, tmp_path)
    assert "\n" not in str(error.value)


def test_trackers_are_off_unless_named_and_a_missing_one_is_one_line(tmp_path, monkeypatch):
    assert make("sft", tmp_path)[0].args.report_to == []
    monkeypatch.setattr("rftkit.trainer.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install trackio"):
        make("sft", tmp_path, report_to="trackio")


def numbers(folder):
    metrics = pd.read_csv(folder / "metrics.csv")
    return metrics.drop(columns=TIMINGS, errors="ignore"), pd.read_parquet(folder / "predictions.parquet")


def same(first, second):
    return all(a.equals(b) for a, b in zip(numbers(first), numbers(second), strict=True))


@pytest.mark.parametrize("method", ["sft", "cls_rl"])
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tmp_path, method):
    first, again, other = (execute(smoke(method, seed=seed), tmp_path / name) for seed, name in
                           ((0, "a"), (0, "b"), (1, "c")))  # fmt: skip
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("method", ["sft", "no_thinking_rl"])
def test_a_run_killed_after_its_last_step_trains_no_more(tmp_path, method, monkeypatch):
    settings = smoke(method, steps=4)  # saved at the last step, which ends no epoch
    with monkeypatch.context() as patch:
        patch.setattr("rftkit.run.evaluate_run", killed)
        with pytest.raises(KeyboardInterrupt):
            execute(settings, tmp_path / "killed")
    assert same(execute(settings, tmp_path / "whole"), execute(settings, tmp_path / "killed"))


def killed(*_):
    raise KeyboardInterrupt


def test_every_sft_step_has_a_full_batch_and_a_short_run_is_the_start_of_a_long_one():
    short, long = shuffled_passes(36, 64, 0), shuffled_passes(36, 320, 0)
    assert len(short) == 64 and long[:64] == short
    assert sorted(short[:36]) == list(range(36))


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    for step, state in ((2, '{"global_step": 2}'), (4, '{"global')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert Path(last_checkpoint(tmp_path)).name == "checkpoint-2"


def test_a_complete_run_is_not_touched(tmp_path):
    settings = smoke("zero_shot")
    folder = execute(settings, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert execute(settings, tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_changed_setting_model_or_data_makes_another_run(tmp_path, monkeypatch):
    settings = smoke("no_thinking_rl")
    folder = folder_of(settings, tmp_path)
    assert folder_of(settings, tmp_path) == folder
    assert folder_of(smoke("no_thinking_rl", steps=4), tmp_path) != folder
    assert folder_of(smoke("no_thinking_rl", shots=3), tmp_path) != folder
    assert folder_of(smoke("no_thinking_rl", share_prefix=False), tmp_path) != folder
    model = shutil.copytree(BUNDLED / "nano-s", tmp_path / "nano-s")
    (model / "MODEL_CARD.md").write_text("other words, the same model")
    assert folder_of(smoke("no_thinking_rl", model=str(model)), tmp_path).name[:-12] == folder.name[:-12]
    assert sha256_model(str(model)) == sha256_model(str(BUNDLED / "nano-s"))
    monkeypatch.setattr("rftkit.run.sha256_model", lambda path: "another model")
    assert folder_of(settings, tmp_path) != folder


def test_a_full_run_leaves_the_folder_of_the_design(tmp_path):
    folder = execute(smoke("think_after_answer", eval_every=3), tmp_path)
    assert {path.name for path in folder.iterdir()} >= {
        "config.yaml", "metrics.csv", "completions.parquet", "curve.csv", "predictions.parquet", "adapter",
        "checkpoints", "results.json",
    }  # fmt: skip


def test_the_command_says_what_came_out_and_of_classes_that_were_not_trained_on(tmp_path, capsys):
    command = "run --profile smoke --method sft --steps 1 --protocol few_shot --dataset digits --eval-dataset shapes"
    assert main([*command.split(), "--out", str(tmp_path)]) == 0
    written = capsys.readouterr()
    outcome, folder = written.out.splitlines()
    found = read_results(Path(folder)).parts["all"]
    assert outcome == f"no_thinking, strict: all {100 * found.accuracy:.1f} % of {found.n}"
    assert Path(folder).name.startswith("digits-to-shapes-few_shot-sft-nano-s-s0-")
    assert "16 of the 16 classes tested on are not among the 10 trained on, such as 'arrow'\n" in written.err


@pytest.mark.parametrize(("task", "method"), [("math", "adaptive"), ("puzzle", "sft"), ("spatial", "cls_rl")])
def test_every_task_runs_and_is_reported(tmp_path, task, method):
    folder = execute(smoke(method, task=task, train_items=16, test_items=6, steps=1), tmp_path)
    found = read_results(folder)
    assert (found.task, found.dataset, set(found.parts)) == (task, task, set(DRAWN[task].test_parts))
    text, _ = write_report(tmp_path)
    assert f"## {task}, nano-s" in text and f"{DRAWN[task].rule} mean" in text


def test_only_the_first_seed_is_looked_at_on_the_way_and_no_number_depends_on_it(tmp_path):
    looked_at = execute(smoke("no_thinking_rl", seed=1, eval_every=1, eval_kl=True), tmp_path / "alone")
    first, second = run_methods("smoke", ["no_thinking_rl"], [0, 1], tmp_path / "both", eval_every=1, eval_kl=True)
    assert (first / "curve.csv").is_file() and not (second / "curve.csv").exists()
    assert second.name == looked_at.name and (looked_at / "curve.csv").is_file()
    tables = [pd.read_csv(folder / "metrics.csv").drop(columns=TIMINGS) for folder in (looked_at, second)]
    pd.testing.assert_frame_equal(*tables)
    answers = [pd.read_parquet(folder / "predictions.parquet") for folder in (looked_at, second)]
    pd.testing.assert_frame_equal(*answers)
