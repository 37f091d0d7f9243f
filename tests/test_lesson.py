"""What the notebooks carry by hand is what the library and TRL compute."""

import inspect

import nbformat
import pytest
import torch

from rftkit import lesson
from rftkit.common.paths import NOTEBOOKS
from rftkit.models import load
from rftkit.prompts import MODES
from rftkit.report.curves import LivePlot
from rftkit.rewards import score
from rftkit.run import training_examples
from rftkit.runs.log import RunLog
from rftkit.settings import load_settings
from rftkit.trainer import grpo_trainer


@pytest.mark.parametrize("function", [lesson.group_advantage, lesson.grpo_loss])
def test_the_cell_shown_is_the_librarys_function(function):
    cells = nbformat.read(NOTEBOOKS / "00_start_here.ipynb", 4).cells
    assert any(inspect.getsource(function).strip() in cell.source for cell in cells)


def test_advantage_by_hand():
    # mean 0.75, deviations 1.25, 0.25, -0.75, -0.75, sample standard deviation 0.9574
    advantages = lesson.group_advantage(torch.tensor([2.0, 1.0, 0.0, 0.0]))
    assert advantages.tolist() == pytest.approx([1.3054, 0.2611, -0.7833, -0.7833], abs=1e-3)


def test_a_group_that_agrees_teaches_nothing():
    assert lesson.group_advantage(torch.ones(3)).tolist() == [0, 0, 0]


def test_loss_by_hand():
    log_probs = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]], requires_grad=True)
    loss = lesson.grpo_loss(log_probs, torch.tensor([[1, 1], [1, 0]]), torch.tensor([1.0, -1.0]))
    loss.backward()
    assert loss.item() == 0.0
    assert log_probs.grad.tolist() == [[-0.25, -0.25], [0.5, 0.0]]


@pytest.mark.parametrize("mode", lesson.ROLLOUTS)
def test_the_hand_written_rollouts_are_right_half_right_wrong_and_vague(mode):
    example = lesson.fixed_example()
    right, half, wrong, vague = (score(text, example, mode, "strict") for text in lesson.ROLLOUTS[mode])
    assert right.accuracy == 1 and (right.format == 1 or not MODES[mode].tags)
    assert half.accuracy + (half.format if MODES[mode].tags else 0) < 2
    assert wrong.accuracy == vague.accuracy == 0


def test_log_probs_of_completions_do_not_depend_on_their_company(nano):
    model, processor = nano
    example, texts = lesson.fixed_example(), lesson.ROLLOUTS["thinking"]
    with torch.no_grad():
        together, mask = lesson.completion_log_probs(model, processor, example, "thinking", texts)
        for row, text in enumerate(texts):
            alone, _ = lesson.completion_log_probs(model, processor, example, "thinking", [text])
            assert torch.allclose(together[row][mask[row].bool()], alone[0], atol=1e-4)


def test_advantages_and_gradients_are_trls(tmp_path):
    settings = load_settings("smoke", "cls_rl", prompts_per_step=1, num_generations=8, steps=1)
    model, processor = load("nano-s", device="cpu")
    trainer = grpo_trainer(settings, model, processor, training_examples(settings), RunLog(tmp_path, "x"))
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    rewards = [sum(parts) for parts in zip(*trainer._logs["rewards"].values(), strict=True)]
    ours = lesson.group_advantage(torch.tensor(rewards))
    assert torch.allclose(ours, torch.tensor(list(trainer._logs["advantages"])), atol=1e-4)

    trainer.current_gradient_accumulation_steps = 1
    theirs = trainer._compute_loss(trainer.model, inputs)
    width = inputs["completion_ids"].shape[1]
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    vision = {name: inputs[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    log_probs, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width, **vision)
    by_hand = lesson.grpo_loss(log_probs, inputs["completion_mask"], inputs["advantages"])
    assert by_hand.item() == pytest.approx(theirs.item(), abs=1e-5)
    weights = [p for p in trainer.model.parameters() if p.requires_grad]
    first, second = (torch.autograd.grad(loss, weights, allow_unused=True) for loss in (theirs, by_hand))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(first, second, strict=True) if a is not None)


def test_checks_fail_softly(capsys):
    lesson.check("holds", lambda: True)
    lesson.check("unsolved", lambda: None + 1)
    assert capsys.readouterr().out == "[pass] holds\n[fail] unsolved\n"


def test_live_plots_take_a_fortieth_of_the_time(monkeypatch):
    clock, shown = [0.0], []

    class Handle:
        def update(self, figure):
            clock[0] += 0.5  # the picture is made here
            shown.append(clock[0])

    monkeypatch.setattr("rftkit.report.curves.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("IPython.display.display", lambda figure, display_id: Handle())
    live = LivePlot(["loss"], every=3.0)
    rows = []
    while clock[0] < 100:
        rows.append({"step": len(rows) + 1, "loss": 1.0})
        live(rows)
        clock[0] += 1.0  # a step
    assert 3 <= len(shown) <= 6
    assert 0.5 * len(shown) <= 0.03 * clock[0]
