"""What the notebooks carry by hand is what the library and TRL compute."""

import inspect

import nbformat
import pandas as pd
import pytest
import torch

from rftkit import lesson
from rftkit.common.paths import LOGS, NOTEBOOKS
from rftkit.models import load
from rftkit.prompts import MODES
from rftkit.report.curves import LivePlot, accuracy_curves, by_method
from rftkit.rewards import score
from rftkit.run import training_examples
from rftkit.runs.folder import read_results
from rftkit.runs.log import RunLog
from rftkit.settings import load_settings
from rftkit.shared_prefix.packing import pack
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


@pytest.mark.parametrize(
    ("holds", "printed"),
    [
        (lambda: True, "[pass] it holds\n"),
        (lambda: False, "[fail] it holds\n"),
        (lambda: {}["p"], "[fail] it holds\n       KeyError: 'p'\n"),
        (
            lambda: int("two\nlines"),
            "[fail] it holds\n       ValueError: invalid literal for int() with base 10: 'two\\nlines'\n",
        ),
        (lambda: [][1], "[fail] it holds\n       IndexError: list index out of range\n"),
        (lambda: (_ for _ in ()).throw(RuntimeError("first\nsecond")), "[fail] it holds\n       RuntimeError: first\n"),
    ],
)
def test_a_check_says_what_a_solution_raised(capsys, holds, printed):
    lesson.check("it holds", holds)
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("notebook", "exercise", "found"),
    [
        ("03", 3, {"tokens": 101}),  # 69 tokens of the prompt, and 8 times its last one and 3 of the completion
        ("04", 3, {"times": 5}),
        ("06", 2, {"reads_it": True, "needs_it": False}),
        ("10", 3, {"learnt_at_most": 10}),
    ],
)
def test_a_check_can_compare_with_the_solution_and_not_print_it(notebook, exercise, found):
    solved = vars(lesson.solution(notebook, exercise))
    assert {name: solved[name] for name in found} == found


def test_the_solution_of_the_packed_group_is_what_the_trainer_packs():
    prompt, completions = torch.arange(70), [torch.arange(3)] * 8
    packed = pack([prompt], [prompt.expand(3, -1)], [completions])
    assert packed.ids.shape[1] == lesson.solution("03", 3).tokens


def test_tables_are_read_from_the_left_and_hide_nothing():
    table = pd.DataFrame(
        {"completion": ["<think> a | b </think>\n", ""], "parsed": [None, "star"], "reward": [1.0, None]}
    )
    assert lesson.readable(table.assign(step=[1, 20])).data.splitlines()[2:] == [
        "| `<think> a \\| b </think>↵` |  | 1.00 | 1 |",
        "| `∅` | `star` |  | 20 |",
    ]


def test_blank_tokens_can_be_seen(nano):
    _, processor = nano
    ids = processor.tokenizer("star\n star")["input_ids"]
    assert "".join(lesson.token_texts(processor, ids)).replace("␣", " ") == "star↵ star"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs as a notebook makes them, with what it showed meanwhile."""
    out, shown = tmp_path_factory.mktemp("runs"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesson, "display", lambda *what: shown.extend(what))
        patch.setattr(lesson, "clear_output", lambda wait: shown.clear())
        patch.setattr(LivePlot, "__call__", lambda self, rows: shown.append(rows))
        columns = ["accuracy_reward", "completion_length"]
        folders = lesson.run_live(
            "smoke", ["zero_shot", "no_thinking_rl"], [0], out, columns, pass_items=0, eval_every=2
        )
    return out, folders, shown


def test_runs_are_followed_and_their_curves_stay(made, capsys):
    _, folders, (figure,) = made
    assert [axes.get_title() for axes in figure.axes] == ["accuracy reward, 0 to 1", "completion length, tokens"]
    assert [folder.name.split("-")[1] for folder in folders] == ["zero_shot", "no_thinking_rl"]
    assert by_method(folders) == {"zero_shot": folders[0], "no_thinking_rl": folders[1]}
    assert accuracy_curves(folders).axes[0].get_title() == "No-Thinking-RL, pass items 0"
    assert accuracy_curves(folders[:1]) == "no curve: eval_every is 0 in this profile"


def test_what_finished_says_what_was_changed(made):
    out, _, _ = made
    results = lesson.finished("smoke", ["zero_shot", "no_thinking_rl", "sft"], [0], out, pass_items=0)
    assert {name: [run.label for run in runs] for name, runs in results.items()} == {
        "zero_shot": ["zero_shot, pass items 0"], "no_thinking_rl": ["no_thinking_rl, pass items 0"], "sft": [],
    }  # fmt: skip


def texts_of(figure):
    return [text.get_text().replace("\n", " ") for text in figure.texts]


def test_samples_stand_before_and_after_a_run(made):
    _, folders, _ = made
    settings = load_settings("smoke", "no_thinking_rl", pass_items=0)
    before, both = lesson.samples_figure(settings), lesson.samples_figure(settings, folders[1])
    assert len(before.axes) == len(both.axes) == 6
    for one, two in zip(texts_of(before), texts_of(both), strict=True):
        assert two.startswith(f"before: {one} after: ")


def test_groups_and_archived_runs_stand_beside_a_run(made, monkeypatch, capsys):
    _, folders, _ = made
    shown = []
    monkeypatch.setattr(lesson, "display", lambda *what: shown.extend(what))
    lesson.show_groups(folders[1])
    first, group, last, _ = (what.data for what in shown)
    assert (first, last) == ("Step 1", "Step 3") and group.count("\n") == 1 + 4  # a group of four
    shown.clear()
    lesson.beside_archived(folders, ["accuracy_reward"])
    table, figure = shown
    archived = read_results(LOGS / "shapes-no_thinking_rl").parts["new"].accuracy
    assert f"| new | {100 * read_results(folders[1]).parts['new'].accuracy:.2f} | {100 * archived:.2f} |" in table.data
    labels = [line.get_label() for line in figure.axes[0].get_lines() if line.get_label()[0] != "_"]
    assert labels == ["No-Thinking-RL, pass items 0, here", "No-Thinking-RL, archived"]
    monkeypatch.setattr(lesson, "LOGS", folders[0])
    lesson.beside_archived(folders[1:], ["accuracy_reward"])
    assert capsys.readouterr().out == "no archived run of shapes-no_thinking_rl\n"


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
