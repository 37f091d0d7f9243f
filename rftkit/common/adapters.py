"""LoRA adapters on disk: their files, whether they fit a model, and whether they were trained on it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors import SafetensorError, safe_open
from torch import nn

from rftkit.common.errors import UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "trained_on.json"  # beside an adapter: the model below it, and the digest of that model's weights
ROWS = 16  # of each weight, in the digest


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


def weights_digest(path: str) -> str:
    """A digest of a model's weights: shape, type and first rows of each, under whatever names in however many files.

    Args:
        path: the model's folder, or the hub id of one that was read before. OSError, ValueError if it is neither.
    """
    folder = path if Path(path).is_dir() else snapshot_download(path, local_files_only=True)
    found = set()
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118
                part = weights.get_slice(key)
                rows = part[:ROWS] if part.get_shape() else weights.get_tensor(key)[None]
                words = f"{part.get_dtype()} {part.get_shape()}".encode()
                found.add(hashlib.sha256(words + rows.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest())
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()


def record_base(adapter: Path, name: str, path: str) -> None:
    """Write beside an adapter which model it was trained on: the one called `name`, which lies in `path`."""
    with suppress(OSError, ValueError, SafetensorError):  # a trained run does not end for want of a note
        (adapter / BASE).write_text(json.dumps({"model": Path(name).name, "weights_sha256": weights_digest(path)}))


@lru_cache  # once, however often they are loaded
def tell_of_other_base(adapter: str, name: str, path: str) -> None:
    """A line on stderr if an adapter was trained on other weights than the model's. Nothing if it does not say."""
    try:
        trained_on = json.loads((Path(adapter) / BASE).read_text())
        before, same = trained_on["model"], trained_on["weights_sha256"] == weights_digest(path)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError):  # it comes from elsewhere
        return
    if not same:
        print(f"adapter '{adapter}' was trained on other weights ({before}) than those of '{name}'", file=sys.stderr)
