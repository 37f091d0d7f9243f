"""LoRA adapters on disk, looked at before a model is loaded: their files, and whether they fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors import SafetensorError, safe_open
from torch import nn

from rftkit.common.errors import UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def adapter_shapes(adapter: str) -> dict[str, list[int]]:
    """The shape of each weight of an adapter by its name; UserError if its files cannot be used. No weight is read."""
    for file in (CONFIG, WEIGHTS):  # peft would look for them on the hub
        if not (Path(adapter) / file).is_file():
            raise UserError(f"no adapter in '{adapter}': the folder has no {file}")
    with adapter_errors(adapter):
        kind = json.loads((Path(adapter) / CONFIG).read_text())["peft_type"]
        PEFT_TYPE_TO_CONFIG_MAPPING[kind].from_pretrained(adapter)
        with safe_open(Path(adapter) / WEIGHTS, "pt") as weights:
            return {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118


def refuse_misfit(adapter: str, shapes: dict[str, list[int]], network: nn.Module) -> None:
    """UserError if a network's layers take vectors of other lengths than the adapter was trained on."""
    parts = dict(network.named_modules())
    for key, shape in shapes.items():
        part, lora, _ = key.removeprefix("base_model.model.").partition(".lora_A")
        if lora and part in parts and parts[part].in_features != shape[1]:
            there = f"{part} takes {parts[part].in_features} numbers and the adapter {shape[1]}"
            raise UserError(f"cannot put adapter '{adapter}' on this model, it was trained on another one: {there}")


@contextmanager
def adapter_errors(adapter: str) -> Iterator[None]:
    """What peft and safetensors raise on an adapter, in one line."""
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        if isinstance(error, LookupError):
            reason = f"its adapter_config.json lacks or has an unknown {reason}"
        raise UserError(f"cannot put adapter '{adapter}' on this model: {reason}") from error
