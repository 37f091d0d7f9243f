"""What an agent's start model is shown: short tokens, imperfect demonstrations, plans of some multisets alone."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from rftkit.gtr.replies import RULES, read
from rftkit.gtr.rules import GAMES, part_of
from rftkit.gtr.thoughts import judge
from rftkit.nano import agent as module
from rftkit.nano.agent import (
    POOL,
    TAUGHT,
    AgentCorpus,
    AgentRecipe,
    agent_processor,
    demonstration,
    is_known,
    pretrain_agent,
    prompt_of,
    reading,
    shown_state,
)
from rftkit.nano.agent_card import card_text, unmet
from rftkit.nano.build import IMAGE_TOKENS


@pytest.fixture(scope="module")
def processor():
    return agent_processor()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def small_pool(monkeypatch):
    monkeypatch.setattr(module, "POOL", dict.fromkeys(POOL, 6))


@pytest.mark.parametrize("text", [*RULES.values(), '{"cards": [10, 1], "action": "="}', "any other text, 1234, é 🂡"])
def test_any_text_comes_back_from_its_tokens(processor, text):
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("name", POOL)
def test_prompts_and_replies_are_short(processor, rng, name):
    state = shown_state(name, rng)
    ids = processor.tokenizer(prompt_of(processor, state), add_special_tokens=False)["input_ids"]
    assert ids.count(processor.image_token_id) == IMAGE_TOKENS and len(ids) < IMAGE_TOKENS + 14 + 22
    assert max(len(processor.tokenizer(demonstration(state, rng))["input_ids"]) for _ in range(20)) < 60
    action = processor.tokenizer('", "action": "10"}')["input_ids"]
    assert [processor.tokenizer.decode([token]) for token in action] == ['", ', '"action": "', "10", '"}']


@pytest.mark.parametrize("name", TAUGHT)
def test_demonstrations_are_as_imperfect_as_they_are_said_to_be(rng, name):
    found = Counter()
    for _ in range(400):
        state = shown_state(name, rng)
        if state.is_hopeless or (name == "points24" and is_known(state.cards)):
            continue
        reply = read(state.game, demonstration(state, rng))
        found["all"] += 1
        found["json"] += reply is not None
        found["right"] += reply is not None and all(judge(state, reply))
    assert 0.90 < found["json"] / found["all"] < 0.99
    assert 0.28 < found["right"] / found["all"] < 0.50


def test_of_some_multisets_right_plans_are_shown_and_nothing_of_the_test_part(rng):
    for _ in range(30):
        state = shown_state("known", rng)
        reply = read(GAMES["points24"], demonstration(state, rng))
        assert is_known(state.cards) and (reply is None or judge(state, reply) == (True, True))
    assert {part_of(shown_state("points24", rng).cards) for _ in range(60)} == {"train"}


def test_a_reading_says_what_is_on_the_table(rng):
    state = shown_state("points24", rng)
    assert json.loads(reading(state)) == {"cards": list(state.cards), "formula": "".join(state.formula)}


def test_batches_are_those_of_the_pretraining(processor, small_pool):
    corpus = AgentCorpus(AgentRecipe(vision_batch=3, language_batch=8), processor)
    pixels, means, words, weights = corpus.word_batch(0)
    assert pixels.shape[0] == 3 * 64 and means.shape == (len(words), 3 * IMAGE_TOKENS) and (means.sum(1) == 1).all()
    is_place = words >= corpus.first_place
    assert torch.isclose(weights[is_place].sum(), torch.tensor(3.0)) and (words[is_place] < len(corpus.words)).all()
    parts = corpus.text_batches(0)
    assert sum(len(part["input_ids"]) for _, part in parts) == 8 and sum(share for share, _ in parts) == pytest.approx(
        1
    )
    again = AgentCorpus(AgentRecipe(vision_batch=3, language_batch=8), processor).text_batches(0)
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for (_, a), (_, b) in zip(parts, again, strict=True))


def test_an_agent_is_made_and_can_be_loaded(tmp_path, small_pool):
    steps = {"vision_steps": 1, "language_steps": 2, "drill_steps": 1, "vision_batch": 2, "language_batch": 4}
    folder = pretrain_agent(tmp_path / "agent", seed=None, **steps)
    recipe = json.loads((tmp_path / "agent" / "recipe.json").read_text())
    assert recipe["agent"] and recipe["seed"] == 0
    from rftkit.models import load

    model, processor = load(folder, device="cpu")
    assert processor.tokenizer.get_vocab() == agent_processor().tokenizer.get_vocab()
    assert model.config.image_token_id == processor.image_token_id


def row(**changed):
    shares = dict.fromkeys(("json", "legal", "facts", "thought", "plan"), 0.9) | {"tokens": 20.0}
    head = {"dataset": "points24", "part": "train", "temperature": 0.7, "accuracy": 0.03, "n": 200, "solvable": 140}
    return head | shares | changed


def test_a_card_tells_what_is_not_met():
    assert unmet([row(), row(part="test", accuracy=0.9), row(temperature=0.2, accuracy=0.9)]) == []
    assert unmet([row(accuracy=0.3), row(json=0.5)]) == [
        "points24: won in 30.0 %, not in 1 to 6", "points24: json 50.0 %, below 85"]  # fmt: skip
    text = card_text("agent", {"parameters": 10**6, "seed": 0}, [row()])
    assert "| points24 | train | 0.7 | 3.0 | 200 | 140 | 90.0 |" in text and "All are met." in text
