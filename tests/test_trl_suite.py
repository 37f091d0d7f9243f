"""What is proved: options of stock TRL's GRPO in pairs of runs, stock and ours, on models as tiny as its own tests'.

`SHARED` is the list behind `rftkit/shared_prefix/proved.py`: prompts are shared and the numbers are stock TRL's.
`LEFT` is left to stock TRL, with one message when the trainer is made.
"""

import random
from dataclasses import dataclass, field

import pytest
from datasets import Dataset
from peft import IA3Config, LoraConfig, PrefixTuningConfig
from PIL import Image
from tiny_models import TEMPLATE, TEXT_MODELS, tiny
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_chat_template

from rftkit.models import load_processor
from rftkit.shared_prefix.sharing import SharedPrefixTrainer

WITHIN = 1e-6
ENDS = {"sequence_bias": [[[2], 6.0]]}  # token 2 ends a completion: lengths differ
TIMES = ("step_time", "runtime", "per_second", "total_flos")
# Means over a micro-batch, which holds other completions than stock TRL's where a step has several.
OF_A_MICRO_BATCH = ("kl", "clip_ratio")
PROJECTIONS = r".*layers.*\.(q|v|down)_proj"
TWO = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


@dataclass(frozen=True)
class Case:
    """A pair of runs: a model, its prompts, and options of GRPOConfig or of the trainer."""

    options: dict = field(default_factory=dict)
    family: str = "qwen2_vl"
    pictures: int | tuple = 1  # a prompt, or of each of the four
    model: dict = field(default_factory=dict)  # of the language model's config
    own: dict = field(default_factory=dict)  # of the checkpoint's generation config
    lora: dict | None = None
    more: dict = field(default_factory=dict)  # of the trainer
    prepare: object = None  # changes the model
    evaluates: bool = False


def plain(name="", value=None, **rest):
    return Case(options={name: value} if name else {}, **rest)


def of_length(completion_ids, **_):
    return [0.1 * len(ids) + 0.01 * (sum(ids) % 7) for ids in completion_ids]


def sometimes_right(completion_ids, **_):
    return [float(ids[0] % 16 == 0) for ids in completion_ids]


def none_for_some(completion_ids, **_):
    return [None if sum(ids) % 3 == 0 else float(len(ids)) for ids in completion_ids]


async def later(completion_ids, **_):
    return of_length(completion_ids)


def one_rollout_each(prompts, trainer, differs=False):
    """A rollout function; where it `differs`, completions of a group have prompts of their own."""
    draw = random.Random(trainer.state.global_step)
    text = ["what is this and that" + " and that" * (i % 4 if differs else i // 4) for i in range(len(prompts))]
    ids = [trainer._tokenizer(one)["input_ids"] * 3 for one in text]
    said = [[draw.randrange(10, 500) for _ in range(draw.randrange(3, 8))] for _ in prompts]
    return {"prompt_ids": ids, "completion_ids": said, "logprobs": None}


def differing(prompts, trainer):
    return one_rollout_each(prompts, trainer, differs=True)


class Scene:
    """An environment without tools, which says something else to each completion."""

    number = 0

    def reset(self, **_):
        Scene.number += 1
        return f" and that {Scene.number % 3}"


def tool(number: int) -> int:
    """Doubles a number.

    Args:
        number: the number.

    Returns:
        Twice the number.
    """
    return 2 * number


SHARED = {
    "plain": plain(),
    # families
    **{family: plain(family=family) for family in ("qwen2_5_vl", "qwen3_vl", "qwen2", "qwen3", "llama")},
    "two pictures": plain(pictures=2),
    "no picture": plain(pictures=0),
    "one picture or more": plain(pictures=(2, 1, 1, 3)),
    "two pictures, qwen2_5_vl": plain(pictures=2, family="qwen2_5_vl"),
    "one picture or more, qwen3_vl": plain(pictures=(2, 1, 1, 3), family="qwen3_vl"),
    "no picture, qwen3_vl": plain(pictures=0, family="qwen3_vl"),
    "beta with LoRA, qwen3_vl": plain("beta", 0.04, lora={}, family="qwen3_vl"),
    "beta without LoRA, qwen3_vl": plain("beta", 0.04, family="qwen3_vl"),
    "two micro-batches, checkpointing, qwen3_vl": Case(TWO | {"gradient_checkpointing": True}, family="qwen3_vl"),
    "LoRA on the vision tower, qwen3_vl": plain(
        lora={"target_modules": r".*(visual.*\.(qkv|linear_fc1)|layers.*\.q_proj)"}, family="qwen3_vl"),
    "tied embeddings": plain(model={"tie_word_embeddings": True}),
    "positions stretched by llama3": plain(family="llama", model={"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}}),
    "positions stretched by yarn": plain(family="qwen2", model={"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}}),
    "positions stretched linearly": plain(family="llama", model={"rope_parameters": {
        "rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    # losses
    **{loss: plain("loss_type", loss) for loss in ("grpo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo")},
    "importance of a sequence": Case({"importance_sampling_level": "sequence", "loss_type": "grpo",
                                      "num_iterations": 2, "learning_rate": 0.3}),
    "two updates a batch": Case({"num_iterations": 2, "learning_rate": 0.3}),
    "delta": Case({"delta": 1.1, "num_iterations": 2, "learning_rate": 0.3}),
    "epsilon_high": Case({"epsilon_high": 0.28, "num_iterations": 2, "learning_rate": 0.3}),
    "off-policy mask": Case({"off_policy_mask_threshold": 1e-4, "num_iterations": 2, "learning_rate": 0.3}),
    "top_entropy_quantile": plain("top_entropy_quantile", 0.3),
    "entropy bonus": plain("entropy_coef", 0.05),
    "adaptive entropy": plain("use_adaptive_entropy", True),
    # reference
    "beta without LoRA": plain("beta", 0.04),
    "beta with LoRA": plain("beta", 0.04, lora={}),
    "beta, text": plain("beta", 0.04, family="llama"),
    "bias-corrected KL": Case({"beta": 0.04, "use_bias_correction_kl": True, "num_iterations": 2}),
    "reference in step": Case({"beta": 0.04, "sync_ref_model": True, "ref_model_sync_steps": 1}),
    # rewards
    "rewards not scaled": plain("scale_rewards", "none"),
    "rewards scaled by the batch": plain("scale_rewards", "batch"),
    "two rewards": Case({"reward_weights": [0.7, 0.3]}, more={"reward_funcs": [of_length, sometimes_right]}),
    "two rewards, normalised first": Case({"multi_objective_aggregation": "normalize_then_sum"},
                                          more={"reward_funcs": [of_length, sometimes_right]}),
    "rewards that are missing": plain(more={"reward_funcs": none_for_some}),
    "asynchronous rewards": plain(more={"reward_funcs": later}),
    "groups that agree": Case({"per_device_train_batch_size": 16}, more={"reward_funcs": sometimes_right}),
    # sampling
    "temperature": plain("temperature", 0.7),
    "top_p and top_k": Case({"top_p": 0.9, "top_k": 20, "generation_kwargs": {}}),
    "min_p": Case({"min_p": 0.9, "generation_kwargs": {}}),
    "repetition penalty": plain("repetition_penalty", 1.5),
    "min_new_tokens": plain("generation_kwargs", ENDS | {"min_new_tokens": 4}),
    "forbidden words": plain("generation_kwargs", ENDS | {"bad_words_ids": [[30], [31, 32]]}),
    "no cache asked for": plain("generation_kwargs", ENDS | {"use_cache": False}),
    "no cache, says the checkpoint": plain(own={"use_cache": False}),
    "top_k, says the checkpoint": plain(own={"top_k": 5, "temperature": 0.3}),
    "truncated completions masked": plain("mask_truncated_completions", True),
    "prompts padded to a multiple": plain("pad_to_multiple_of", 16),
    "order not shuffled": plain("shuffle_dataset", False),
    "rollout function": plain(pictures=0, more={"rollout_func": one_rollout_each}),
    # how it is computed
    "two micro-batches": Case(TWO),
    **{f"two micro-batches, {loss}": Case(TWO | {"loss_type": loss})
       for loss in ("grpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo")},
    "two micro-batches, beta, twice": Case(TWO | {"beta": 0.04, "num_iterations": 2}, lora={}),
    "an update after two batches": Case({"gradient_accumulation_steps": 2, "steps_per_generation": 1}),
    "generation_batch_size": Case({"gradient_accumulation_steps": 2, "generation_batch_size": 8}),
    "gradient checkpointing": plain("gradient_checkpointing", True),
    "gradient checkpointing, LoRA": plain("gradient_checkpointing", True, lora={}),
    "gradient checkpointing, re-entrant": Case({"gradient_checkpointing": True,
                                                "gradient_checkpointing_kwargs": {"use_reentrant": True}}, lora={}),
    "head in fp32": plain("cast_lm_head_to_fp32", True),
    "evaluation": Case({"num_generations_eval": 2, "per_device_eval_batch_size": 4}, evaluates=True),
    # adapters
    "LoRA": plain(lora={}),
    "LoRA, text": plain(lora={}, family="qwen3"),
    "LoRA with a bias": plain(lora={"lora_bias": True, "target_modules": r".*layers.*\.(q|v)_proj"}),
    "DoRA": plain(lora={"use_dora": True}),
    "rank-stabilised LoRA": plain(lora={"use_rslora": True}),
    "LoRA on a tied embedding": plain(lora={"target_modules": r".*(layers.*\.q_proj|embed_tokens)"},
                                      model={"tie_word_embeddings": True}),
    "LoRA on the vision tower": plain(lora={"target_modules": r".*(visual.*\.(qkv|fc1)|layers.*\.q_proj)"}),
    "LoRA dropout switched off": plain("disable_dropout", True, lora={"lora_dropout": 0.5}),
}  # fmt: skip

LEFT = {
    "another family": (plain(family="mistral"), "family mistral"),
    "eager attention": (plain(prepare=lambda model: model.set_attn_implementation("eager")), "eager attention"),
    "sliding window": (plain(family="qwen2", model={"use_sliding_window": True, "sliding_window": 8,
                                                    "max_window_layers": 0}), "sliding-window"),
    "positions by length": (plain(family="llama", model={"rope_parameters": {
        "rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}, "max_position_embeddings": 16}), "type dynamic"),
    "attention dropout": (plain(family="qwen2", model={"attention_dropout": 0.1}), "dropout"),
    "LoRA dropout": (plain(lora={"lora_dropout": 0.1}), "dropout"),
    "IA3": (plain(lora=IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"],
                                 task_type="CAUSAL_LM")), "kind IA3"),
    "prefix tuning": (plain(lora=PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"), family="qwen2"),
                      "kind PREFIX_TUNING"),
    "beams": (plain("generation_kwargs", {"num_beams": 2}), "num_beams"),
    "static cache": (plain("cache_implementation", "static"), "cache_implementation"),
    "beams, says the checkpoint": (plain(own={"num_beams": 2}), "num_beams"),
    "groups over two micro-batches": (Case({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}),
                                      "whole groups"),
    "several steps a batch": (Case({"steps_per_generation": 4, "per_device_train_batch_size": 4}), "an update is on"),
    "bnpo, two micro-batches": (Case(TWO | {"loss_type": "bnpo"}), "bnpo"),
    "entropy bonus, two micro-batches": (Case(TWO | {"entropy_coef": 0.05}), "entropy bonus"),
    "quantile, two micro-batches": (Case(TWO | {"top_entropy_quantile": 0.3}), "top_entropy_quantile"),
    "prompts that differ": (plain(pictures=0, more={"rollout_func": differing}), "the prompts of a group differ"),
    "environment": (plain(family="qwen2", more={"environment_factory": Scene}), "environments"),
    "tools": (plain(family="qwen2", more={"tools": [tool]}), "tools"),
}  # fmt: skip


@pytest.fixture(scope="module")
def processor():
    return load_processor("nano-s")


def rows(case):
    """Prompts of unequal length, pictures of unequal shape; one question twice about two pictures of one size."""
    counts, made = case.pictures if isinstance(case.pictures, tuple) else (case.pictures,) * 4, []
    for index, count in enumerate([0] * 4 if case.family in TEXT_MODELS else counts):
        size = (64, 64) if index < 2 else (96, 32)
        images = [Image.frombytes("RGB", size, random.Random(10 * index + k).randbytes(3 * size[0] * size[1]))
                  for k in range(count)]  # fmt: skip
        text = "what is this" + " and that" * (3 + max(index, 1) + 3 * (not count))
        content = [{"type": "image", "text": None}] * count + [{"type": "text", "text": text}]
        row = {"prompt": [{"role": "user", "content": content}]}
        made.append(row | ({"images": images} if images else {}))
    return Dataset.from_list(made)


def run(kind, case, processor, folder):
    """The trainer, its log and its weights after two steps of SGD."""
    model, reads = tiny(case.family, processor, **case.model)
    model.config._name_or_path = str(folder / "start")
    if case.options.get("beta") and case.lora is None:
        model.save_pretrained(folder / "start")  # stock TRL reads the reference from there
    for name, value in case.own.items():
        setattr(model.generation_config, name, value)
    if case.prepare:
        case.prepare(model)
    if case.family in TEXT_MODELS:
        reads.chat_template = qwen3_chat_template if {"tools", "environment_factory"} & case.more.keys() else TEMPLATE
    lora = case.lora
    if isinstance(lora, dict):
        lora = LoraConfig(**{"r": 4, "target_modules": PROJECTIONS, "init_lora_weights": False} | lora)
    options = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8,
        "max_steps": 2, "learning_rate": 1e-2, "optim": "sgd", "lr_scheduler_type": "constant", "report_to": [],
        "use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1,
        "gradient_checkpointing": False, "generation_kwargs": ENDS, **case.options,
    }  # fmt: skip
    data, Scene.number = rows(case), 0
    trainer = kind(**{"model": model, "reward_funcs": of_length, "args": GRPOConfig(**options), "peft_config": lora,
                      "train_dataset": data, "eval_dataset": data if case.evaluates else None,
                      "processing_class": reads, **case.more})  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    before = {name: part.detach().clone() for name, part in trainer.model.named_parameters()}
    trainer.train()
    if case.evaluates:
        trainer.evaluate()
    weights = {name: part.detach() for name, part in trainer.model.named_parameters()}
    moved = max(float((weights[name] - part).abs().max()) for name, part in before.items())
    return trainer, trainer.state.log_history, weights, moved


def assert_equal(stock, ours, within, left_out=()):
    """Every logged number but times, and the weights."""
    (_, log, weights, _), (_, our_log, our_weights, _) = stock, ours
    assert len(log) == len(our_log)
    for row, our_row in zip(log, our_log, strict=True):
        assert row.keys() == our_row.keys()
        names = [name for name in row if not any(part in name for part in (*TIMES, *left_out))]
        assert [our_row[n] for n in names] == pytest.approx(
            [row[n] for n in names], abs=within, rel=within, nan_ok=True
        )
    assert max(float((part - our_weights[name]).abs().max()) for name, part in weights.items()) <= within


@pytest.fixture
def packed(monkeypatch):
    """How many groups went through the model packed."""
    seen, usual = [], SharedPrefixTrainer._group_logps
    counted = lambda self, *args: seen.append(1) or usual(self, *args)  # noqa: E731
    monkeypatch.setattr(SharedPrefixTrainer, "_group_logps", counted)
    return seen


@pytest.mark.parametrize("case", SHARED.values(), ids=SHARED)
def test_shared_prompts_give_stock_trls_numbers(case, processor, tmp_path, packed, caplog):
    stock, ours = (run(kind, case, processor, tmp_path) for kind in (GRPOTrainer, SharedPrefixTrainer))
    several = stock[0].args.steps_per_generation > 1
    assert_equal(stock, ours, WITHIN, OF_A_MICRO_BATCH if several else ())
    assert stock[3] > 10 * WITHIN  # something was learnt
    assert packed and "as in stock TRL" not in caplog.text


@pytest.mark.parametrize(("case", "reason"), LEFT.values(), ids=LEFT)
def test_all_else_is_left_to_stock_trl_with_one_message(case, reason, processor, tmp_path, packed, caplog):
    stock, ours = (run(kind, case, processor, tmp_path) for kind in (GRPOTrainer, SharedPrefixTrainer))
    assert_equal(stock, ours, 0 if case.more.get("rollout_func") is None else WITHIN)
    (message,) = [line for line in caplog.messages if "as in stock TRL" in line]
    assert reason in message and not packed
