"""What `rftkit bench` compares: two trainers with a clock, and the models they train.

Models are the bundled ones, and random weights in the shapes of Qwen2-VL.
"""

from __future__ import annotations

import copy
import io
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import pydantic
import torch
from pydantic import Field
from transformers import (
    AutoConfig,
    GenerationConfig,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from rftkit.common.validation import STRICT, Whole
from rftkit.memory.model_sizes import HUB, SIZES
from rftkit.models import ImageTextProcessor, load, lora_config, quieten, resolve
from rftkit.nano.build import build_model, build_processor, picture_tokens
from rftkit.shared_prefix.sharing import SharedPrefixTrainer
from rftkit.tasks.example import Example
from rftkit.tasks.late import open_late
from rftkit.tasks.worlds import SIDE
from rftkit.trainer import training_rows

SEED = 0
TOKENS = {"no_thinking": 8, "thinking": 64, "think_after_answer": 64}  # of each completion
PHASES = ["step", "sampling", "scoring", "update"]
COUNTS = ["vision_rows", "lm_tokens"]


@dataclass(frozen=True)
class Preset:
    """A model and how many prompts of it a step has."""

    prompts: int  # a step, in one micro-batch
    side: int = SIDE  # pixels of a picture
    config: Qwen2VLConfig | None = None  # the sizes of one with random weights; None: a bundled size
    needs_gpu: bool = False


PRESETS = {
    "nano-s": Preset(prompts=8),
    "nano-m": Preset(prompts=8),
    "cpu-100m": Preset(prompts=2, side=392, config=AutoConfig.for_model(**SIZES["bench"]["cpu-100m"])),
    "2b": Preset(prompts=4, side=384, config=HUB["Qwen/Qwen2-VL-2B-Instruct"], needs_gpu=True),
    "7b": Preset(prompts=4, side=384, config=HUB["Qwen/Qwen2-VL-7B-Instruct"], needs_gpu=True),
}


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Options:
    """What is measured. `pairs` counts timed pairs of steps, after one that warms up; `group` completions a prompt."""

    preset: Literal[tuple(PRESETS)] = "nano-m"
    mode: Literal[tuple(TOKENS)] = "no_thinking"
    group: Whole = Field(8, ge=2, le=1024)
    pairs: Whole = Field(5, ge=1, le=10**4)
    quantize: bool = False
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        """ValueError on what cannot be measured here."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("there is no GPU that torch can use (see rftkit doctor): choose device cpu")
        if self.device == "cpu" and PRESETS[self.preset].needs_gpu:
            raise ValueError(f"preset '{self.preset}' needs a GPU: on this machine choose nano-s, nano-m or cpu-100m")


def save_model(name: str, folder: Path) -> str:
    """Write a preset's model and processor into a folder (random weights, seed 0) and return where they are.

    `nano-s` is a copy of the bundled checkpoint.
    """
    if name == "nano-s":
        return str(shutil.copytree(resolve(name), folder, dirs_exist_ok=True))
    preset, processor = PRESETS[name], build_processor()
    torch.manual_seed(0)
    if preset.config is None:
        model = build_model(name.removeprefix("nano-"), processor)
    else:
        model = _build(preset, processor.tokenizer)
        images = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=1280 * 28 * 28)  # patches as in Qwen2-VL
        processor = ImageTextProcessor(images, processor.tokenizer, chat_template=processor.chat_template)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def _build(preset: Preset, tokenizer) -> Qwen2VLForConditionalGeneration:
    """Random weights in a preset's sizes, with the bundled tokenizer's special tokens."""
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = copy.deepcopy(preset.config)
    half = config.text_config.hidden_size // config.text_config.num_attention_heads // 2  # rotary frequencies of a head
    height = width = 3 * half // 8
    sections = [half - height - width, height, width]  # 16, 24, 24 in Qwen2-VL
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    config.text_config.update(ends | {"bos_token_id": None, "max_position_embeddings": 32768, "rope_parameters": rope})
    config.update(picture_tokens(tokenizer))
    device, dtype = ("cuda", torch.bfloat16) if preset.needs_gpu else ("cpu", torch.float32)
    with torch.device(device):
        model = Qwen2VLForConditionalGeneration._from_config(config, dtype=dtype)
    model.generation_config = GenerationConfig(**ends)
    return model


class Timed(TrainerCallback):
    """Mixin of a GRPO trainer that splits the seconds of a step into sampling, scoring and update.

    Scoring is what comes between: fetching data, preprocessing, rewards and advantages. It also counts the patches the
    vision tower and the tokens the language model is run on.
    """

    def __init__(self, **arguments) -> None:
        self.found = dict.fromkeys([*PHASES, *COUNTS], 0)  # of the step that runs
        super().__init__(**arguments)
        self.rows = arguments["train_dataset"]
        self.add_callback(self)  # it is told of the end of its own steps
        inner = self.model.get_base_model().model
        inner.visual.register_forward_pre_hook(self._count_patches, with_kwargs=True)
        inner.language_model.register_forward_pre_hook(self._count_tokens, with_kwargs=True)

    def _count_patches(self, module, args, kwargs) -> None:
        self.found["vision_rows"] += len(args[0] if args else kwargs["hidden_states"])

    def _count_tokens(self, module, args, kwargs) -> None:
        rows, width = kwargs["inputs_embeds"].shape[:2]
        self.found["lm_tokens"] += rows * width

    def one_step(self, step: int, size: int) -> dict[str, float]:
        """One optimizer step on the `size` prompts of that step; its seconds by phase and its counts."""
        self.found = dict.fromkeys(self.found, 0)
        self.train_dataset = self.rows.select(range(step * size, (step + 1) * size))
        torch.manual_seed(SEED + step)
        with redirect_stdout(io.StringIO()):  # the trainers' own log
            self.train()
        return self.found

    @contextmanager
    def _clock(self, phase: str) -> Iterator[None]:
        began = _now()
        yield
        self.found[phase] += _now() - began

    def get_batch_samples(self, *args, **kwargs):
        self.began = _now()
        with self._clock("scoring"):
            return super().get_batch_samples(*args, **kwargs)

    def _generate(self, *args, **kwargs):
        with self._clock("sampling"):
            return super()._generate(*args, **kwargs)

    def _generate_and_score_completions(self, *args, **kwargs):
        with self._clock("scoring"):
            return super()._generate_and_score_completions(*args, **kwargs)

    def on_step_end(self, args, state, control, **kwargs):
        self.found["step"] = _now() - self.began
        self.found["update"] = self.found["step"] - self.found["scoring"]
        self.found["scoring"] -= self.found["sampling"]  # which went on within it


class StockTrainer(Timed, GRPOTrainer):
    """TRL as it is."""


class OurTrainer(Timed, SharedPrefixTrainer):
    """TRL with the prompt and the image computed once per group."""


KINDS = {"stock": StockTrainer, "ours": OurTrainer}


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def reward(completions, **_) -> list[float]:
    """A reward that differs from text to text, so that every group teaches something."""
    return [zlib.crc32(completion[0]["content"].encode()) % 1000 / 1000 for completion in completions]


def make_trainer(kind: str, options: Options, folder: str, examples: list[Example]) -> Timed:
    """`stock` or `ours`, of the model in `folder`: LoRA, SGD, no checkpointing, completions of one length."""
    tokens = TOKENS[options.mode]
    on_cpu = options.device == "cpu"
    model, processor = load(folder, quantize=options.quantize, device=options.device)
    torch.manual_seed(SEED)  # of the adapter
    # Completions of one length, without the tokens of pictures, which random weights may say.
    pictures = [model.config.image_token_id, model.config.video_token_id]
    arguments = GRPOConfig(
        output_dir=str(Path(folder) / "unused"), max_steps=1, learning_rate=1e-2, optim="sgd", seed=SEED,
        lr_scheduler_type="constant", report_to=[], save_strategy="no", disable_tqdm=True, shuffle_dataset=False,
        per_device_train_batch_size=PRESETS[options.preset].prompts * options.group, num_generations=options.group,
        max_completion_length=tokens, gradient_checkpointing=False, use_cpu=on_cpu, bf16=not on_cpu,
        dataloader_pin_memory=not on_cpu, logging_steps=1000,
        generation_kwargs={"min_new_tokens": tokens, "suppress_tokens": pictures},
    )  # fmt: skip
    trainer = KINDS[kind](
        model=model, reward_funcs=reward, args=arguments, train_dataset=training_rows(examples, options.mode),
        processing_class=processor, peft_config=lora_config(16),
    )  # fmt: skip
    trainer.data_collator = open_late(trainer.data_collator, examples)
    return trainer


def peak_of_two_steps(kind: str, options: Options, folder: str, examples: list[Example]) -> int:
    """The most bytes that a trainer needs: allocated on a GPU, on a CPU resident in this process, of its own."""
    quieten()
    trainer = make_trainer(kind, options, folder, examples)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for step in range(2):
        trainer.one_step(step, PRESETS[options.preset].prompts)
    if options.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resident_peak()


def resident_peak() -> int:
    """The most bytes of main memory that this process has had."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
