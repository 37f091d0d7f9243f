"""For what sharing prompts is proved to give stock TRL's numbers: `tests/test_trl_suite.py` compares each with stock.

All else is left to stock TRL. To add something, add its pair of runs there first.
"""

from __future__ import annotations

from peft import PeftModel, PeftType
from torch import nn
from transformers import GenerationConfig
from trl import GRPOTrainer

from rftkit.common.processor import FAMILIES
from rftkit.shared_prefix.vision import unwrapped

TEXT_FAMILIES = ("qwen2", "qwen3", "llama")
# Eager attention adds a mask where it should hide by it; flash attention takes none of this kind.
ATTENTION = ("sdpa",)
POSITIONS = ("default", "llama3", "linear", "yarn")  # the others depend on how long a sequence is
QUANTISED = (None, "bitsandbytes")  # the latter to what bf16 rounds
# Options of generate() besides its ends and TRL's own, which are read from a checkpoint's config, too.
GENERATION = {
    "max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
    "suppress_tokens", "bad_words_ids", "sequence_bias", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id",
    "transformers_version",
}  # fmt: skip


def why_not(trainer: GRPOTrainer) -> str:
    """Why a trainer's prompts are not shared, in words that follow a colon; empty if they are."""
    reasons = (check(trainer) for check in (_sampling, _model, _adapter, _generation, _order))
    return next(filter(None, reasons), "")


def _sampling(trainer: GRPOTrainer) -> str:
    """What samples or runs the model in another way."""
    args = trainer.args
    others = {
        "vLLM shares prefixes by itself": trainer.use_vllm,
        "continuous batching is not supported": trainer.use_transformers_continuous_batching,
        "tools are not supported": trainer.tools,
        "environments are not supported": trainer.environment_factories,
        "DeepSpeed and FSDP are not supported": trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled,
        "a compiled model is not supported": args.torch_compile,
    }
    return next((reason for reason, there in others.items() if there), "")


def _model(trainer: GRPOTrainer) -> str:
    model = unwrapped(trainer.model)
    config = model.config.get_text_config()
    if model.config.model_type not in (*FAMILIES, *TEXT_FAMILIES):
        return f"models of the family {model.config.model_type} are not supported"
    if config._attn_implementation not in ATTENTION:
        return f"{config._attn_implementation} attention takes no block mask; load the model with sdpa"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "sliding-window attention is not supported"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in POSITIONS:
        return f"positions of the type {rope} depend on how long a sequence is"
    method = getattr(getattr(model, "quantization_method", None), "value", None)
    if method not in QUANTISED:
        return f"weights quantised by {method} are not supported"
    if getattr(config, "attention_dropout", 0) or any(
        isinstance(part, nn.Dropout) and part.p for part in trainer.model.modules()
    ):
        return "dropout draws for each completion of its own"
    return ""


def _adapter(trainer: GRPOTrainer) -> str:
    configs = trainer.model.peft_config.values() if isinstance(trainer.model, PeftModel) else ()
    kinds = {config.peft_type for config in configs} - {PeftType.LORA}
    return f"adapters of the kind {kinds.pop().value} are not supported" if kinds else ""


def _generation(trainer: GRPOTrainer) -> str:
    usual = GenerationConfig._get_default_generation_params()
    asked = unwrapped(trainer.model).generation_config.to_diff_dict() | trainer.generation_kwargs
    others = [name for name, value in asked.items() if value not in (None, False, usual.get(name))]
    others = [name for name in others if name not in GENERATION and not name.startswith("_")]
    return f"generation with {', '.join(sorted(others))} is not supported" if others else ""


def _order(trainer: GRPOTrainer) -> str:
    """What depends on which completions share a micro-batch: those of a group (ours) or any (stock TRL's)."""
    args, steps = trainer.args, trainer.args.steps_per_generation
    if steps > 1 and args.gradient_accumulation_steps % steps:
        return "an update is on some of the sampled completions, and stock TRL picks which"
    extras = {
        "the entropy bonus": trainer._entropy_bonus_enabled,
        "top_entropy_quantile": trainer.top_entropy_quantile < 1,
    }
    on = [name for name, on in extras.items() if on]
    return why_not_these(args.per_device_train_batch_size, trainer.num_generations, steps, trainer.loss_type, *on)


def why_not_these(micro_batch: int, size: int, micro_batches: int, loss: str, *extras: str) -> str:
    """Why prompts of groups of `size` are not shared in micro-batches of so many completions; empty if they are.

    Args:
        micro_batches: how many of them hold what was sampled together.
        loss, extras: what the loss is made of, by name.
    """
    if micro_batch % size:
        return "a micro-batch does not hold whole groups"
    means = [*(["the loss bnpo"] if loss == "bnpo" else []), *extras]
    if micro_batches > 1 and means:
        return f"{means[0]} depends on which completions share a micro-batch"
    return ""
