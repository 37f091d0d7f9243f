"""What belongs together: an adapter and its base, a picture in the run and exported, tokens and what they stand for."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, set_seed

from rftkit.cli import main
from rftkit.common.adapters import BASE, record_base, tell_of_other_base, weights_digest
from rftkit.common.paths import BUNDLED
from rftkit.evaluate import encode, evaluate_data, generate
from rftkit.models import load, load_processor
from rftkit.run import execute, load_run, training_examples
from rftkit.runs.folder import read_results
from rftkit.runs.log import RunLog
from rftkit.settings import load_settings
from rftkit.shared_prefix.generation import no_picture_drawn
from rftkit.tasks.example import Example
from rftkit.tools.export import export
from rftkit.trainer import grpo_trainer

SIDES = st.integers(1, 800)
# Sizes of which stepwise scaling (to the limit, then to whole patches) makes others than the processor alone.
SIZES = ((60, 90), (150, 100), (33, 210), (97, 64))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    for part in ("train", "test"):
        for number, label in enumerate(("cat", "dog", "hen", "owl")):
            (folder / part / label).mkdir(parents=True)
            for place, size in enumerate(SIZES):
                Image.effect_noise(size, 20 + 40 * number).save(folder / part / label / f"{place}.png")
    return str(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos):
    """A run with limits of its own, at which pictures are scaled down and up."""
    given = {"dataset": photos, "min_pixels": 6000, "max_pixels": 8000, "steps": 6, "learning_rate": 3e-3}
    return execute(load_settings("smoke", "sft", **given), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exported(run):
    out = run.parent.parent / "exported"
    return out, export(run, out, device="cpu")


def test_an_exported_model_sees_and_answers_what_the_run_did(run, photos, exported):
    out, agreement = exported
    assert agreement.n == agreement.adapter == agreement.run == 16
    found = {part: row["correct"] for part, row in evaluate_data(str(out), photos, progress=False)["eval"].items()}
    assert found == {part: row.correct for part, row in read_results(run).parts.items()}


def test_a_picture_of_any_size_is_the_same_in_the_run_exported_and_in_plain_transformers(run, exported):
    asked = load_settings("smoke", "sft", min_pixels=6000, max_pixels=8000)
    trained, plain = load_run(asked, run)[1], AutoImageProcessor.from_pretrained(exported[0])
    ours = load_processor(str(exported[0]))
    grids = set()

    @given(st.tuples(SIDES, SIDES).filter(lambda size: max(size) <= 200 * min(size)))
    @settings(max_examples=50)
    def check(size):
        image = Image.new("RGB", size, (200, 40, 90))
        seen, again = (encode(of, [Example("a", (image,), "?", "b")], "no_thinking") for of in (trained, ours))
        expected = plain([image], return_tensors="pt")
        for name in ("image_grid_thw", "pixel_values"):
            assert torch.equal(seen[name], expected[name]) and torch.equal(again[name], expected[name])
        grids.add(tuple(expected["image_grid_thw"][0].tolist()))

    check()
    assert len(grids) > 5


def test_an_adapter_on_another_base_is_told_of_in_one_line(run, exported, tmp_path, capsys):
    def told(model, adapter=run / "adapter"):
        load(str(model), adapter=str(adapter), device="cpu")
        return [line for line in capsys.readouterr().err.splitlines() if "adapter" in line]

    assert told("nano-s") == told(BUNDLED / "nano-s") == []
    for model in ("nano-s-1", exported[0]):  # of the same shape, and with the adapter in it already
        (line,) = told(model)
        assert f"was trained on other weights (nano-s) than those of '{model}'" in line
    elsewhere = shutil.copytree(run / "adapter", tmp_path / "elsewhere")
    (elsewhere / BASE).write_text("{")
    assert told("nano-s-1", elsewhere) == []
    (elsewhere / BASE).unlink()
    assert told("nano-s-1", elsewhere) == []


def test_evaluate_tells_of_it_too(run, photos, capsys):
    tell_of_other_base.cache_clear()
    command = ["evaluate", "--model", "nano-s-2", "--adapter", str(run / "adapter"), "--data", photos]
    assert main([*command, "--test-items", "2", "--device", "cpu"]) == 0
    assert capsys.readouterr().err.count("was trained on other weights (nano-s) than those of 'nano-s-2'") == 1


def test_weights_are_the_same_under_other_names_in_other_files_and_not_if_one_differs(tmp_path):
    weights = load_file(BUNDLED / "nano-s" / "model.safetensors")
    names = sorted(weights)
    save_file({f"other.{name}": weights[name] for name in names[::2]}, tmp_path / "a.safetensors")
    save_file({f"other.{name}": weights[name] for name in names[1::2]}, tmp_path / "b.safetensors")
    assert weights_digest(str(tmp_path)) == weights_digest(str(BUNDLED / "nano-s"))
    save_file({name: weights[name] * (1 + (name == names[0])) for name in names}, tmp_path / "a.safetensors")
    assert weights_digest(str(tmp_path)) != weights_digest(str(BUNDLED / "nano-s"))


def test_a_hub_models_weights_are_those_of_a_copy_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--owner--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a1")
    shutil.copytree(BUNDLED / "nano-s", cached / "snapshots" / "a1")
    assert weights_digest("owner/name") == weights_digest(str(BUNDLED / "nano-s"))
    record_base(tmp_path, "owner/none", "owner/none")  # what cannot be read is not noted, and nothing ends
    assert not (tmp_path / BASE).exists()


def preferring(word):
    """The bundled model with a head that prefers a token to all others, its processor, and the token."""
    model, processor = load("nano-s", device="cpu")
    token = processor.tokenizer.convert_tokens_to_ids(word)
    bonus = torch.zeros(model.config.get_text_config().vocab_size).index_fill(0, torch.tensor(token), 30)
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + bonus)
    return model, processor, token


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("word", ["<|image_pad|>", "<|video_pad|>"])
def test_training_goes_on_where_the_likeliest_token_stands_for_a_picture(tmp_path, word, share):
    model, processor, token = preferring(word)
    asked = load_settings("smoke", "no_thinking_rl", dataset="digits", steps=2, share_prefix=share)
    trainer = grpo_trainer(asked, model, processor, training_examples(asked), RunLog(tmp_path, "run"))
    trainer.generation_config.suppress_tokens = None  # what TRL does against one of them
    said, sample = [], trainer._generate_single_turn

    def watched(*args, **options):
        ids, rest = sample(*args, **options)
        said.extend(ids)
        return ids, rest

    trainer._generate_single_turn = watched
    trainer.train()
    assert trainer.state.global_step == 2 and len(said) == 2 * asked.prompts_per_step * asked.num_generations
    assert not any(token in ids for ids in said)


def test_evaluation_draws_none_and_says_what_it_would_have_said(nano, shapes):
    model, processor, token = preferring("<|video_pad|>")
    options = {"max_tokens": 12, "samples": 4}
    drawn = generate(model, processor, shapes, "no_thinking", **options)
    assert not any(token in ids for answer in drawn for ids in answer.ids)
    assert torch.multinomial.__name__ == "multinomial"  # as it was before
    greedy = generate(model, processor, shapes[:1], "no_thinking", max_tokens=2)
    assert greedy[0].ids[0].tolist() == [token, token]  # as in plain transformers


def test_what_is_drawn_otherwise_is_not_changed(nano):
    never = torch.tensor([nano[0].config.image_token_id, nano[0].config.video_token_id])
    probabilities = torch.randn(64, 2112).mul(4).index_fill(1, never, 12).softmax(-1)
    set_seed(0)
    plain = torch.stack([torch.multinomial(probabilities, 1) for _ in range(50)])
    set_seed(0)
    with no_picture_drawn(nano[0]):
        found = torch.stack([torch.multinomial(probabilities.clone(), 1) for _ in range(50)])
    replaced = torch.isin(plain, never)
    assert 0 < replaced.float().mean() < 0.9 and not torch.isin(found, never).any()
    assert torch.equal(plain[~replaced], found[~replaced])
