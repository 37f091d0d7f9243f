"""The door to stock TRL: the same deals as tools of one conversation."""

from pathlib import Path

import pytest
import trl
from tiny_models import tiny
from trl import GRPOConfig, GRPOTrainer

from rftkit.gtr.trl_door import TRLWorld, trl_rows
from rftkit.models import load_processor


@pytest.fixture
def world():
    world = TRLWorld("ezpoints")
    world.reset(seed=3)
    return world


def test_an_episode_is_played_by_calls(world):
    plan = world._state.plans()[0]
    assert world.reset(seed=3).startswith("Your cards: ")
    told = [world.act(token) for token in (*plan, "=")]
    assert told[0].endswith(f"The formula so far: '{plan[0]}'.") and told[-1].endswith("The game is over.")
    assert world.get_reward() == 10 and world.act("=") == "The game is over."


@pytest.mark.parametrize("action", ["", "12", "=" * 10_000, "__import__('os')"])
def test_what_is_no_action_changes_nothing(world, action):
    before = world._state
    assert "is no action" in world.act(action) and world._state == before and world.get_reward() == 0


def test_a_seed_is_a_deal():
    one, other = TRLWorld("points24"), TRLWorld("points24")
    assert [one.reset(seed=s) for s in range(5)] == [other.reset(seed=s) for s in range(5)]
    assert "Current number" in TRLWorld("numberline").reset(seed=0)
    assert "The dealer shows" in TRLWorld("blackjack").reset(seed=0)


def test_stock_trl_trains_on_it(tmp_path):
    tokenizer = load_processor("nano-s").tokenizer
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    model, _ = tiny("qwen3", load_processor("nano-s"))
    args = GRPOConfig(output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, num_generations=2,
                      max_completion_length=4, report_to=[], use_cpu=True, bf16=False, logging_steps=1)  # fmt: skip
    trainer = GRPOTrainer(model=model, args=args, train_dataset=trl_rows("ezpoints", 2), processing_class=tokenizer,
                          environment_factory=lambda: TRLWorld("ezpoints"))  # fmt: skip
    trainer.train()
    assert trainer.state.log_history[0]["rewards/TRLWorld/mean"] == 0
    assert all(environment._state.turn == 0 for environment in trainer.environments)  # a random model calls nothing
