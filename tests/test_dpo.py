"""DPO: what stands beside the right answers, and TRL's loss with each picture seen once."""

import math
from dataclasses import replace

import pytest
import torch

from rftkit.common.errors import UserError
from rftkit.models import load
from rftkit.rewards import score
from rftkit.run import execute, training_examples
from rftkit.runs.folder import read_results
from rftkit.runs.log import RunLog
from rftkit.settings import load_settings
from rftkit.sft import VisionOnce, VisionOnceDPOTrainer, dpo_trainer, rejected_answers


def smoke(**changes):
    return load_settings("smoke", "sft", **{"rejected": "model"} | changes)


def make(folder, **changes):
    settings = smoke(**changes)
    model, processor = load("nano-s", device="cpu")
    return dpo_trainer(settings, model, processor, training_examples(settings), RunLog(folder, "dpo")), settings


@pytest.mark.parametrize("dataset", ["shapes", "math", "spatial"])
@pytest.mark.parametrize("kind", ["model", "random"])
def test_rejected_answers_are_wrong_and_drawn_again_alike(nano, kind, dataset):
    settings = smoke(rejected=kind, dataset=dataset, shots=1, train_items=16)
    examples = training_examples(settings)[:16]
    rejected = rejected_answers(settings, *nano, examples)
    pairs = list(zip(rejected, examples, strict=True))
    assert not any(score(text, example, "no_thinking", settings.scoring).accuracy for text, example in pairs)
    named = [text in (example.choices or {e.answer for e in examples}) for text, example in pairs]
    assert all(named) if kind == "random" else not all(named)  # the model's own are prose as well
    assert rejected == rejected_answers(settings, *nano, examples)
    assert rejected != rejected_answers(replace(settings, seed=5), *nano, examples)


def test_without_a_wrong_answer_there_is_no_pair(nano):
    settings = smoke(dataset="math", train_items=4)
    alike = [e for e in training_examples(settings) if not e.choices][:1]
    with pytest.raises(UserError, match="no wrong answer"):
        rejected_answers(settings, *nano, alike)


def test_the_loss_is_stock_trls(tmp_path):
    trainer, _ = make(tmp_path, lora_rank=4)
    for name, parameter in trainer.model.named_parameters():  # away from the reference, where the loss is flat
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    batch = next(iter(trainer.get_train_dataloader()))
    found = []
    for compute in (trainer.compute_loss, super(VisionOnce, trainer).compute_loss):
        loss = compute(trainer.model, dict(batch))
        trained = [p for p in trainer.model.parameters() if p.requires_grad]
        found.append((loss, torch.autograd.grad(loss, trained)))
    (ours, own), (stock, theirs) = found
    assert torch.allclose(ours, stock, rtol=1e-5) and not math.isclose(ours.item(), math.log(2), rel_tol=1e-3)
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(own, theirs, strict=True))


def test_it_starts_at_log_two_and_learns_the_pairs(tmp_path):
    trainer, settings = make(tmp_path, steps=6, learning_rate=1e-3)
    assert isinstance(trainer, VisionOnceDPOTrainer)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "rewards/margins" in row]
    assert len(rows) == settings.steps
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5) and rows[0]["rewards/margins"] == pytest.approx(0)
    assert rows[-1]["rewards/margins"] > 0.1 and rows[-1]["loss"] < rows[0]["loss"] - 0.01


def test_a_run_is_a_control_of_sft(tmp_path):
    settings = load_settings("smoke", "sft", control="dpo", steps=2, learning_rate=1e-3)
    found = read_results(execute(settings, tmp_path))
    assert found.control == "dpo" and found.training.steps == 2


@pytest.mark.parametrize(
    ("method", "rejected", "line"),
    [
        ("sft", "luck", "unknown rejected 'luck'"),
        ("sft_all", "model", "'rejected' makes a DPO run of the method 'sft'"),
    ],
)
def test_wrong_settings_are_one_line(method, rejected, line):
    with pytest.raises(UserError, match=line):
        load_settings("smoke", method, rejected=rejected)
