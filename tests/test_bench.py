"""The bench: what it prints, and that the two trainers did the same work."""

import json

import pytest

from rftkit.common.errors import UserError
from rftkit.models import load
from rftkit.tools.bench import compare as module
from rftkit.tools.bench import first_step
from rftkit.tools.bench.compare import as_text, bench, flop_bound, prompts
from rftkit.tools.bench.trainers import KINDS, Options, make_trainer, save_model


@pytest.fixture(scope="module")
def report():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_elsewhere", lambda function, kind, *rest: {"stock": 200, "ours": 100}[kind])
        return bench(preset="nano-s", mode="no_thinking", group=4, pairs=2, progress=False)


def test_the_report_has_what_others_script_against(report):
    assert json.loads(json.dumps(report)) == report
    assert {"preset", "mode", "group", "device", "versions", "stock", "ours", "ratio", "flop_bound", "equality"} <= set(
        report
    )
    fields = {"step_s", "sampling_s", "scoring_s", "update_s", "peak_bytes", "vision_rows", "lm_tokens"}
    assert set(report["stock"]) == set(report["ours"]) == fields
    assert set(report["ratio"]["step"]) == {"median", "min", "max"}
    assert report["ratio"]["peak_bytes"] == 2.0


def test_phases_add_up_to_the_step(report):
    for name in ("stock", "ours"):
        times = report[name]
        parts = times["sampling_s"] + times["scoring_s"] + times["update_s"]
        assert 0 < times["sampling_s"] < times["step_s"] and parts == pytest.approx(times["step_s"], rel=0.3)


def test_both_did_the_same_and_ours_less_work(report):
    equality = report["equality"]
    assert equality["max_logprob_diff"] < 1e-6 * max(1, -equality["lowest_logprob"]) and equality["greedy_identical"]
    assert equality["max_weight_diff"] < 1e-5 < equality["max_weight_change"]
    # Eight prompts of four completions; sampling and update each run the tower in stock TRL, once for both in ours.
    assert report["stock"]["vision_rows"] == 2 * 4 * report["ours"]["vision_rows"] == 2 * 4 * 8 * 64
    assert report["stock"]["lm_tokens"] > 2 * report["ours"]["lm_tokens"]


def test_completions_are_as_long_as_asked_of_a_model_that_would_end(tmp_path):
    options = Options("nano-s", "thinking", group=2, pairs=1)
    folder, examples = save_model("nano-s", tmp_path), prompts(options, 1)
    trainers = {kind: make_trainer(kind, options, folder, examples) for kind in KINDS}
    found = module._equality_before(trainers, options, examples[:2])
    assert found["greedy_identical"] and found["max_logprob_diff"] < 1e-4


def test_the_table_names_every_phase(report):
    assert all(phase in as_text(report) for phase in ("step", "sampling", "scoring", "update", "peak"))


def test_the_bound_by_hand_without_attention():
    model, _ = load("nano-s", device="cpu")
    one, whole = (flop_bound(model, 1, 1000, 1, 0, every_position) for every_position in (False, True))
    many = flop_bound(model, 8, 1000, 1, 0, False)
    assert one["step"] == pytest.approx(1.0, abs=0.01)  # nothing to share
    assert whole["step"] > one["step"]  # but stock TRL's head on the prompt
    assert 7 < many["update"] < 8  # nearly everything is the prompt


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "nano-xl"}, "unknown preset 'nano-xl'"),
        ({"mode": "dreaming"}, "unknown mode 'dreaming'"),
        ({"group": 1}, "setting 'group' must be at least 2"),
        ({"pairs": 0}, "setting 'pairs' must be at least 1"),
        ({"preset": "7b"}, "needs a GPU"),
    ],
)
def test_what_cannot_be_measured_is_one_line(options, said):
    with pytest.raises(UserError, match=said):
        bench(**options)


def test_random_weight_models_load_like_any_other(tmp_path, shapes):
    folder = save_model("nano-m", tmp_path)
    model, processor = load(folder, device="cpu")
    assert sum(p.numel() for p in model.parameters()) < 8e6 and processor.chat_template


def test_a_start_does_not_grow_with_the_pictures_to_train_on():
    """300 pictures of 640 x 480 are 276 MB when they are decoded."""
    report = first_step.bench(("10", "300"), device="cpu", progress=False)
    few, many = report["rows"]
    assert (few["pictures"], many["pictures"]) == (10, 300) and few["seconds"] > 0
    assert many["peak_bytes"] - few["peak_bytes"] < 60 * 2**20
    assert "300" in first_step.as_text(report) and "MiB" in first_step.as_text(report)


@pytest.mark.parametrize("pictures", ["9", "a", "-1", "1e3", "10000000"])
def test_numbers_of_pictures_that_cannot_be_made_are_refused(pictures):
    with pytest.raises(UserError, match="--pictures must be numbers from 10 to 1000000, such as 100,1000,10000, not"):
        first_step.bench(("100", pictures), device="cpu")
