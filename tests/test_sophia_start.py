"""The start models of SOPHIA: what their card measures, and what they must be."""

import json
import random

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from rftkit.common.errors import UserError
from rftkit.common.paths import BUNDLED
from rftkit.nano import fast_card, reasoner_card
from rftkit.nano.fast_card import caption_rows, card_text, thinking_rows, unmet, write_fast_card
from rftkit.nano.reasoner import SEED, teach_reasoner, text_loss, text_part
from rftkit.nano.reasoner_card import card_text as reasoner_card_text
from rftkit.nano.reasoner_card import reasoner_rows, write_reasoner_card
from rftkit.sophia.captions import items, true_caption
from rftkit.sophia.local import LocalModel
from rftkit.sophia.reasoners import Problem
from rftkit.sophia.rule import Rule
from rftkit.tasks.registry import DRAWN

MODEL = "plain/nano-s"  # which captions, and thinks too


@pytest.fixture(scope="module")
def model():
    from rftkit.models import load

    return load(MODEL, device="cpu")


def test_captions_are_measured(model):
    rows = caption_rows(*model, "math", 12)
    assert [row["prompt"] for row in rows] == ["rows", "columns"] and rows[1]["whole"] > 0.5
    assert all(row["whole"] <= row["words_right"] <= 1 and 0 <= row["invented"] <= 1 for row in rows)


def test_thinking_is_measured(model):
    rows = thinking_rows(*model, "math", 6)
    assert [row["part"] for row in rows] == ["level 1", "level 2", "level 3"]
    assert rows[0]["steps"] > 0.5 and set(rows[0]) >= {"thinking", "no_thinking", "abstains"}


def test_a_model_that_thinks_or_cannot_caption_is_refused():
    seen = [{"set": "math", "prompt": prompt, "whole": whole} for prompt, whole in (("rows", 0.1), ("columns", 0.6))]
    fine = [{"set": "math", "part": "level 1", "steps": 0.01, "thinking": {"accuracy": 0.3}}]
    assert unmet(seen, fine) == []
    assert unmet([seen[1] | {"whole": 0.59}], [fine[0] | {"steps": 0.02, "thinking": {"accuracy": 0.31}}]) == [
        "math: 59.0 % of captions whole, below 60",
        "math, level 1: 2.0 % of answers have a step",
        "math, level 1: 31.0 % right, above 30",
    ]


def test_the_card(tmp_path, monkeypatch):
    monkeypatch.setattr(fast_card, "ITEMS", 2)
    seen = {"set": "math", "prompt": "columns", "n": 2, "whole": 1.0, "words_right": 1.0, "invented": 0.0}
    monkeypatch.setattr(fast_card, "caption_rows", lambda *_: [seen | {"suffices": 0.5}])
    answers = {"set": "math", "part": "level 1", "n": 2, "steps": 0.0, "abstains": 0.0}
    answers |= {mode: {"accuracy": 0.25} for mode in ("thinking", "no_thinking")}
    monkeypatch.setattr(fast_card, "thinking_rows", lambda *_: [answers])
    recipe = {"parameters": 1909760, "sets": ["math"], "seed": 0, "reasons": False}
    text = write_fast_card(MODEL, tmp_path, recipe).read_text()
    assert (
        "| math | columns | 2 | 100.0 | 100.0 | 0.0 | 50.0 |" in text and "| math | level 1 | 2 | 25.0 | 25.0 |" in text
    )
    assert "All are met." in text and "1.91 M parameters" in text
    found = json.loads((tmp_path / "zero_shot.json").read_text())
    assert card_text(MODEL, recipe, found["captions"], found["thinking"]) == text


def test_the_language_part_alone_says_what_the_whole_says_of_text(model):
    whole, processor = model
    asked = "Question: What is the result? Description, read column by column: +, 7 3"
    ids = processor.tokenizer(asked, return_tensors="pt")["input_ids"]
    text = text_part(whole).eval()
    assert torch.allclose(text(input_ids=ids).logits, whole(input_ids=ids).logits, atol=1e-5)
    assert text.num_parameters() < 0.6 * whole.num_parameters()


def test_a_text_reasoner_is_taught_without_pictures(tmp_path):
    folder = teach_reasoner(tmp_path / "text", sets=("math",), steps=15, batch=8)
    before, after = (LocalModel.named(name, "cpu", 40) for name in (MODEL, folder))
    known = items(DRAWN["math"], "pretrain", "all", 8, SEED)
    losses = [text_loss(reasoner, known, random.Random(0)).item() for reasoner in (before, after)]
    assert losses[1] < 0.7 * losses[0] and len(pd.read_csv(f"{folder}/pretrain.csv")) == 1
    assert not [name for name in load_file(f"{folder}/model.safetensors") if "visual" in name]
    problem = Problem("0", known[0].example.question, None, true_caption(known[0].scene, "columns"))
    assert all("<answer>" in text for text in after.reason([problem], 3, 0)[0])
    with pytest.raises(UserError, match="already holds a model"):
        teach_reasoner(tmp_path / "text")


def test_what_a_reasoner_makes_of_true_captions_is_measured():
    whole, slips = reasoner_rows(Rule(0, 0), "math", 40), reasoner_rows(Rule(0, 1), "math", 40)
    assert [row["prompt"] for row in whole] == ["rows", "columns"]
    assert [row["false"] for row in whole] == [0, 0] and whole[1]["right"]["accuracy"] == 1
    assert all(row["false"] > 0.9 and row["right"]["accuracy"] < 0.1 for row in slips)


def test_the_bundled_reasoner_has_the_card_of_what_was_measured():
    folder = BUNDLED / "nano-reasoner"
    found, recipe = (json.loads((folder / name).read_text()) for name in ("zero_shot.json", "recipe.json"))
    assert reasoner_card_text(folder.name, recipe, **found) == (folder / "MODEL_CARD.md").read_text()
    reasoner = LocalModel.named(folder.name, "cpu", 64)
    assert reasoner.taught and reasoner.model.dtype == torch.float32
    row = reasoner_rows(reasoner, "math", 40)[1]
    assert row["right"]["accuracy"] == pytest.approx(found["reasoner"][1]["right"]["accuracy"], abs=0.15)


def test_a_card_is_written_for_a_reasoner(tmp_path, monkeypatch):
    monkeypatch.setattr(reasoner_card, "ITEMS", 2)
    monkeypatch.setattr(LocalModel, "named", lambda _: Rule())
    row = {"set": "math", "prompt": "rows", "right": {"accuracy": 0.5, "n": 2}, "false": 0.25}
    monkeypatch.setattr(reasoner_card, "reasoner_rows", lambda *_: [row])
    text = write_reasoner_card("one", tmp_path, {"sets": ["math"], "parameters": 1_030_000}).read_text()
    assert "| math | rows | 2 | 50.0 | 25.0 | 50.0 | 25.0 |" in text and "1.03 M parameters" in text
    assert json.loads((tmp_path / "zero_shot.json").read_text()) == {"reasoner": [row], "rule": [row]}
