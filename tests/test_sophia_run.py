"""A SOPHIA run from captions to results: killed anywhere it goes on, asks nobody twice, and ends the same."""

import json
import shutil
import time
from dataclasses import asdict

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import tiny

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.models import load_processor
from rftkit.run import execute as execute_run
from rftkit.runs.beside import accuracies, arm_folder
from rftkit.settings import load_settings as load_run_settings
from rftkit.settings import read_claims
from rftkit.sophia import examine, stages
from rftkit.sophia import run as module
from rftkit.sophia.captions import items
from rftkit.sophia.local import LocalModel
from rftkit.sophia.reasoners import Guarded, Problem
from rftkit.sophia.rule import Rule
from rftkit.sophia.run import execute, run_sophia
from rftkit.sophia.selection import Selection
from rftkit.sophia.settings import FRESH, load_settings
from rftkit.tasks.registry import DRAWN

MODEL = "plain/nano-s"
TIMES = ("seconds", "training", "git_revision")


class Killed(BaseException):
    """As a kill: nothing catches it."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(examine, "BLANKS", 3)
    monkeypatch.setattr(stages, "PICTURES", 3)
    monkeypatch.setattr(stages, "CAPTIONS", 4)


def left(folder):
    """What a run leaves that does not say how long it took."""
    found = {
        name: value for name, value in json.loads((folder / "sophia.json").read_text()).items() if name not in TIMES
    }
    found["reasoner"] = json.loads((folder / "reasoner.json").read_text()) if "flow" in found else None
    tables = {path.name: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
    return found, tables, load_file(folder / "adapter/adapter_model.safetensors")


def test_a_killed_run_goes_on_and_asks_nobody_twice(tmp_path, monkeypatch):
    settings = load_settings("smoke")
    whole, tables, weights = left(execute(settings, tmp_path / "whole"))
    assert set(tables) == {"captions.parquet", "reasonings.parquet", "rewards.parquet", "selected.parquet",
                           "predictions.parquet", "seen.parquet"}  # fmt: skip
    assert len(tables["captions.parquet"]) == 12 and len(tables["reasonings.parquet"]) == 24
    asked = []

    def killed_at(owner, name, call):
        """Lets a function be called so often, then kills."""
        inner, calls = getattr(owner, name), []

        def act(*args, **options):
            calls.append(1)
            if len(calls) == call:
                raise Killed
            return inner(*args, **options)

        patched = pytest.MonkeyPatch()
        patched.setattr(owner, name, act)
        return patched

    reason = Rule.reason

    def counted(self, problems, n, seed):
        asked.extend(problem.key for problem in problems)
        return reason(self, problems, n, seed)

    monkeypatch.setattr(Rule, "reason", counted)
    places = [(stages, "captions", 2), (Rule, "reason", 2), (module, "select", 1), (module, "train", 1),
              (module, "examine", 1)]  # fmt: skip
    for owner, name, call in places:
        patched = killed_at(owner, name, call)
        with pytest.raises(Killed):
            execute(settings, tmp_path / "killed")
        patched.undo()
    folder = execute(settings, tmp_path / "killed")
    again, others, same = left(folder)
    assert sorted(asked) == sorted(f"{item}/{k}" for item in range(6) for k in range(2))  # each caption once
    assert again == whole and others.keys() == tables.keys()
    assert all(table.equals(others[name]) for name, table in tables.items())
    assert all(torch.equal(weight, same[name]) for name, weight in weights.items())
    assert not list(folder.glob("*.parts")) and execute(settings, tmp_path / "killed") == folder


def test_an_ablation_takes_the_stages_that_are_there(tmp_path, monkeypatch):
    alone = left(execute(load_settings("smoke", arm="outcome"), tmp_path / "alone"))
    execute(load_settings("smoke", arm="sophia"), tmp_path / "beside")

    def never(*args, **options):
        raise AssertionError("it is there already")

    monkeypatch.setattr(stages, "captions", never)
    monkeypatch.setattr(Rule, "reason", never)
    found, tables, weights = left(execute(load_settings("smoke", arm="outcome"), tmp_path / "beside"))
    assert found == alone[0] and all(table.equals(alone[1][name]) for name, table in tables.items())
    assert all(torch.equal(weight, alone[2][name]) for name, weight in weights.items())
    there = next(path.parent for path in (tmp_path / "beside").rglob("sophia.json") if "-sophia-" in path.parent.name)
    whole = (there / "rewards.parquet").read_bytes()
    for left_of_it, error in ((whole[:99], UserError), (None, AssertionError)):  # truncated: the line; gone: made anew
        (there / "rewards.parquet").write_bytes(left_of_it) if left_of_it else (there / "rewards.parquet").unlink()
        shutil.rmtree(next((tmp_path / "beside").glob("*/*-outcome-*")))
        with pytest.raises(error):
            execute(load_settings("smoke", arm="outcome"), tmp_path / "beside")
    with pytest.raises(AssertionError):  # other captions
        execute(load_settings("smoke", arm="outcome", seed=1), tmp_path / "beside")


def test_what_a_reasoner_did_not_give_is_wrong_and_not_learnt(tmp_path):
    class Silent:
        def reason(self, problems, n, seed):
            return [[None, "<think> a </think> <answer> 3 </answer>"][:n] for _ in problems]

    examples, tokenizer = DRAWN["math"].examples("shots", "all", 5), load_processor(MODEL).tokenizer
    said = pd.DataFrame({"item": range(5), "k": 0, "caption": "3"})
    for n in (1, 2):
        thought = stages.sample_reasonings(tmp_path / f"{n}.parquet", said, examples, "rows", Guarded(Silent()), n, 0)
        rewards = stages.reward(tmp_path / f"{n}-rewards.parquet", thought, examples, "math", tokenizer)
        assert rewards.loc[rewards["n"] == 0, ["right", "tokens"]].to_numpy().max() == 0
        assert len(module.select(rewards, Selection(alpha=None, right=False))) == (0 if n == 1 else 5)


def test_every_arm_of_the_claims_can_be_read():
    arms = read_claims()["sophia"]["arms"]
    assert {"outcome", "not_shortest", "random", "keep_2", "keep_8", "other_captions", "true_captions"} <= set(arms)
    for arm in arms:
        settings = load_settings("nano", arm=arm, seed=3)
        assert settings.model == "nano-fast-1" and asdict(settings) != asdict(load_settings("nano", seed=3))
    assert load_settings("nano", arm="other_captions", seed=3).captioner == "nano-fast"
    paper = load_settings("nano")
    assert (paper.captions, paper.reasonings, paper.alpha, paper.keep, paper.select) == (8, 8, 0.75, 1, "sophia")


def test_grpo_goes_on_with_pictures_of_its_own():
    settings = load_settings("smoke", grpo_steps=3, seed=5)
    grpo = settings.as_grpo("nano-s")
    assert (grpo.method, grpo.shots_seed, grpo.seed, grpo.steps) == ("cls_rl", 5 + FRESH, 5, 3)
    assert settings.as_run().shots_seed == 5


def test_grpo_goes_on_from_the_run_without_it(tmp_path):
    profile = "nano/thinks"  # in a folder of a folder
    small = {name: value for name, value in read_claims()["sophia"]["profiles"]["smoke"].items()
             if name not in ("arms", "models", "seeds")}  # fmt: skip
    folder = execute(load_settings(profile, arm="grpo", **small, grpo_steps=1), tmp_path)
    found = json.loads((folder / "sophia.json").read_text())
    first = execute(load_settings(profile, arm="sophia", **small), tmp_path)
    assert len(list(first.parent.glob("*/sophia.json"))) == 2  # it was there
    told = json.loads((first / "sophia.json").read_text())
    assert found["flow"] == told["flow"] and found["grpo"]["steps"] == 1 and (folder / "grpo").is_dir()
    assert not (folder / "captions.parquet").exists()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"arm": "none"}, "unknown arm 'none' of method sophia: choose one of zero_shot"),
        ({"profile": "none"}, "unknown profile 'none' of method sophia: choose one of nano, nano/thinks, smoke"),
        ({"alfa": 1}, "unknown setting 'alfa' of method sophia"),
        ({"alpha": 2}, "'alpha' must be at most 1"),
        ({"select": "best"}, "unknown select 'best': choose one of sophia, not_shortest, outcome, random"),
        ({"batch": 5, "micro_batch": 2}, "micro_batch 2 must divide the batch 5"),
        ({"reasoner": "server", "reasoner_model": "big"}, "needs server, or a record"),
        ({"reasoner": "local"}, "reasoner local needs reasoner_model"),
        ({"dataset": "spatial"}, "'spatial' needs reasoner local or server, and a prompt"),
        ({"prompt": "what is there"}, "the prompt of 'math' is rows or columns"),
        ({"reasoner": "local", "reasoner_model": "nano-s", "ratio_cap": 1}, "ratio_cap needs mu"),
        ({"oracle": True, "caption_share": 0.5}, "no captions for caption_share"),
        ({"caption_share": 0.9}, "caption_share 0.9 is 4 of the 4 rows of a batch"),
        ({"caption_share": 0.05}, "caption_share 0.05 is 0 of the 4 rows of a batch"),
        ({"instead": "sft", "grpo_steps": 1}, "instead sft is a run of its own"),
        ({"instead": "dpo"}, "unknown instead 'dpo': choose one of zero_shot, sft, cls_rl, raft"),
    ],
)
def test_what_cannot_be_is_one_line(changes, line):
    with pytest.raises(UserError, match=line):
        load_settings(**{"profile": "smoke"} | changes)


def test_the_command_line(tmp_path, capsys):
    smoke = ["--profile", "smoke", "--arm", "oracle", "--steps", "1", "--out", str(tmp_path)]
    assert main(["run", "--method", "sophia", *smoke]) == 0
    told, folder = capsys.readouterr().out.strip().splitlines()[-2:]
    assert told.startswith("math, oracle, thinking: level 1") and (tmp_path / folder / "sophia.json").is_file()
    assert main(["run", "--method=sophia", *smoke, "--keep", "0"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == "rftkit: setting 'keep' must be at least 1, not 0"


def test_the_kits_other_runs_are_examined_alike(tmp_path):
    asked = {"dataset": "math", "model": MODEL, "test_items": 4, "pass_items": 0}
    folder = execute_run(load_run_settings("nano", "zero_shot", **asked), tmp_path)
    found = examine.examine_run(folder, tmp_path / "answers.parquet")
    answers = pd.read_parquet(tmp_path / "answers.parquet")
    assert len(answers) == 12 and answers["steps"].sum() > 6
    assert set(found) == {"eval", "abstains", "thoughts", "by_length", "blank", "captions"}
    assert found["blank"]["n"] == 9 and 0 < found["captions"]["words_right"] <= 1


def test_a_servers_replies_are_recorded_beside_the_run_and_its_cost_is_counted(tmp_path):
    asked = {"reasoner": "server", "reasoner_model": "big", "server": "http://127.0.0.1:1/v1", "completion_price": 2}
    reasoner, spent = module.reasoner_of(load_settings("smoke", **asked), tmp_path)
    client = reasoner.reasoner.client
    assert (client.record, client.model, client.prices) == (tmp_path / "replies.jsonl", "big", (0, 2))
    client.usage.completion_tokens = 500_000
    assert spent()["server_cost"] == 1.0 and spent()["server_requests"] == 0


@pytest.mark.parametrize(
    "foreign",
    [b"PAR1", b"", pd.DataFrame({"a": [1]}), pd.DataFrame({"item": [0, 1], "k": 0}),
     pd.DataFrame({"item": [0, 1, 3], "k": 0, "caption": "3"}), pd.DataFrame({"item": [0, 1], "k": 0, "caption": "3"})],
)  # fmt: skip
@pytest.mark.parametrize("place", ["captions.parquet", "captions.parts/00000000.parquet"])
def test_a_truncated_or_foreign_stage_is_told_of(foreign, place, tmp_path):
    own = items(DRAWN["math"], "shots", "all", 3)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    if isinstance(foreign, bytes):
        (tmp_path / place).write_bytes(foreign)
    else:
        foreign.to_parquet(tmp_path / place)
    with pytest.raises(UserError, match="remove it to make it anew"):
        stages.true_captions(tmp_path / "captions.parquet", own, "rows")


def test_when_nothing_is_selected_it_is_said(tmp_path):
    with pytest.raises(UserError, match=r"nothing was selected, .*asked 24, failed 0, .*right \d+\): lower alpha"):
        execute(load_settings("smoke", alpha=1), tmp_path)


def test_a_reasoner_that_gave_nothing_is_asked_again(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")

    settings = load_settings("smoke", train_items=2, steps=1)
    with monkeypatch.context() as patched:
        patched.setattr(Rule, "reason", broken)
        with pytest.raises(UserError, match=r"gave nothing \(RuntimeError: broken\): start the same command again"):
            execute(settings, tmp_path)
    assert json.loads((execute(settings, tmp_path) / "reasoner.json").read_text())["failed"] == 0


def test_results_that_are_none_are_told_of(tmp_path):
    for text in ("{", "", "[]", "{}", '{"eval": {"a": 1}}'):
        (tmp_path / "sophia.json").write_text(text)
        with pytest.raises(UserError, match="sophia.json' is not what a run writes: remove it"):
            accuracies(tmp_path)


def test_a_run_is_another_with_another_reasoner_captioner_or_set(tmp_path, text_model):
    for name in ("one", "two"):
        shutil.copytree(text_model, tmp_path / name)
    (tmp_path / "one/chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    (tmp_path / "set").mkdir()
    for split, picture in (("train", "red"), ("test", "green")):
        Image.new("RGB", (32, 32), picture).save(tmp_path / "set" / f"{picture}.png")
        row = {"image": f"{picture}.png", "question": "?", "answer": "1"}
        (tmp_path / "set" / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    asked = {"reasoner": "local", "reasoner_model": str(tmp_path / "two")}
    own = {"dataset": str(tmp_path / "set"), "prompt": "what is there"}
    for options in (asked, {"captioner": str(tmp_path / "two")}, asked | own):
        before = arm_folder(load_settings("smoke", **options), tmp_path)
        assert before == arm_folder(load_settings("smoke", **options), tmp_path)
        if "dataset" in options:
            Image.new("RGB", (32, 32), "blue").save(tmp_path / "set/red.png")
        else:
            config = (tmp_path / "two/config.json").read_text()
            (tmp_path / "two/config.json").write_text(config.replace("{", '{"changed": 1,', 1))
        assert before != arm_folder(load_settings("smoke", **options), tmp_path)
        shutil.copy(tmp_path / "one/config.json", tmp_path / "two")


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    """A tiny causal language model in a folder."""
    folder, processor = tmp_path_factory.mktemp("models") / "tiny", load_processor(MODEL)
    model, tokenizer = tiny("qwen2", processor)
    tokenizer.chat_template = processor.chat_template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", [None, "plain/nano-s"], ids=["causal", "bundled"])
def test_a_model_on_this_machine_reasons_on_text_alone(name, text_model):
    reasoner = LocalModel.named(name or text_model, "cpu", max_tokens=6)
    problems = [
        Problem("0", "What is the result?", None, "+, 7 3"),
        Problem("1", "What is the perimeter?", None, "3, 4 5"),
    ]
    said = reasoner.reason(problems, 3, 1)
    assert [len(own) for own in said] == [3, 3] and said == reasoner.reason(problems, 3, 1)
    assert said != reasoner.reason(problems, 3, 2)
    assert reasoner.taught == (name is not None)
    assert "image_pad" not in reasoner.asked(problems[0]) and "+, 7 3" in reasoner.asked(problems[0])


def test_a_slow_local_model_stops_by_itself(text_model):
    reasoner = LocalModel.named(text_model, "cpu", max_tokens=400, seconds=0.2)
    began = time.perf_counter()
    said = reasoner.reason([Problem(str(n), "What is the result?", None, "+, 7 3") for n in range(300)], 1, 0)
    assert time.perf_counter() - began < 5 and len(said) == 300 and said[-1] == [None]


def test_a_local_model_without_all_its_weights_is_refused(text_model, tmp_path):
    folder = shutil.copytree(text_model, tmp_path / "less")
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "layers.0" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="its weights lack 1 parts"):
        LocalModel.named(str(folder), "cpu")


def test_a_local_reasoner_runs_from_end_to_end(tmp_path, text_model):
    options = {"reasoner": "local", "reasoner_model": text_model, "reasoner_tokens": 6, "select": "random"}
    text = run_sophia(tmp_path, profile="smoke", train_items=4, steps=1, caption_share=0.25, **options)
    folder = next((tmp_path / "smoke").glob("math-sophia-*"))
    counts = json.loads((folder / "reasoner.json").read_text())
    assert text.startswith("math, sophia, thinking: level 1") and counts["asked"] == 16
    assert counts["failed"] == 0 and counts["unreadable"] > 10  # random weights say nothing
    found = json.loads((folder / "sophia.json").read_text())
    assert found["rows"] == 4 and found["captions"]["before"]["said"] > 1
    assert load_processor(str(folder / "model")).tokenizer.eos_token
