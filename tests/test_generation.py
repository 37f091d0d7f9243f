"""Prompts kept once for all their completions: the same tokens as where each has a copy."""

import pytest
import torch
from tiny_models import tiny
from transformers import DynamicCache, GenerationConfig, set_seed
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rftkit.evaluate import encode
from rftkit.models import load
from rftkit.shared_prefix.generation import ForkedLayer, attention, generate_forked, positions_of, prefill
from rftkit.shared_prefix.likelihood import log_probs_behind
from rftkit.shared_prefix.vision import VisionFeatures, with_features
from rftkit.tasks.registry import open_set

N, COPIES, HEADS, PROMPT, SAID, SIZE = 3, 4, 2, 5, 3, 8


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen3_vl"])
def loaded(request):
    model, processor = load("nano-s")
    return (model if request.param == "qwen2_vl" else tiny("qwen3_vl", processor)[0].eval()), processor


def prompts(processor, count=6):
    """Some of unequal length, so that there is padding."""
    examples = [e for name in ("shapes", "emoji") for e in open_set(name).examples("val", "base", count // 2)]
    batch = dict(encode(processor, examples, "thinking"))
    return batch.pop("input_ids"), batch.pop("attention_mask"), batch


def copied(model, ids, mask, vision, copies, config):
    """What stock generate() says to prompts that are repeated."""
    per = {"pixel_values": vision["image_grid_thw"].prod(-1).tolist()} if vision else {}
    rows = {
        name: torch.cat([part.repeat(copies, 1) for part in value.split(per.get(name, 1))])
        for name, value in vision.items()
    }
    ids, mask = ids.repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)
    return model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **rows)


@pytest.mark.parametrize("text_only", [False, True])
@pytest.mark.parametrize("sampled", [False, True])
def test_the_tokens_are_those_of_copied_prompts(loaded, sampled, text_only):
    model, processor = loaded
    ids, mask, vision = prompts(processor)
    vision = {} if text_only else vision
    assert not mask.all()
    config = GenerationConfig(max_new_tokens=20, do_sample=sampled, eos_token_id=model.generation_config.eos_token_id,
                              pad_token_id=processor.tokenizer.pad_token_id, top_k=0)  # fmt: skip
    set_seed(1)
    expected = copied(model, ids, mask, vision, 3, config)
    set_seed(1)
    found = generate_forked(model, ids, mask, vision, 3, config)
    assert torch.equal(found, expected)
    assert model.config.get_text_config()._attn_implementation == "sdpa"  # as it was before


def test_the_prompts_cache_is_left_as_it_was(loaded):
    model, processor = loaded
    ids, mask, vision = prompts(processor)
    cache = prefill(model, ids, mask, vision)
    before = [layer.keys.clone() for layer in cache.layers]
    said = [generate_forked(model, ids, mask, vision, 2, GenerationConfig(max_new_tokens=3), cache) for _ in range(2)]
    assert torch.equal(*said)
    assert cache.get_seq_length() == ids.shape[1] - 1
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(cache.layers, before, strict=True))


@torch.no_grad()
def test_a_prompts_cache_and_positions_are_those_of_the_model_itself(loaded):
    model, processor = loaded
    ids, mask, vision = prompts(processor)
    usual = vision | {"mm_token_type_ids": vision["mm_token_type_ids"][:, :-1]}
    expected = model(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=True, **usual).past_key_values
    deltas, model.model.rope_deltas = model.model.rope_deltas, None
    found = prefill(model, ids, mask, vision)
    assert torch.equal(model.model.rope_deltas, deltas)
    seen = mask[:, None, :-1, None].bool()
    for mine, its in zip(found.layers, expected.layers, strict=True):
        torch.testing.assert_close(mine.keys * seen, its.keys * seen)
        torch.testing.assert_close(mine.values * seen, its.values * seen)


@torch.no_grad()
@pytest.mark.parametrize("text_only", [False, True])
def test_prompts_and_pictures_may_go_through_in_pieces(loaded, monkeypatch, text_only):
    model, processor = loaded
    ids, mask, vision = prompts(processor)
    vision = {} if text_only else vision
    whole = with_features(model, vision, VisionFeatures())
    expected, deltas = prefill(model, ids, mask, whole), model.model.rope_deltas
    calls = []
    towers = model.model.language_model, model.model.visual
    hooks = [tower.register_forward_pre_hook(lambda tower, _: calls.append(tower)) for tower in towers]
    monkeypatch.setattr("rftkit.shared_prefix.vision.PIECE", 2 * ids.shape[1])
    found = prefill(model, ids, mask, with_features(model, vision, VisionFeatures()))
    for hook in hooks:
        hook.remove()
    assert calls.count(towers[0]) == 3 and (calls.count(towers[1]) > 1 or text_only)
    assert model.model.rope_deltas is None if text_only else torch.equal(model.model.rope_deltas, deltas)
    assert found.get_seq_length() == expected.get_seq_length()
    for mine, its in zip(found.layers, expected.layers, strict=True):
        torch.testing.assert_close(mine.keys, its.keys)
        torch.testing.assert_close(mine.values, its.values)


@torch.no_grad()
def test_pictures_of_unequal_size_may_go_through_in_pieces(loaded, monkeypatch):
    model, _ = loaded
    grid = torch.tensor([[1, 4, 6], [1, 2, 2], [1, 8, 4], [1, 2, 4]])
    pixels = torch.randn(int(grid.prod(-1).sum()), 192)
    expected = VisionFeatures()._run(model, pixels, grid)
    for piece in (1, 40, 64, 100):
        monkeypatch.setattr("rftkit.shared_prefix.vision.PIECE", piece)
        torch.testing.assert_close(VisionFeatures()._run(model, pixels, grid), expected)


@torch.no_grad()
def test_answers_behind_the_cache_have_the_log_probabilities_of_whole_texts(loaded):
    model, processor = loaded
    ids, mask, vision = prompts(processor)
    answers = [[20, 21, 22], [40]]
    cache = prefill(model, ids, mask, with_features(model, vision, VisionFeatures()))
    found = log_probs_behind(model, ids, mask, cache, [answers] * len(ids))
    for number, answer in enumerate(answers):
        said = torch.tensor(answer).expand(len(ids), -1)
        kinds = torch.cat([vision["mm_token_type_ids"], torch.zeros_like(said)], 1)
        whole, sees = torch.cat([ids, said], 1), torch.cat([mask, torch.ones_like(said)], 1)
        logits = model(input_ids=whole, attention_mask=sees, **vision | {"mm_token_type_ids": kinds}).logits
        logps = logits[:, -len(answer) - 1 : -1].log_softmax(-1).gather(2, said[:, :, None])
        torch.testing.assert_close(found[:, number], logps.sum((1, 2)), atol=1e-4, rtol=1e-4)


def test_positions_of_prompts_with_two_images_or_none_are_left_to_the_model(loaded):
    kinds, grid = torch.tensor([[0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]]), torch.tensor([[1, 2, 4], [1, 2, 2]])
    vision = {"mm_token_type_ids": kinds, "image_grid_thw": grid}
    assert positions_of(loaded[0].model, torch.ones_like(kinds), vision) is None
    vision["mm_token_type_ids"] = kinds.roll(1, 1) * torch.tensor([[0], [1]])
    assert positions_of(loaded[0].model, torch.ones_like(kinds), vision) is None


@pytest.mark.parametrize("per_head", [1, 3], ids=["a key head for each", "key heads shared"])
@pytest.mark.parametrize("masked", [False, True])
def test_one_softmax_over_the_prompt_and_what_was_said(per_head, masked):
    torch.manual_seed(0)
    prompt = DynamicCache()
    prompt.update(torch.randn(N, HEADS, PROMPT, SIZE), torch.randn(N, HEADS, PROMPT, SIZE), 0)
    layer = ForkedLayer(prompt.layers[0], COPIES)
    rows = N * COPIES
    said = torch.randn(2, rows, HEADS, SAID, SIZE)
    assert layer.get_seq_length() == PROMPT
    assert layer.get_mask_sizes(SAID) == (PROMPT + SAID, 0)
    key, value = layer.update(*said)
    assert layer.get_seq_length() == PROMPT + SAID
    query, mask = torch.randn(rows, HEADS * per_head, 1, SIZE), None
    if masked:
        mask = torch.ones(rows, 1, 1, PROMPT + SAID, dtype=torch.bool)
        mask[:COPIES, ..., :2] = False  # padding of the first prompt
    ours, _ = attention(None, query, key, value, mask, SIZE**-0.5)
    whole = [
        torch.cat([part.repeat_interleave(COPIES, 0), own], 2) for part, own in zip(layer.prompt, said, strict=True)
    ]
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = per_head, True
    expected, _ = sdpa_attention_forward(module, query, *whole, mask, scaling=SIZE**-0.5)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU"))])  # fmt: skip
def test_scores_of_half_precision_are_kept_in_fp32(device):
    """With scores of 50 a weight would be off by an eighth if they were rounded to bf16."""
    torch.manual_seed(0)
    sizes = (N, PROMPT), (N, PROMPT), (N * COPIES, SAID), (N * COPIES, SAID), (N * COPIES, 1)
    states = [torch.randn(n, HEADS, t, SIZE, device=device, dtype=torch.bfloat16) for n, t in sizes]
    prompt_key, prompt_value, key, value, query = states
    prompt, scaling = DynamicCache(), 20 * SIZE**-0.5
    prompt.update(prompt_key, prompt_value, 0)
    layer = ForkedLayer(prompt.layers[0], COPIES)
    with torch.autocast(device, torch.bfloat16):
        ours, _ = attention(None, query, *layer.update(key, value), None, scaling)
    whole = [torch.cat([part.repeat_interleave(COPIES, 0), own], 2).float()
             for part, own in zip(layer.prompt, (key, value), strict=True)]  # fmt: skip
    scores = query.float() @ whole[0].mT * scaling
    assert scores.abs().max() > 50
    expected = (scores.softmax(-1) @ whole[1]).transpose(1, 2)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), expected, atol=0.02, rtol=0.02)
