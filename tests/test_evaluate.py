"""Evaluation against plain forward passes of the same model."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from rftkit.evaluate import answer_rows, encode, generate, pass_at_samples
from rftkit.models import load, lora_config
from rftkit.prompts import conversation
from rftkit.shared_prefix.merged_adapter import merged
from rftkit.tasks.registry import open_set


def test_greedy_answers_are_those_of_stock_generate(nano, shapes):
    model, processor = nano
    batch = encode(processor, shapes, "thinking")
    full = model.generate(**batch, max_new_tokens=30, do_sample=False)
    stock = processor.tokenizer.batch_decode(full[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    answers = generate(model, processor, shapes, "thinking", max_tokens=30, batch_size=12)
    assert [text for said in answers for text in said.texts] == stock
    assert all(0 < len(ids) <= 30 for said in answers for ids in said.ids)


@pytest.mark.parametrize("own", [
    {"use_cache": False}, {"num_beams": 2}, {"cache_implementation": "static"}, {"no_repeat_ngram_size": 2},
    {"suppress_tokens": list(range(20, 40))},
], ids=str)  # fmt: skip
def test_the_checkpoints_own_settings_of_generation_are_not_used(nano, shapes, own):
    answers = [answer.texts for answer in generate(*nano, shapes, "no_thinking", max_tokens=20)]
    model, processor = load("nano-s", device="cpu")
    for name, value in own.items():
        setattr(model.generation_config, name, value)
    assert [answer.texts for answer in generate(model, processor, shapes, "no_thinking", max_tokens=20)] == answers
    assert all(getattr(model.generation_config, name) == value for name, value in own.items())


def test_image_tokens_are_marked_as_transformers_marks_them(nano):
    processor, rows = nano[1], [[1, 5, 5, 2], [7, 8]]
    assert processor.image_token_id == 5
    usual = super(type(processor), processor).create_mm_token_type_ids(rows)
    assert processor.create_mm_token_type_ids(rows) == usual == [[0, 1, 1, 0], [0, 0]]
    assert processor.create_mm_token_type_ids(torch.tensor(rows[:1])) == usual[:1]


def test_answers_do_not_depend_on_the_batch(nano, shapes):
    rows = [answer_rows(*nano, shapes, "no_thinking", max_tokens=12, batch_size=size) for size in (1, 5, 12)]
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize("logits", [2**28, 2**20, 1], ids=["at once", "in parts", "one by one"])
def test_likelihood_is_the_log_probability_of_the_whole_choice(nano, shapes, monkeypatch, logits):
    monkeypatch.setattr("rftkit.shared_prefix.likelihood.LOGITS_BYTES", logits)
    model, processor = nano
    some = [*shapes[:2], *open_set("emoji").examples("test", "base", 2, 0)]  # choices of one token and of several
    likeliest = []
    for example in some:
        totals = []
        for choice in example.choices:
            text = processor.apply_chat_template(conversation(example, "no_thinking"), add_generation_prompt=True)
            answer = choice + processor.tokenizer.eos_token
            size = len(processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
            batch = processor(text=[text + answer], images=[list(example.images)], return_tensors="pt")
            with torch.no_grad():
                log_probs = model(**batch).logits.log_softmax(-1)[0, -size - 1 : -1]
            totals.append(log_probs.gather(1, batch["input_ids"][0, -size:, None]).sum())
        likeliest.append(example.choices[int(torch.stack(totals).argmax())])
    answers = generate(model, processor, some, "no_thinking", max_tokens=12, likelihood=True, batch_size=3)
    assert [said.likeliest for said in answers] == likeliest
    alone = generate(model, processor, some, "no_thinking", max_tokens=12, batch_size=3)
    assert [said.texts for said in answers] == [said.texts for said in alone]


@pytest.fixture(scope="module")
def adapted():
    """The bundled model with an adapter that changes what it says."""
    torch.manual_seed(0)
    model = get_peft_model(load("nano-s", device="cpu")[0], lora_config(4)).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@torch.no_grad()
def test_merged_adapters_give_the_same_numbers_and_leave_the_weights_as_they_were(adapted, nano, shapes):
    batch = encode(nano[1], shapes[:2], "thinking")
    before, weights = adapted(**batch).logits, {name: w.clone() for name, w in adapted.state_dict().items()}
    with pytest.raises(KeyError), merged(adapted):
        changed = [name for name, w in adapted.state_dict().items() if not torch.equal(w, weights[name])]
        together = adapted(**batch).logits
        raise KeyError
    assert changed and all("proj.base_layer.weight" in name for name in changed)
    torch.testing.assert_close(together, before, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, nano[0](**batch).logits, atol=1e-2)
    assert all(torch.equal(w, weights[name]) for name, w in adapted.state_dict().items())
    assert torch.equal(adapted(**batch).logits, before)


@torch.no_grad()
@pytest.mark.parametrize(("changes", "left"), [
    ({"lora_bias": True}, ["k", "q", "v"]),  # merging would move the base's frozen bias
    ({"use_dora": True}, ["k", "q", "v"]),
    ({"target_modules": ["q_proj", "embed_tokens"]}, ["embed_tokens"]),  # the head has the same weight
    ({"target_modules": ["q_proj", "lm_head"]}, ["lm_head"]),
])  # fmt: skip
def test_what_is_not_plain_lora_on_a_weight_of_its_own_is_not_merged(nano, changes, left):
    torch.manual_seed(0)
    model, _ = load("nano-s", device="cpu")
    targets = ["q_proj", "k_proj", "v_proj"]
    config = LoraConfig(**{"r": 4, "target_modules": targets, "init_lora_weights": False, **changes})
    network = get_peft_model(model, config).eval()
    ids, state = torch.arange(50, 70)[None], {name: part.clone() for name, part in network.state_dict().items()}
    before = network(input_ids=ids).logits
    with merged(network):
        during = network(input_ids=ids).logits
        unmerged = {name.split(".")[-1].removesuffix("_proj") for name, layer in network.named_modules()
                    if isinstance(layer, LoraLayer) and "visual" not in name and not layer.merged}  # fmt: skip
    assert sorted(unmerged) == left
    torch.testing.assert_close(during, before, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(part, state[name]) for name, part in network.state_dict().items())


@torch.no_grad()
def test_adapters_that_are_switched_off_or_stand_beside_rounded_weights_are_not_merged(adapted, nano, shapes):
    batch = encode(nano[1], shapes[:2], "thinking")
    with adapted.disable_adapter(), merged(adapted):
        assert torch.equal(adapted(**batch).logits, nano[0](**batch).logits)
    rounded = get_peft_model(load("nano-s", device="cpu", dtype=torch.bfloat16)[0], lora_config(4))
    with merged(rounded):
        assert not any(getattr(layer, "merged", False) for layer in rounded.modules())


def test_pass_at_samples_is_zero_or_one_and_at_least_sometimes_right(nano, shapes):
    torch.manual_seed(0)
    passed = pass_at_samples(*nano, shapes, "no_thinking", "lenient", max_tokens=12, batch_size=6)
    assert set(passed) <= {0.0, 1.0} and sum(passed) > 0
