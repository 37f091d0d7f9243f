"""SOPHIA's update: the kit's SFT on the same rows, or each trajectory weighted by a truncated importance ratio."""

import math

import pytest
import torch
from torch.nn import functional as F

from rftkit.common.errors import UserError
from rftkit.models import load
from rftkit.prompts import conversation, target_completion
from rftkit.runs.log import RunLog
from rftkit.settings import load_settings
from rftkit.sft import sft_trainer, shuffled_passes
from rftkit.sophia.update import Row, caption_row, in_order, trajectory, update_trainer, weighted_loss
from rftkit.tasks.registry import DRAWN

MODEL = "plain/nano-s"
EXAMPLES = DRAWN["math"].examples("shots", "all", 6)
TEXTS = [f"<think> {', '.join(e.steps)} </think> <answer> {e.answer} </answer>" for e in EXAMPLES]


@pytest.fixture(scope="module")
def run():
    return load_settings("nano", "sft", dataset="math", model=MODEL, steps=3, sft_batch=4, micro_batch=2, device="cpu")


def trained(make, folder):
    torch.manual_seed(0)
    model, processor = load(MODEL, device="cpu")
    trainer = make(model, processor, RunLog(folder, "test"))
    trainer.train()
    return {name: weight.detach() for name, weight in trainer.model.named_parameters() if weight.requires_grad}, trainer


def updated(run, rows, folder, cap=None):
    order = shuffled_passes(len(rows), run.steps * run.sft_batch, run.seed)
    return trained(lambda m, p, log: update_trainer(run, m, p, rows, order, log, cap), folder)


def test_the_update_is_sft_on_the_same_rows(run, tmp_path):
    def answer_row(example):
        return Row(example, conversation(example, "no_thinking"), target_completion(example.answer, "no_thinking"))

    ours, _ = updated(run, [answer_row(example) for example in EXAMPLES], tmp_path / "ours")
    theirs, _ = trained(lambda m, p, log: sft_trainer(run, m, p, EXAMPLES, log), tmp_path / "theirs")
    assert ours.keys() == theirs.keys() and any(weight.abs().max() > 0 for weight in ours.values())
    assert all((ours[name] - theirs[name]).abs().max() <= 1e-7 for name in ours)


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.fixture(scope="module")
def plain(run, tmp_path_factory):
    """The losses of the update on six true trajectories."""
    rows = [trajectory(example, text) for example, text in zip(EXAMPLES, TEXTS, strict=True)]
    return losses(updated(run, rows, tmp_path_factory.mktemp("plain"))[1])


@torch.no_grad()
def test_its_loss_is_the_negative_log_likelihood_given_picture_and_question(run, plain):
    (model, processor), said = load(MODEL, device="cpu"), []
    for number in shuffled_passes(6, 4, run.seed):
        asked = processor.apply_chat_template(conversation(EXAMPLES[number], "thinking"), add_generation_prompt=True)
        text = f"{TEXTS[number]}{processor.tokenizer.eos_token}\n"  # as the chat template ends a turn
        tokens = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        options = {"images": [list(EXAMPLES[number].images)], "add_special_tokens": False, "return_tensors": "pt"}
        batch = processor(text=[asked + text], **options)
        logits = model(**batch).logits[0, -tokens - 1 : -1]
        said.append(F.cross_entropy(logits, batch["input_ids"][0, -tokens:], reduction="none"))
    assert plain[0] == pytest.approx(torch.cat(said).mean().item(), rel=1e-5)


def test_where_the_ratio_is_truncated_to_one_the_update_is_as_without(run, plain, tmp_path):
    rows = [trajectory(e, text, log_mu=-1e4) for e, text in zip(EXAMPLES, TEXTS, strict=True)]
    assert losses(updated(run, rows, tmp_path, cap=1.0)[1]) == pytest.approx(plain, rel=1e-4)


def test_a_trajectory_that_the_model_would_not_say_teaches_less(run, plain, tmp_path):
    rows = [trajectory(e, text, log_mu=0.0) for e, text in zip(EXAMPLES, TEXTS, strict=True)]
    assert losses(updated(run, rows, tmp_path, cap=1.0)[1])[0] < 0.5 * plain[0]


@pytest.mark.parametrize(("cap", "weight"), [(1.0, 0.5), (0.25, 0.25), (3.0, 0.5)])
def test_the_weighted_loss_by_hand(cap, weight):
    logits = torch.zeros(1, 4, 8, requires_grad=True)  # each token has probability 1/8
    labels = torch.tensor([[-100, -100, 3, 5]])
    loss = weighted_loss(logits, labels, torch.tensor([2 * math.log(1 / 8) - math.log(0.5)]), cap)
    assert loss.item() == pytest.approx(weight * math.log(8))
    loss.backward()
    plain = torch.zeros(1, 4, 8, requires_grad=True)
    F.cross_entropy(plain[0, 1:3], labels[0, 2:]).backward()
    assert torch.allclose(logits.grad, weight * plain.grad)  # no gradient goes through the weight


def test_a_ratio_above_one_counts_up_to_the_cap():
    logits, labels = torch.zeros(2, 2, 4), torch.tensor([[-100, 1], [-100, 2]])
    mu = torch.tensor([math.log(1 / 8), math.log(1 / 80)])  # ratios of 2 and 20
    assert weighted_loss(logits, labels, mu, 5.0, tokens=2).item() == pytest.approx((2 + 5) / 2 * math.log(4))


@pytest.mark.parametrize(("share", "mixed"), [(0.0, 0), (0.25, 2), (0.5, 4)])
def test_captions_have_their_share_of_each_batch(share, mixed):
    order = in_order(5, 3, share, steps=6, batch=8, seed=1)
    batches = [order[start : start + 8] for start in range(0, 48, 8)]
    assert [sum(number >= 5 for number in batch) for batch in batches] == [mixed] * 6
    own = [number for number in order if number < 5]
    assert sorted(own[:5]) == list(range(5)) and (mixed == 0 or sorted(n for n in order if n > 4)[0] == 5)
    assert in_order(5, 0, share, 1, 8, 1) == in_order(5, 3, 0.0, 1, 8, 1)


def test_captions_are_learnt_behind_their_own_prompt_and_may_begin_a_thought():
    row = caption_row(EXAMPLES[0], "Read the picture row by row.", "3, 4")
    assert row.completion == "3, 4" and row.asked[0]["content"][-1]["text"] == "Read the picture row by row."
    assert EXAMPLES[0].question not in str(row.asked)
    assert trajectory(EXAMPLES[0], TEXTS[0], "3, 4").completion == TEXTS[0].replace("<think>", "<think> 3, 4,")


def test_nothing_selected_is_nothing_to_learn(run, tmp_path):
    with pytest.raises(UserError, match="nothing was selected"):
        update_trainer(run, None, None, [], [], RunLog(tmp_path, "test"))
