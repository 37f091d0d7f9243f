"""Models: one way to load a bundled checkpoint, a folder or a hub model, with its processor."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import bitsandbytes as bnb
import datasets
import torch
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import logging

from rftkit.common.adapters import adapter_errors, adapter_shapes, refuse_misfit, tell_of_other_base
from rftkit.common.errors import UserError, as_user_error, said
from rftkit.common.hub import asked_once
from rftkit.common.paths import BUNDLED, model_folder
from rftkit.common.processor import FAMILIES, IMAGE_TOKEN, ImageTextProcessor

LORA_TARGETS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
# What a model's folder has beside its weights, each under one of these names; the first two kinds cannot be missed.
FILES = (("tokenizer.json", "vocab.json"), ("processor_config.json", "preprocessor_config.json"),
         ("config.json",), ("generation_config.json",), ("tokenizer_config.json",))  # fmt: skip
# Quantising the vision tower or the head breaks training; the names are matched from the start.
KEEP_PRECISION = ["model.visual", "lm_head"]


def resolve(name: str) -> str:
    """Where a model is: a bundled name, a folder with a config.json, or (the user named it) a hub id."""
    if folder := model_folder(name):
        return str(folder)
    if Path(name).exists() or name.count("/") != 1 or name.startswith("."):
        bundled = ", ".join(sorted(path.parent.name for path in BUNDLED.glob("*/config.json")))
        raise UserError(
            f"no model '{name}': name a bundled one ({bundled}), a folder with a config.json, or a hub id 'owner/name'"
        )
    return name


def quieten() -> None:
    """Silence what the libraries say about each other, and the bars of their short work."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def pick_device() -> str:
    """`cuda` if there is one, else `cpu` (training on Apple's GPU is not tested, so it is not picked)."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def quantization_config() -> BitsAndBytesConfig:
    """NF4 with double quantisation (QLoRA, arXiv 2305.14314), vision tower and head left as they are."""
    compute = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=KEEP_PRECISION,
    )


def lora_config(rank: int) -> LoraConfig:
    """LoRA on every projection of the language model. No dropout: TRL samples in train mode."""
    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=LORA_TARGETS, task_type="CAUSAL_LM")


def load_processor(name: str) -> ProcessorMixin:
    """The processor of a model, padding on the left (right padding misaligns TRL's image positions)."""
    processor = read(ImageTextProcessor.from_pretrained, name)
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if processor.chat_template is None and tokenizer.chat_template is None:
        raise UserError(f"model '{name}' has no chat template: use an instruction-tuned checkpoint")
    if tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) in (None, tokenizer.unk_token_id):
        raise UserError(f"model '{name}' has no {IMAGE_TOKEN} token: rftkit trains models of the Qwen-VL families")
    try:
        text = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
    except Exception as error:  # a template is a program: it may raise anything
        raise UserError(f"the chat template of model '{name}' cannot be used: {error}") from error
    if text.count(IMAGE_TOKEN) != 1:
        raise UserError(f"the chat template of model '{name}' does not write {IMAGE_TOKEN} where a picture stands")
    return processor


def limit_pixels(processor: ProcessorMixin, least: int | None, most: int | None) -> None:
    """Have the processor scale pictures to so many pixels, about, from now on; None: the model's own limit.

    Nothing else scales a picture: what is saved with a model (`preprocessor_config.json`) scales as its run did.
    """
    size = processor.image_processor.size
    least = least or min(size["shortest_edge"], most or size["shortest_edge"])
    size["shortest_edge"], size["longest_edge"] = least, most or max(least, size["longest_edge"])


def load(
    name: str,
    *,
    adapter: str | None = None,
    quantize: bool = False,
    device: str | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[PreTrainedModel | PeftModel, ProcessorMixin]:
    """A model in evaluation mode, its weights frozen, and its processor, read from safetensors only.

    Args:
        name: see `resolve`.
        adapter: a folder with a LoRA adapter to put on top.
        quantize: load the language model in NF4.
        device: `cpu` or `cuda`; picked if None.
        dtype: of the weights; None: fp32 on a CPU (greedy answers differ in bf16), bf16 on a GPU.
    """
    device = device or pick_device()
    if device not in ("cpu", "cuda"):
        raise UserError(f"unknown device '{device}': choose one of cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no GPU that torch can use (see rftkit doctor): choose device cpu")
    check_adapter(adapter, name)
    processor = load_processor(name)
    check_family(name, read(AutoConfig.from_pretrained, name))
    model, info = read(
        AutoModelForImageTextToText.from_pretrained,
        name,
        dtype=dtype or (torch.float32 if device == "cpu" else torch.bfloat16),
        use_safetensors=True,
        device_map=device if device == "cpu" else {"": torch.cuda.current_device()},  # of several processes, its own
        quantization_config=quantization_config() if quantize else None,
        output_loading_info=True,
    )
    if missing := sorted(info["missing_keys"]):  # they would be random numbers
        raise UserError(f"cannot read model '{name}': its weights lack {len(missing)} parts, such as {missing[0]}")
    if model.generation_config.eos_token_id is None:
        raise UserError(f"model '{name}' has no end token: its generation_config.json lacks eos_token_id")
    for module in model.modules():
        # bitsandbytes 0.50 repacks weights in place in an eval forward on AVX512-BF16 CPUs, and the packed kernel
        # has no backward: gradients would silently be None afterwards.
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    if adapter is not None:
        with adapter_errors(adapter):
            model = PeftModel.from_pretrained(model, adapter)
        tell_of_other_base(str(adapter), name, resolve(name))
    return model.eval().requires_grad_(False), processor


def check_family(name: str, config: PretrainedConfig) -> None:
    """UserError if the model called `name` is of another kind than those that are tested."""
    if config.model_type not in FAMILIES:
        raise UserError(f"model '{name}' is of the family {config.model_type}: choose one of {', '.join(FAMILIES)}")
    if "sliding_attention" in getattr(config.get_text_config(), "layer_types", ()):
        raise UserError(
            f"model '{name}' attends by a sliding window: set use_sliding_window to false in its config.json"
        )


def check_adapter(adapter: str | None, name: str) -> None:
    """UserError if an adapter cannot be put on the model called `name`, from files and shapes: no weight is read."""
    if adapter is not None:
        shapes = adapter_shapes(adapter)
        with torch.device("meta"):
            refuse_misfit(adapter, shapes, read(_unloaded, name))


def _unloaded(path: str) -> PreTrainedModel:
    return AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(path))


def read(reader, name: str, **options):
    """What a `from_pretrained` makes of a model's name: see `resolve`."""
    path = resolve(name)
    try:
        with asked_once(path, "model", "name a folder with a copy of it"):
            return reader(path, **options)
    except Exception as error:  # the libraries raise all kinds of errors on files that are not as they should be
        if as_user_error(error):  # of the memory, the disk, the network
            raise
        reason = said(error).partition(". If you were")[0]
        if isinstance(error, SafetensorError) or "ignore_mismatched_sizes" in reason:
            reason = "its weights are truncated, or do not fit its config.json"
        raise UserError(f"cannot read model '{name}': {_broken_file(Path(path)) or reason}") from error


def _broken_file(folder: Path) -> str | None:
    """Which of a folder's JSON files is truncated or missing; the libraries seldom say it. None if none is."""
    for number, names in enumerate(FILES):
        there = [folder / name for name in names if (folder / name).is_file()]
        if not there and folder.is_dir() and number < 2:
            return f"it has no {names[0]}"
        for file in there:
            try:
                whole = isinstance(json.loads(file.read_bytes()), dict)
            except (ValueError, RecursionError):
                whole = False
            if not whole:
                return f"its {file.name} is truncated, or no JSON object"
    return None
