"""GTR's trainer: advantages, ratios and losses by hand, what is cloned, correctors, and an exact resume."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny_models import tiny

from rftkit.cli import main
from rftkit.common.chat_server import ChatServer
from rftkit.common.errors import UserError
from rftkit.common.paths import BUNDLED
from rftkit.gtr import correctors
from rftkit.gtr import run as module
from rftkit.gtr.correctors import Asked, Exact, Past, along_plans, local_model, question, server, targets_of, verdict_of
from rftkit.gtr.measures import bleu2, fixed_states, measures, self_bleu, state_gap
from rftkit.gtr.replies import Reply, read, written
from rftkit.gtr.rollout import advantages, heard, roll_out, score_steps, step_log_probs
from rftkit.gtr.rules import GAMES, State
from rftkit.gtr.settings import load_settings, read_claims
from rftkit.gtr.thoughts import correct
from rftkit.gtr.trainer import Trainer, policy_loss, value_loss
from rftkit.gtr.worlds import CardTable
from rftkit.nano.agent import agent_processor
from rftkit.nano.agent_card import unmet

EASY, CARDS = GAMES["ezpoints"], GAMES["points24"]


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """A start model of random weights, saved, with the agents' tokens."""
    folder = tmp_path_factory.mktemp("models") / "random-agent"
    processor = agent_processor()
    model, _ = tiny("qwen2_vl", processor)
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def settings(start):
    return load_settings("smoke", model=start, dataset="ezpoints", max_tokens=6, device="cpu")


@pytest.fixture
def policy(settings):
    return module.start_policy(settings)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def said(policy, state, **fields):
    """A step in which an agent said what is right, but for some fields."""
    reply = replace(correct(state, np.random.default_rng(0)), **fields)
    return heard(policy, state, policy.tokens(written(state.game, reply)), np.random.default_rng(0))


def test_advantages_by_hand():
    rewards, values = np.array([[1.0], [0.0], [2.0]]), np.array([[0.5], [1.0], [0.0]])
    done = np.array([[False], [True], [False]])
    found = advantages(rewards, values, done, np.array([4.0]), 0.9, 0.5)
    last = 2 + 0.9 * 4 - 0  # bootstrapped from what follows
    middle = 0 - 1.0  # nothing follows
    first = 1 + 0.9 * 1.0 - 0.5 + 0.9 * 0.5 * middle
    assert found.ravel() == pytest.approx([first, middle, last])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [(1.0, 2.0, -2.0), (1.3, 2.0, -2.2), (0.5, 2.0, -1.0), (1.3, -2.0, 2.6), (0.5, -2.0, 1.8), (11.0, -2.0, 2.2)],
)
def test_the_clipped_loss_by_hand(ratio, advantage, loss):
    assert policy_loss(torch.tensor([ratio]), torch.tensor([advantage]), 0.1).item() == pytest.approx(loss)


@pytest.mark.parametrize(
    ("value", "clip", "loss"), [(3.0, None, 0.5), (3.0, 0.1, 0.5 * 2.9**2), (1.0, 0.1, 4.5), (1.0, None, 4.5)]
)
def test_the_value_loss_by_hand(value, clip, loss):
    value, old, target = (torch.tensor([number]) for number in (value, 1.0, 4.0))
    assert value_loss(value, old, target, clip).item() == pytest.approx(loss)


def test_thoughts_are_weighted_and_actions_are_not():
    log_probs = torch.tensor([[-1.0, -2.0, -4.0, 0.0], [-1.0, -1.0, -1.0, -1.0]])
    assert step_log_probs(log_probs, [2, 4], 0.5).tolist() == [-5.5, -2.0]


def test_scores_are_those_of_the_library(policy):
    """Log-probabilities as the model's own loss has them, whatever the padding; values as of the prompt alone."""
    states = [State(EASY, (2, 10), ("2", "Q"), ("2", "+")), State(EASY, (6, 6), ("6", "6"))]
    replies = [policy.tokens(written(EASY, correct(state, np.random.default_rng(0)))) for state in states]
    replies[1] = replies[1][:5]
    together, alone = (
        policy.score(states, replies),
        [policy.score([s], [r]) for s, r in zip(states, replies, strict=True)],
    )
    prompts = policy.score(states, [[], []])
    for row, (state, reply, one) in enumerate(zip(states, replies, alone, strict=True)):
        batch = policy.encode([state])
        ids = torch.cat([batch.pop("input_ids"), torch.tensor([reply])], 1)
        batch["mm_token_type_ids"] = torch.nn.functional.pad(batch["mm_token_type_ids"], (0, len(reply)))
        batch["attention_mask"] = torch.ones_like(ids)
        logits = policy.model(input_ids=ids, **batch).logits[0, :-1]
        logits[:, policy.never] = -torch.inf
        own = logits.log_softmax(-1)[-len(reply) :].gather(1, torch.tensor(reply)[:, None])[:, 0]
        assert torch.allclose(one.log_probs[0], own, atol=1e-4)
        assert torch.allclose(together.log_probs[row, : len(reply)], own, atol=1e-4)
        assert not together.log_probs[row, len(reply) :].any()
        assert torch.allclose(prompts.values[row], one.values[0], atol=1e-4)


def test_pictures_tokens_are_never_said(policy):
    states = [State(EASY, (2, 10), ("2", "Q"))] * 8
    replies = policy.sample(states, 5.0, 30)
    assert not {*policy.never} & {token for reply in replies for token in reply}
    assert policy.sample(states, 0.0, 4)[0] == policy.sample(states[:1], 0.0, 4)[0]


@pytest.mark.parametrize("dataset", ["numberline", "points24"])
def test_the_ratio_is_one_before_the_first_optimizer_step(settings, policy, rng, dataset):
    """Also where the prompt changes from step to step, as with a formula in it."""
    settings = replace(settings, dataset=dataset, rollout=16, minibatch=16)
    table = CardTable(dataset, settings.envs)
    table.reset(seed=0)
    for _ in range(2):
        rollout = roll_out(policy, table, [0.0] * settings.envs, settings, rng)
        notes = Trainer(policy, replace(settings, learning_rate=1e-3)).update(rollout, [None] * 16, rng)
        assert notes["ratio_first"] < 1e-4
        before = [step.log_prob for step in rollout.steps]
        score_steps(policy, rollout.steps, settings)
        assert before != [step.log_prob for step in rollout.steps]


def test_the_format_reward_is_not_propagated(settings, policy, rng):
    settings = replace(settings, dataset="numberline")
    table = CardTable("numberline", settings.envs)
    table.reset(seed=0)
    rollout = roll_out(policy, table, [0.0] * settings.envs, settings, rng)
    columns = [rollout.steps[start : start + settings.envs] for start in range(0, settings.rollout, settings.envs)]

    def grid(name):
        return np.array([[getattr(step, name) for step in column] for column in columns])

    following = policy.score(table.states, [[]] * settings.envs).values.detach().numpy()
    plain = advantages(grid("reward"), grid("value"), grid("done"), following, settings.gamma, settings.gae)
    valid = np.array([[step.parsed is not None for step in column] for column in columns])
    assert grid("target_return") == pytest.approx(plain + grid("value") + 5 * valid, abs=1e-5)
    assert np.mean([step.advantage for step in rollout.steps]) == pytest.approx(0, abs=1e-6)


def test_the_exact_corrector_leaves_what_is_right(policy, rng):
    state = State(CARDS, (3, 3, 8, 8), ("3", "3", "8", "8"), ("8", "/"))
    right, wrong = said(policy, state, action="7"), said(policy, state, thoughts="8/3+8/3 gives 24, next 3", action="3")
    unread = heard(policy, state, policy.tokens("{"), rng)
    corrector = Exact()
    none, target, nothing = targets_of([right, wrong, unread], corrector, policy, False, rng)
    assert none is None and nothing is None and corrector.counts == {"asked": 2, "corrected": 1}
    text = policy.text(target.reply)
    assert read(CARDS, text).thoughts.startswith("8/(3-8/3)") and read(CARDS, text).action == "3"
    assert policy.text(target.reply[: target.count]).endswith('", ')  # the agent's own action is not cloned
    (whole,) = targets_of([wrong], Exact(), policy, True, rng)
    assert read(CARDS, policy.text(whole.reply)).action == "(" and whole.count == len(whole.reply)


def test_whole_plans_are_followed_to_their_end(policy, rng):
    state = State(CARDS, (3, 3, 8, 8), ("3", "3", "8", "8"))
    targets = along_plans([said(policy, state)], policy, False, rng)
    assert ["".join(target.state.formula) for target in targets] == ["8/(3-8/3)"[:end] for end in range(10)]
    assert not along_plans([said(policy, State(CARDS, (1, 1, 1, 1), ("A",) * 4))], policy, False, rng)


def test_cloning_makes_the_target_likelier_and_leaves_the_action(settings, policy, rng):
    settings = replace(settings, ppo=False, learning_rate=1e-2, minibatch=2, epochs=6)
    step = said(policy, State(EASY, (2, 10), ("2", "Q")), thoughts="I think")
    (target,) = targets_of([step], Exact(), policy, False, rng)
    rollout = type("Rollout", (), {"steps": [step, step]})

    def likelihoods():
        log_probs = policy.score([target.state], [target.reply]).log_probs[0].detach()
        return log_probs[: target.count].sum().item()

    before = likelihoods()
    notes = Trainer(policy, settings).update(rollout, [target, None], rng)
    assert likelihoods() > before + 1 and notes["pool"] == 2 and "loss" not in notes


@pytest.mark.parametrize(("dagger", "size"), [(True, 3), (False, 1)])
def test_the_pool_holds_all_steps_so_far_or_the_last(settings, policy, rng, dagger, size):
    trainer = Trainer(policy, replace(settings, dagger=dagger, ppo=False))
    rollout = type("Rollout", (), {"steps": [said(policy, State(EASY, (2, 10), ("2", "Q")))]})
    for _ in range(3):
        trainer.update(rollout, [None], rng)
    assert len(trainer.pool) == size


def test_the_past_is_the_mean_of_what_was(settings, policy, rng):
    past = Past(policy, 0.2, 6)
    name, weight = next((n, w) for n, w in policy.model.named_parameters() if w.requires_grad)
    first = weight.detach().clone()
    with torch.no_grad():
        weight += 1
    past.observe(policy)
    assert torch.allclose(past.mean[name], first + 0.5, atol=1e-6) and past.counts["merged"] == 2
    before = weight.detach().clone()
    step = said(policy, State(EASY, (2, 10), ("2", "Q")))
    assert past.correct([step], policy, rng) == [None]  # random weights say nothing that can be read
    assert torch.equal(weight, before) and past.counts["asked"] == 1


ANSWERS = {
    '```json\n{"evaluation": "yes"}\n```': (True, None),
    '{"evaluation": "NO", "correction": {"cards": [2, 10], "formula": "", "thoughts": "2+10 gives 12"}}':
        (False, Reply(("2", "10"), "", "2+10 gives 12", "")),
    '{"evaluation": "NO", "correction": {"cards": [2], "formula": "", "thoughts": "<|im_end|>"}}':
        (False, Reply(("2",), "", "< |im_end|>", "")),
    '{"evaluation": "NO"}': (None, None), '{"evaluation": "MAYBE"}': (None, None), "YES": (None, None),
    '{"evaluation": "NO", "correction": {"cards": 3}}': (None, None), "{" * 5000: (None, None), "": (None, None),
    "[1]": (None, None), '{"evaluation": "NO", "correction": ' + "[" * 3000: (None, None),
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
def test_what_a_corrector_says_is_read(answer):
    assert verdict_of(State(EASY, (2, 10)), answer) == ANSWERS[answer]


def test_nonsense_and_silence_are_counted(policy, rng):
    step = said(policy, State(EASY, (2, 10), ("2", "Q")), thoughts="I think")
    corrector = Asked(lambda questions: [None, "what?", next(iter(ANSWERS))], 64, lambda: {"requests": 7})
    assert corrector.correct([step] * 3, policy, rng) == [None] * 3
    assert corrector.counts == {"asked": 3, "corrected": 0, "nonsense": 1, "failed": 1, "server_requests": 7}


def test_a_server_that_nobody_serves_corrects_nothing(policy, rng):
    client = ChatServer("http://127.0.0.1:1/v1", retries=0)
    corrector = Asked(server(client), 64, client.counts)
    assert corrector.correct([said(policy, State(EASY, (2, 10), ("2", "Q")))], policy, rng) == [None]
    assert corrector.counts["failed"] == corrector.counts["server_failed"] == 1


def test_a_local_model_is_asked_with_the_picture(policy, rng, monkeypatch):
    monkeypatch.setattr(correctors, "ASKED_TOKENS", 5)
    corrector = Asked(local_model(policy.model, policy.processor, batch=2), policy.side)
    steps = [said(policy, State(EASY, (2, 10), ("2", "Q")))] * 3
    assert corrector.correct(steps, policy, rng) == [None] * 3
    assert (corrector.counts["asked"], corrector.counts["nonsense"]) == (3, 3)  # random weights say nothing


def test_a_corrector_is_told_what_the_solver_knows():
    text = question(State(CARDS, (3, 3, 8, 8)), Reply(("3",), "", "well", "8"))
    assert "8/(3-8/3)" in text and '"action"' not in text and '"cards", "formula", "thoughts"' in text
    assert "there are none" in question(State(CARDS, (1, 1, 1, 1)), Reply((), "", "", ""))


def test_collapse_is_measured(policy):
    states = [State(EASY, (2, 10), ("2", "Q")), State(EASY, (6, 6), ("6", "6")), State(CARDS, (1, 1, 1, 1), ("A",) * 4)]
    right = [said(policy, state) for state in states]
    wrong = [said(policy, state, thoughts="hm") for state in states]
    found = measures(policy, [*right, *wrong])
    assert (found["json"], found["legal"], found["facts"], found["thought"], found["plan"]) == (1, 1, 1, 0.5, 0.5)
    assert found["distinct"] == 4 / 6 and 0 < found["self_bleu"] < 1
    same = [said(policy, states[0])] * 2
    assert math.isnan(state_gap(policy, same)) and math.isfinite(state_gap(policy, right))


def test_bleu_by_hand():
    assert bleu2(["a", "b", "c"], [["a", "b", "c"]]) == pytest.approx(1)
    assert bleu2(["a", "b"], [["a", "c"]]) == pytest.approx(math.sqrt(0.5 * 0.1))
    assert bleu2(["a", "b"], [["a", "b", "c", "d"]]) == pytest.approx(math.exp(-1))
    assert bleu2([], [["a"]]) == 0 and self_bleu(["x y", "x y"]) == pytest.approx(1)


def test_all_arms_are_measured_on_the_same_states(settings):
    assert fixed_states(settings) == fixed_states(replace(settings, seed=7, corrector="none"))


class Killed(Exception):
    pass


@pytest.mark.parametrize("corrector", ["exact", "past"])
def test_a_killed_run_goes_on_to_the_same_weights(settings, tmp_path, monkeypatch, corrector):
    settings = replace(settings, updates=3, corrector=corrector, schedule=25, whole_plans=True)
    whole = module.execute(settings, tmp_path / "whole")
    update = module.Training._update

    def killed(self, number):
        if number == 3:
            raise Killed
        return update(self, number)

    monkeypatch.setattr(module.Training, "_update", killed)
    with pytest.raises(Killed):
        module.execute(settings, tmp_path / "killed")
    monkeypatch.undo()
    resumed = module.execute(settings, tmp_path / "killed")
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, resumed)]
    assert weights[0] == weights[1]
    tables = [pd.read_csv(folder / "metrics.csv").filter(regex="^(?!.*seconds)") for folder in (whole, resumed)]
    pd.testing.assert_frame_equal(*tables)
    assert not (resumed / "checkpoint.pt").exists()
    again = module.execute(settings, tmp_path / "killed")  # complete: found as it is
    results = json.loads((again / "gtr.json").read_text())
    assert again == resumed and results["eval"]["all"]["n"] == 4 and results["in_play"]["all"]["tokens"] > 0
    assert (results["fixed_before"]["update"], results["fixed_after"]["update"]) == (0, 3)


@pytest.mark.parametrize("quantize", [False, True])
def test_lora_leaves_the_start_model_as_it_was(settings, tmp_path, quantize):
    folder = module.execute(replace(settings, lora_rank=2, quantize=quantize, rollout=4, test_episodes=1), tmp_path)
    assert (folder / "adapter" / "adapter_model.safetensors").is_file() and not (folder / "model").exists()


def test_a_truncated_checkpoint_is_told_of(settings, tmp_path):
    training = module.Training(settings, tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(UserError, match="is truncated: delete it"):
        training.run()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"arm": "best"}, "unknown arm 'best'"), ({"profile": "tiny"}, "unknown profile 'tiny'"),
        ({"dataset": "blackjack"}, "unknown dataset 'blackjack': choose one of numberline"),
        ({"envs": 3}, "envs 3 must divide the rollout"), ({"corrector": "server"}, "needs corrector_model"),
        ({"ppo": False, "corrector": "none"}, "nothing is learnt"), ({"speed": 1}, "unknown setting 'speed'"),
        ({"quantize": True, "lora_rank": 0}, "cannot be trained in full"), ({"updates": 0}, "at least 1"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_line(given, why):
    with pytest.raises(UserError, match=why):
        load_settings(**given)


def test_papers_settings_are_the_defaults_and_arms_switch_parts_off():
    gpu = load_settings("gpu-2b", dataset="points24")
    assert (gpu.learning_rate, gpu.epochs, gpu.clip, gpu.thought_weight, gpu.temperature) == (1e-5, 4, 0.1, 0.5, 0.2)
    assert gpu.updates * gpu.rollout >= 14_000 and gpu.lora_rank == 128 and gpu.value_clip == 0.1
    arms = {arm: load_settings("nano", arm=arm) for arm in ("unguided", "early_stop", "gtr", "gtr_past", "cloned")}
    assert {arm: (s.corrector, s.ppo, s.early_stop) for arm, s in arms.items()} == {
        "unguided": ("none", True, False), "early_stop": ("none", True, True), "gtr": ("exact", True, True),
        "gtr_past": ("past", True, True), "cloned": ("exact", False, True),
    }  # fmt: skip


def test_seeds_take_the_start_models_in_turn_and_each_is_bundled():
    models = read_claims()["profiles"]["nano"]["models"]
    assert [load_settings("nano", seed=seed).model for seed in range(3)] == [models[s % len(models)] for s in range(3)]
    for model in models:
        assert unmet(json.loads((BUNDLED / model / "zero_shot.json").read_text())) == []


def test_a_run_by_its_command(start, tmp_path, capsys):
    flags = (
        f"run --method gtr --profile smoke --dataset points24 --arm cloned --max-tokens 6 --model {start} --device cpu"
    )
    assert main([*flags.split(), "--no-dagger", "--out", str(tmp_path)]) == 0
    line, folder = capsys.readouterr().out.splitlines()
    assert line == "points24, cloned, success: train 0.0 % of 4, test 0.0 % of 4"
    config = yaml.safe_load((Path(folder) / "config.yaml").read_text())
    assert (config["arm"], config["ppo"], config["dagger"], config["seed"]) == ("cloned", False, False, 0)
    files = {"config.yaml", "metrics.csv", "fixed.csv", "replies.parquet", "episodes.parquet",
             "states.parquet", "model", "gtr.json"}  # fmt: skip
    assert {path.name for path in Path(folder).iterdir()} == files


def test_a_run_of_an_agent_has_flags_of_its_own(capsys):
    for command, has in (("run --method gtr --help", True), ("run --help", False)):
        with pytest.raises(SystemExit):
            main(command.split())
        assert ("--no-dagger" in capsys.readouterr().out) == has


@pytest.mark.parametrize(
    ("flags", "why"),
    [("--dataset shapes", "unknown dataset 'shapes'"), ("--method=gtr --envs 7", "envs 7 must divide"),
     ("--gamma two", "setting 'gamma' needs a number"), ("--model no-agent", "no model 'no-agent'")],
)  # fmt: skip
def test_mistakes_of_a_command_are_one_line(flags, why, tmp_path, capsys):
    assert main(["run", "--method", "gtr", *flags.split(), "--out", str(tmp_path)]) == 2
    assert why in capsys.readouterr().err and not list(tmp_path.glob("*/*"))
