"""Controls: other rewards, self-training, how far training moved the model, and their settings."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from test_report import some_run

from rftkit.analysis.comparisons import blank_rows
from rftkit.analysis.controls import (
    best_points,
    claims_with_controls,
    control_differences,
    distance_and_forgetting,
    elicitation_rows,
    front,
)
from rftkit.analysis.methods import method_rows
from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.evaluate import BaseAnswers
from rftkit.models import load
from rftkit.prompts import MODES
from rftkit.report.tables import (
    blank_table,
    claims_with_controls_table,
    controls_table,
    elicitation_table,
    knows_table,
    markdown,
)
from rftkit.rewards import reward_functions
from rftkit.run import execute, training_examples
from rftkit.run import test_splits as splits_to_test
from rftkit.runs.collect import archived_methods, by_section
from rftkit.runs.folder import read_predictions, read_results
from rftkit.runs.log import RunLog
from rftkit.runs.results import Measure
from rftkit.settings import METHODS, load_settings, read_claims
from rftkit.shared_prefix.vision import VisionFeatures
from rftkit.trainer import grpo_trainer

CONTROLS = read_claims()["controls"]
PAIRS = [(name, method) for name, control in CONTROLS.items() for method in control["methods"]]


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_every_control_changes_its_methods_and_says_why_it_is_there(name, method):
    changed, plain = load_settings("nano", method, control=name), load_settings("nano", method)
    differs = {key for key in vars(plain) if getattr(plain, key) != getattr(changed, key)}
    assert differs > {"control"} and CONTROLS[name]["title"]


def test_what_the_user_gives_stands_above_a_control():
    assert load_settings("nano", "sft_all", control="equal_examples", steps=3).steps == 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--control", "luck"], "unknown control 'luck'"),
        (["--control", "format_reward"], "is for cls_rl, think_after_answer, not 'no_thinking_rl'"),
    ],
)
def test_a_wrong_control_is_one_line(arguments, line, tmp_path, capsys):
    assert main(["run", "--profile", "smoke", "--out", str(tmp_path), *arguments]) == 2
    assert line in capsys.readouterr().err


def test_a_mode_without_tags_has_no_format_to_reward():
    with pytest.raises(UserError, match="no format to reward"):
        load_settings("smoke", "no_thinking_rl", reward="format")


@pytest.mark.parametrize("mode", MODES)
def test_kinds_of_reward(mode):
    names = {kind: [f.__name__ for f in reward_functions(mode, kind=kind)] for kind in ("mode", "accuracy", "random")}
    assert names["mode"] == ["accuracy_reward"] + ["format_reward"] * bool(MODES[mode].tags)
    assert names["accuracy"] == ["accuracy_reward"] and names["random"] == ["random_reward"]


def test_a_random_reward_depends_on_seed_and_step_and_on_nothing_said():
    def draw(completions, seed=0, step=1):
        (reward,) = reward_functions("no_thinking", kind="random", seed=seed)
        return reward(completions=completions, answer=["arrow"] * 64, trainer_state=SimpleNamespace(global_step=step))

    assert draw(["arrow"] * 64) == draw(["bolt"] * 64)
    assert draw(["arrow"] * 64) != draw(["arrow"] * 64, seed=1) != draw(["arrow"] * 64, step=2)
    assert set(draw(["arrow"] * 64)) == {0.0, 1.0}


def test_self_training_pushes_right_completions_up_and_nothing_down(tmp_path):
    settings = load_settings("smoke", "cls_rl", control="self_training", learning_rate=1e-3)
    model, processor = load("nano-s", device="cpu")
    grpo_trainer(settings, model, processor, training_examples(settings), RunLog(tmp_path, "")).train()
    rows = pd.read_parquet(tmp_path / "completions.parquet")
    right = (rows["accuracy_reward"] == 1) & (rows["format_reward"] == 1)
    assert 0 < right.sum() < len(rows)
    assert (rows["advantage"] == right.astype(float)).all()
    assert pd.read_csv(tmp_path / "metrics.csv")["grad_norm"].max() > 0


@pytest.mark.parametrize("mode", ["no_thinking", "thinking"])
def test_forward_kl_is_the_mean_log_ratio_on_what_the_base_model_drew(shapes, mode):
    model, processor = load("nano-s", device="cpu")
    state = torch.get_rng_state()
    base = BaseAnswers(model, processor, shapes[:6], mode, seed=0, max_tokens=30, batch_size=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert base.forward_kl() == 0
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.model.language_model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    plain = [_log_prob(model, processor, e, mode, c) for e, c in zip(shapes[:6], base.completions, strict=True)]
    expected = (base.before - torch.stack(plain)).mean().item()
    assert base.forward_kl() == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def _log_prob(model, processor, example, mode, completion):
    """Of one completion, by a plain forward pass."""
    from rftkit.evaluate import encode

    batch = encode(processor, [example], mode)
    ids = torch.cat([batch["input_ids"], completion[None]], 1)
    batch |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch["mm_token_type_ids"] = (ids == processor.image_token_id).long()
    logits = model(**batch).logits[0, -len(completion) - 1 : -1]
    return logits.log_softmax(-1).gather(1, completion[:, None]).sum()


def test_a_curve_tells_how_far_the_model_has_moved(tmp_path):
    settings = load_settings("smoke", "no_thinking_rl", eval_every=1, eval_kl=True, learning_rate=3e-3)
    curve = pd.read_csv(execute(settings, tmp_path) / "curve.csv")
    kl = curve[curve["half"] == "base"].set_index("step")["kl"]
    assert kl[0] == 0 and kl[settings.steps] != 0
    assert curve.loc[curve["half"] == "new", "kl"].isna().all()


def test_a_control_is_in_folder_and_results(tmp_path):
    settings = load_settings("smoke", "no_thinking_rl", control="random_reward", steps=1)
    folder = execute(settings, tmp_path)
    assert folder.name.startswith("shapes-no_thinking_rl+random_reward-nano-s-s0-")
    assert "random_reward" in (folder / "results.json").read_text()


def test_without_pictures_a_run_trains_on_blanks_and_is_tested_on_both(tmp_path):
    settings = load_settings("smoke", "no_thinking_rl", control="no_image", steps=1, pass_items=0)
    pictures = {image for example in training_examples(settings) for image in example.images}
    seen = {
        image.tobytes() for example in training_examples(replace(settings, blank=False)) for image in example.images
    }
    assert len(pictures) == 1 and len(seen) > 1
    run = read_results(execute(settings, tmp_path))
    answers = read_predictions(run.folder, "strict", "blank")
    blank = {m.split: m.accuracy for m in run.measures if (m.measure, m.mode) == ("blank", "no_thinking")}
    assert blank == answers.groupby("split")["blank"].mean().to_dict() and blank.keys() == {"base", "new"}


def test_what_is_learnt_without_pictures_is_decided_on_real_ones_and_on_blanks(tmp_path):
    def runs(method, control, right, on_blanks):
        mode, made = METHODS[method].mode, []
        for seed in range(3):
            folder = tmp_path / f"{method}{control}{seed}"
            answers = [
                (part, f"{part}{n}", mode, float(r), None) for part in ("base", "new") for n, r in enumerate(right)
            ]
            made.append(_run(folder, method, seed, answers, control))
            table = pd.read_parquet(folder / "predictions.parquet")
            table.assign(blank=[float(r) for r in on_blanks] * 2).to_parquet(folder / "predictions.parquet")
        return made

    with_it = runs("no_thinking_rl", None, [1] * 8, [0] * 8)
    without = runs("no_thinking_rl", "no_image", [1] * 4 + [0] * 4, [1] * 2 + [0] * 6)
    untrained = runs("zero_shot", None, [1] * 4 + [0] * 4, [0] * 8)[:1]
    on_blanks = runs("zero_shot", "no_image", [1] * 4 + [0] * 4, [0] * 8)[:1]
    sections = by_section([*with_it, *without, *untrained, *on_blanks])
    rows = {row.claim: row for row in blank_rows(sections)}
    means = {claim: row.difference[0] for claim, row in rows.items()}
    assert means == {
        "no-thinking RL on blank pictures learns": 0,
        "pictures matter to no-thinking RL": 0.5,  # H of 1 and 1, of a half and a half
        "tested on blanks, no-thinking RL on blanks learns": 0.25,
    }
    assert rows["pictures matter to no-thinking RL"].verdict == "No-Thinking-RL ahead"
    assert rows["no-thinking RL on blank pictures learns"].verdict == "undecided"
    assert "| No-Thinking-RL ahead |" in markdown(blank_table([*rows.values()]))
    assert not blank_rows(by_section([replace(run, dataset="flags") for run in [*with_it, *without]]))


def _run(folder, method, seed, answers, control=None):
    """A run's results; `answers`: (split, id, mode, strict, likelihood or None) each."""
    folder.mkdir(parents=True)
    columns = ["split", "id", "mode", "strict", "likelihood"]
    table = pd.DataFrame(answers, columns=columns).assign(group=lambda rows: rows["id"])
    table.to_parquet(folder / "predictions.parquet")
    return some_run(method=method, control=control, seed=seed, mode=METHODS[method].mode, folder=folder)


def test_gains_are_split_by_what_was_known_before(tmp_path):
    nothing = "no_thinking"
    zero = [("base", "a", nothing, 0.0, 1.0), ("base", "b", nothing, 0.0, 0.0), ("base", "c", nothing, 1.0, 1.0),
            ("base", "d", nothing, 0.0, 1.0)]  # fmt: skip
    after = [("base", "a", nothing, 1.0, 1.0), ("base", "b", nothing, 1.0, 1.0), ("base", "c", nothing, 0.0, 0.0),
             ("base", "d", nothing, 1.0, 1.0)]  # fmt: skip
    methods = {"zero_shot": [_run(tmp_path / "0", "zero_shot", 0, zero)],
               "no_thinking_rl": [_run(tmp_path / "1", "no_thinking_rl", s, after) for s in (0,)]}  # fmt: skip
    (row,) = elicitation_rows(methods)
    assert row.said == (0.25, 0.75) and row.knows == (0.75, 0.75)
    assert (row.gain_known, row.gain_unknown) == (0.25, 0.25)
    assert elicitation_rows({"no_thinking_rl": methods["no_thinking_rl"]}) == []
    others = [("base", "z", nothing, 1.0, 1.0)]
    others = {"no_thinking_rl": [_run(tmp_path / "2", "no_thinking_rl", 0, others)]}
    assert elicitation_rows(methods | others) == []  # asked other items
    assert "+25.0" in markdown(elicitation_table([row]))
    right = [("base", name, nothing, 1.0, 1.0) for name in "abcd"]  # a base model that says and knows all already
    second = {name: [*runs, replace(_run(tmp_path / f"second-{name}", name, 1, right), model="second")]
              for name, runs in methods.items()}  # fmt: skip
    (row,) = elicitation_rows(second)
    assert row.said == (0.625, 0.875) and (row.gain_known, row.gain_unknown) == (0.125, 0.125)


def test_without_choices_gains_stand_beside_what_eight_samples_find(tmp_path):
    methods = {}
    for method, right, share in (("zero_shot", 0.0, 0.6), ("cls_rl", 1.0, 0.8)):
        run = _run(tmp_path / method, method, 0, [("level 1", "a", "thinking", right, None)])
        table = pd.read_parquet(run.folder / "predictions.parquet").drop(columns="likelihood")
        table.rename(columns={"strict": "math"}).to_parquet(run.folder / "predictions.parquet")
        passed = Measure(10, int(10 * share), share, 0, 1, "level 1", "thinking", "pass@8")
        methods[method] = [replace(run, task="math", measures=[passed])]
    (row,) = elicitation_rows(methods)
    assert row.said == (0, 1) and row.passed == (0.6, 0.8) and row.knows is None and row.gain == 1
    assert "0.0 / 100.0 | 60.0 / 80.0 |  | +100.0 |  |  |" in markdown(elicitation_table([row]))


def test_a_control_is_compared_with_its_method_by_seed(tmp_path):
    def runs(name, right, control=None):
        answers = [("base", str(i), "thinking", float(r), None) for i, r in enumerate(right)]
        return [_run(tmp_path / f"{name}{seed}", "cls_rl", seed, answers, control) for seed in range(2)]

    methods = {
        "cls_rl": runs("plain", [1, 1, 1, 0]),
        "cls_rl+random_reward": runs("coin", [1, 0, 0, 0], "random_reward"),
    }
    (row,) = control_differences(methods)
    assert (row.claim, len(row.runs)) == ("cls_rl+random_reward", 2)
    assert {measure: cell[0] for measure, cell in row.beside.items()} == {"base": -0.5}
    assert "CLS-RL (thinking), random reward" in markdown(controls_table([row]))
    assert control_differences({"cls_rl+random_reward": methods["cls_rl+random_reward"]}) == []


def test_claims_are_looked_at_with_a_control_in_place_of_the_methods_it_changes(tmp_path):
    def runs(method, right, control=None):
        mode = METHODS[method].mode
        answers = [(part, f"{part}{i}", mode, float(r), None) for part in ("base", "new") for i, r in enumerate(right)]
        folder = tmp_path / f"{method}{control}"
        return [_run(folder / str(seed), method, seed, answers, control) for seed in range(2)]

    methods = {
        "cls_rl": runs("cls_rl", [1, 1, 0, 0]),
        "no_thinking_rl": runs("no_thinking_rl", [1, 0, 0, 0]),
        "sft": runs("sft", [1, 0, 0, 0]),
        "cls_rl+full_fine_tuning": runs("cls_rl", [1, 0, 0, 0], "full_fine_tuning"),
        "no_thinking_rl+full_fine_tuning": runs("no_thinking_rl", [1, 1, 1, 0], "full_fine_tuning"),
        "cls_rl+random_reward": runs("cls_rl", [0, 0, 0, 0], "random_reward"),
    }
    rows = {row.claim: row.differences for row in claims_with_controls(methods)}
    means = {claim: {name: round(found[0], 3) for name, found in of.items()} for claim, of in rows.items()}
    assert means == {
        "no-thinking RL beats SFT on the answer": {None: 0.0, "full_fine_tuning": 0.5},
        "no-thinking RL beats thinking RL": {None: -0.25, "full_fine_tuning": 0.5, "random_reward": 0.25},
    }
    table = markdown(claims_with_controls_table(claims_with_controls(methods)))
    assert "| as it is | random reward | full fine-tuning |" in table
    assert table.count("] * |") == 2 and "| +50.0 [+8.3, +100.0] |" in table  # SFT has no control here
    assert claims_with_controls({name: methods[name] for name in ("cls_rl", "no_thinking_rl")}) == []


def test_a_front_holds_what_nothing_beats_on_both_halves():
    points = pd.DataFrame({"base": [0.9, 0.8, 0.7, 0.8, 0.6], "new": [0.5, 0.7, 0.6, 0.4, 0.9]})
    assert front(points)[["base", "new"]].to_numpy().tolist() == [[0.6, 0.9], [0.8, 0.7], [0.9, 0.5]]


def test_points_of_a_selection_by_method():
    points = pd.DataFrame({
        "method": ["sft"] * 4 + ["cls_rl"], "step": [0, 20, 40, 60, 20], "learning_rate": 1e-3,
        "base": [1.0, 0.6, 0.9, 0.8, 0.5], "new": [1.0, 0.6, 0.1, 0.4, 0.5], "kl": [0.0, 1.0, 3.0, 2.0, 1.0],
    })  # fmt: skip
    best = best_points(points).set_index("method")
    assert best["step"].to_dict() == {"sft": 20, "cls_rl": 20} and best.loc["sft", "H"] == pytest.approx(0.6)
    assert distance_and_forgetting(points)["sft"] == -1  # of its trained points the farther is always the worse


def test_the_archived_study_has_runs_on_shapes_by_method():
    methods = archived_methods("shapes")
    assert len(methods["cls_rl"]) == 10 and "cls_rl+random_reward" in methods and archived_methods("nosuch") == {}
    table = knows_table(method_rows({"zero_shot": methods["zero_shot"]}))
    assert table.to_dict("records")[0] == {"method": "Zero-shot", "part": "base", "knows": "83.0", "says": "44.7"}


def test_swapped_halves_train_on_new_classes_and_call_them_base():
    plain, swapped = (load_settings(name, "sft") for name in ("nano", "nano-swapped"))
    assert {k: v for k, v in vars(swapped).items() if k not in ("profile", "protocol")} == {
        k: v for k, v in vars(plain).items() if k not in ("profile", "protocol")
    }
    shots, tests = training_examples(swapped), splits_to_test(swapped)
    assert (
        {e.answer for e in shots} == {e.answer for e in tests["base"]} != {e.answer for e in training_examples(plain)}
    )
    assert [e.id for e in tests["new"]] == [e.id for e in splits_to_test(plain)["base"]]


def test_a_run_does_not_depend_on_a_full_fine_tuning_before_it(tmp_path, monkeypatch):
    """What the vision tower makes of test pictures is kept for the next run, if it is of the same weights."""

    def says(out, *runs):
        monkeypatch.setattr("rftkit.shared_prefix.vision.with_features.__defaults__", (VisionFeatures(),))
        for run in runs:
            folder = execute(run, tmp_path / out)
        return pd.read_parquet(folder / "predictions.parquet")["completion"].tolist()

    tuned = load_settings("smoke", "no_thinking_rl", control="full_fine_tuning", learning_rate=0.01)
    untrained = load_settings("smoke", "zero_shot")
    assert says("after", tuned, untrained) == says("alone", untrained)
