"""When thinking matters: forced beginnings, thoughts emptied and swapped, agreement, token budgets."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from test_report import some_run

from rftkit.analysis import thinking as module
from rftkit.analysis.thinking import (
    _swapped,
    agreement,
    agreements,
    answers_that_think,
    budget_curve,
    budget_curves,
    interventions,
    read_thoughts,
    thinking_share,
    thinking_shares,
    thoughts_said,
    write_thoughts,
)
from rftkit.common.errors import UserError
from rftkit.evaluate import generate
from rftkit.models import load
from rftkit.prompts import thought_of
from rftkit.run import test_splits as splits_to_test
from rftkit.runs.folder import write_config
from rftkit.runs.results import Training
from rftkit.settings import load_settings
from rftkit.tasks.example import Example
from rftkit.tasks.registry import open_set


@pytest.fixture(scope="module")
def nano():
    return load("nano-s", device="cpu")


def test_a_completion_begins_as_it_is_told_and_goes_on_as_it_would(nano, shapes):
    own = generate(*nano, shapes[:6], "thinking", max_tokens=40)
    begun = [answer.texts[0].partition("</think>")[0] + "</think>" for answer in own if "</think>" in answer.texts[0]]
    kept = [e for e, answer in zip(shapes, own, strict=False) if "</think>" in answer.texts[0]]
    assert len(kept) >= 2
    again = generate(*nano, kept, "thinking", max_tokens=40, begun=begun, batch_size=2)
    whole = [answer.texts[0] for answer in own if "</think>" in answer.texts[0]]
    assert [answer.texts[0] for answer in again] == whole


def test_interventions_change_the_thought_and_nothing_else(monkeypatch):
    examples = [Example(str(n), (), "", "star", ("star", "ring"), steps=(f"true {n}",)) for n in range(3)]
    begun = []

    def say(model, processor, examples, mode, begun_with=None, **options):
        begun.append(begun_with)
        starts = begun_with or [f"<think> thought {n} <answer>" for n in range(3)]  # as it speaks, never closed
        return [SimpleNamespace(texts=[f"{start} star </answer>"]) for start in starts]

    monkeypatch.setattr(module, "generate", lambda *a, begun=None, **options: say(*a, begun_with=begun, **options))
    found = interventions(None, None, examples, "strict")
    assert begun[1] == [f"<think> thought {n} </think> <answer>" for n in range(3)]
    assert begun[2] == ["<think> </think> <answer>"] * 3
    assert begun[3] == [*begun[1][1:], begun[1][0]]
    assert begun[4] == [f"<think> true {n} </think> <answer>" for n in range(3)]
    assert set(found) == {"free", "own", "empty", "swapped", "true"} and found["empty"] == 1


def test_behind_the_true_steps_a_model_is_right_more_often(nano):
    found = interventions(*nano, open_set("math").examples("val", "level 1", 24, 0), "math", max_tokens=40)
    assert found["true"] > max(found["own"], found["empty"], found["swapped"])


def test_thoughts_are_swapped_within_their_kind():
    examples = [Example(f"math-test-{kind}-1-{n}", (), "", "", None, "math") for n, kind in enumerate("abab")]
    assert _swapped(examples, list("0123")) == ["2", "3", "0", "1"]


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("<think> a b </think> <answer> c </answer>", "a b"),
        ("<think> a", "a"),
        ("<think> a <answer> c", "a"),
        ("c", None),
        ("<think></think>", ""),
        ("<answer> c </answer> <reason> a b </reason>", "a b"),
    ],
)
def test_thoughts_are_found(text, thought):
    assert thought_of(text) == thought


@pytest.fixture
def run(tmp_path):
    texts = ["<think> a </think> <answer> cat </answer>", "<think> dog </think> <answer> cat </answer>",
             "<answer> cat </answer>"]  # fmt: skip
    pd.DataFrame({"split": "base", "id": list("abc"), "group": list("abc"), "mode": "thinking", "completion": texts,
                  "agrees": [True, False, None],
                  "strict": [1.0, 0.0, 1.0]}).to_parquet(tmp_path / "predictions.parquet")  # fmt: skip
    return some_run(folder=tmp_path)


def test_answers_are_counted_by_their_thoughts(run):
    table = agreement([run], "strict").set_index("thought")
    assert table["share"].to_dict() == pytest.approx(
        {"agrees": 1 / 3, "disagrees": 1 / 3, "no thought, or it names nothing": 1 / 3}
    )
    assert table["accuracy"].to_dict() == {"agrees": 1.0, "disagrees": 0.0, "no thought, or it names nothing": 1.0}


def test_thoughts_with_words_and_without_are_counted(tmp_path):
    texts = ["<think> it is a cat </think> <answer> cat </answer>", "<think> </think> <answer> cat </answer>",
             "<think> <answer> cat </answer>", "<answer> cat </answer>"]  # fmt: skip
    pd.DataFrame({"split": "base", "id": list("abcd"), "group": list("abcd"), "mode": "thinking",
                  "completion": texts}).to_parquet(tmp_path / "predictions.parquet")  # fmt: skip
    found = thoughts_said([some_run(folder=tmp_path)])
    assert found == {"words": 0.25, "empty": 0.5, "none": 0.25, "for example": texts[0]}


def test_a_budget_cuts_answers_where_decoding_would_stop(run, nano):
    examples = {name: Example(name, (), "", "cat", ("cat", "dog"), "classification") for name in "abc"}
    tokenizer = nano[1].tokenizer
    curve = budget_curve([run], tokenizer, examples, "strict", [1, 5, 100])
    assert curve[1] == 0 and curve.is_monotonic_increasing and curve[100] == 1


def test_budgets_of_methods_stand_side_by_side(tmp_path):
    settings = load_settings("smoke", "cls_rl")
    write_config(tmp_path, settings)
    base = splits_to_test(settings)["base"][:2]
    texts = [f"<think> a </think> <answer> {example.answer} </answer>" for example in base]
    ids = [example.id for example in base]
    pd.DataFrame({"split": "base", "id": ids, "group": ids, "mode": "thinking", "completion": texts}).to_parquet(
        tmp_path / "predictions.parquet"
    )
    trained = some_run(folder=tmp_path, training=Training(1.0))
    found = budget_curves({"zero_shot": [replace(trained, training=None)], "cls_rl": [trained]}, "strict", [1, 100])
    assert found.to_dict("list") == {"CLS-RL (thinking)": [0.0, 1.0]} and list(found.index) == [1, 100]


def test_thinking_rollouts_are_counted_by_step(run):
    rollouts = pd.DataFrame({"step": [1, 1, 2], "completion": ["<think> a", "b", "c"]})
    rollouts.to_parquet(run.folder / "completions.parquet")
    assert thinking_share(run).to_dict() == {1: 0.5, 2: 0.0}
    assert thinking_shares([run, replace(run, seed=3)]).to_dict("list") == {"seed 0": [0.5, 0.0], "seed 3": [0.5, 0.0]}


def test_methods_with_thoughts_stand_in_one_table(run):
    direct = replace(run, method="no_thinking_rl", mode="no_thinking")
    table = agreements({"cls_rl": [run], "no_thinking_rl": [direct], "adaptive": []}, "strict")
    assert table.index.unique().tolist() == ["CLS-RL (thinking)"] and table.index.name == "method"
    assert table.reset_index(drop=True).equals(agreement([run], "strict"))


def test_what_is_written_of_thoughts_is_read_again(run):
    effects = pd.DataFrame({"own": [0.5, 0.8, 0.6], "empty": [0.5, 0.2, 0.4]})
    effects.index = pd.MultiIndex.from_tuples(
        [("before training", "a"), ("after training", "a"), ("after training", "b")], names=["when", "model"]
    )
    table = agreement([run], "strict")
    tables = {
        "thinking": answers_that_think([run], "strict"),
        "effects": effects,
        "agreeing": pd.concat({"CLS-RL (thinking)": table}, names=["method"]).droplevel(1),
        "thinks_by_step": pd.DataFrame({"seed 0": [0.5, 0.25]}, index=pd.Index([1, 2], name="step")),
        "within_tokens": pd.DataFrame({"CLS-RL (thinking)": [0.0, 1.0]}, index=pd.Index([1, 8], name="tokens")),
    }
    (run.folder / "runs").mkdir()
    write_thoughts([replace(run, folder=run.folder / "runs")], "bases", **tables)
    (found,) = read_thoughts(run.folder)
    assert (found.profile, found.dataset, found.runs) == ("nano", "shapes", [("nano-s", 0)])
    assert found.thinks == pytest.approx(2 / 3) and found.emptied == pytest.approx(-0.4)
    assert found.at_odds == pytest.approx(0 - 2 / 3)
    assert found.tables["thinks_by_step"] == [{"step": 1, "seed 0": 0.5}, {"step": 2, "seed 0": 0.25}]
    (run.folder / "thoughts-shapes-bases.json").write_text("{}")
    with pytest.raises(UserError, match="is not what notebook 06 writes"):
        read_thoughts(run.folder)
