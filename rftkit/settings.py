"""Settings of a run: command line over notebook over profile, one flat dataclass."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from rftkit.common.errors import UserError, within
from rftkit.common.paths import DATA
from rftkit.profiles import base_model, load_profile
from rftkit.prompts import MODES
from rftkit.rewards import get_rule
from rftkit.tasks.example import PROTOCOLS, TASK_RULES, ExampleSet
from rftkit.tasks.images import MAX_PIXELS
from rftkit.tasks.registry import bundled_sets, open_set, short_name, why_not


@dataclass(frozen=True)
class Method:
    """How a model is trained: the mode it trains and answers in, the trainer, and its place in the tables."""

    name: str
    title: str
    mode: str
    trainer: str | None  # `sft`, `grpo` or None
    paper: str | None  # the row of the paper's tables


METHODS = {
    method.name: method
    for method in (
        Method("zero_shot", "Zero-shot", "no_thinking", None, "Qwen2-VL-2B zero-shot"),
        Method("sft", "SFT, loss on the answer", "no_thinking", "sft", None),
        Method("sft_all", "SFT, loss on all tokens", "no_thinking", "sft", "SFT"),
        Method("cls_rl", "CLS-RL (thinking)", "thinking", "grpo", "Thinking-RFT"),
        Method("no_thinking_rl", "No-Thinking-RL", "no_thinking", "grpo", "No-Thinking-RFT"),
        Method("think_after_answer", "Think-After-Answer", "think_after_answer", "grpo", "Think-After-Answer"),
        Method("adaptive", "Adaptive-Thinking", "adaptive", "grpo", "Adaptive-Thinking"),
    )
}

SCENE_TOKENS = 64  # of a completion in a drawn task, if not given: its thoughts are longer
# The losses of TRL whose log-probs and importance ratios are those of the paper's GRPO.
LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo")
TRACKERS = (None, "wandb", "trackio", "tensorboard", "mlflow")
REWARDS = ("mode", "accuracy", "format", "random")
REJECTED = (None, "model", "random")
# The least and the most of numbers; of whole ones not named here: one and a million. Beyond it nothing would run.
BOUNDS = dict.fromkeys(("val_items", "pass_items", "eval_every", "lora_rank", "beta"), (0, 10**6))
BOUNDS |= dict.fromkeys(("seed", "shots_seed", "test_seed"), (0, 2**32 - 1))
BOUNDS |= dict.fromkeys(("max_pixels", "min_pixels"), (1, MAX_PIXELS)) | {"num_generations": (2, 10**6)}


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's numbers. One instance is one run."""

    profile: str = "nano"  # name of the profile the defaults came from
    task: str = "classification"  # what is asked
    dataset: str = "shapes"  # a bundled set, a folder, or a real set: hub:NAME or NAME@DIR
    eval_dataset: str | None = None  # another set of the same task to test on; None: the one that is trained on
    # Train on base classes, test both halves; new_to_base: swapped; few_shot: all classes; open_set: so without lists.
    protocol: str = "base_to_new"
    method: str = "no_thinking_rl"  # how the model is trained
    control: str | None = None  # a control of data/claims.yaml, which changes the method; None: the method itself
    model: str = "nano-s"  # bundled name, folder or hub id; a profile may have a list: seeds take them in turn
    seed: int = 0  # of training: adapter initialisation, sampling, order
    shots_seed: int | None = None  # which shots and choice lists are drawn; None: the training seed
    test_seed: int = 0  # which test items are drawn; keep it to compare runs
    shots: int = 4  # classification: training images a class
    train_items: int = 512  # other tasks: training images in all
    test_items: int = 1000  # test images a half (fewer where a set of real pictures has fewer)
    val_items: int = 200  # held-out base images for choosing steps and learning rate, and for curves
    pass_items: int = 100  # test images a half for pass@8 (eight samples each)
    scoring: str = "strict"  # rule of the training reward and the headline accuracy; not given: the task's own
    steps: int = 60  # optimizer steps
    epochs: int | None = None  # passes over the training examples, which then decide the steps
    learning_rate: float = 1e-3  # of AdamW, constant
    prompts_per_step: int = 8  # GRPO: questions an optimizer step
    num_generations: int = 8  # GRPO: completions a question (the group size G)
    sft_batch: int = 32  # SFT: examples an optimizer step
    micro_batch: int = 64  # sequences in memory at once while training
    eval_batch: int = 250  # prompts in memory at once while evaluating
    max_completion_tokens: int = 40  # tokens, in modes with tags
    max_answer_tokens: int = 12  # tokens, in the mode without
    temperature: float = 1.0  # of sampling in training and pass@8
    beta: float = 0.0  # weight of the KL term; the paper's 0.04 costs a reference pass
    reward: str = "mode"  # GRPO: what is rewarded. mode: accuracy, and format if there is one; accuracy, format, random
    negatives: bool = True  # GRPO: false learns from right completions only, each with advantage 1 (RAFT)
    rejected: str | None = None  # SFT on the answer: a wrong one beside it, for DPO, the model's own (model) or random
    loss_type: str = "grpo"  # TRL's name; grpo is the paper's mean over each completion's tokens
    lora_rank: int = 16  # 0: full fine-tuning
    quantize: bool = False  # NF4 base model (QLoRA)
    gradient_checkpointing: bool = False  # less memory, a third more time
    share_prefix: bool = True  # GRPO: prompt and image once per group; false: stock TRL
    max_pixels: int | None = None  # pixels an image is scaled down to; None: the model's own limit
    min_pixels: int | None = None  # pixels an image is scaled up to; None: the model's own limit
    save_every: int = 20  # steps between checkpoints
    eval_every: int = 0  # steps between points of the accuracy curve; 0: none
    eval_kl: bool = False  # the curve also has the forward KL from the base model
    device: str | None = None  # cpu or cuda; None: cuda if there is one
    report_to: str | None = None  # a tracker that TRL hands its metrics to; None: none
    check_memory: bool = True  # on a GPU: refuse a run whose estimated memory is more than what is free

    @property
    def train_set(self) -> ExampleSet:
        """The set that is trained on."""
        return open_set(self.dataset)

    @property
    def test_set(self) -> ExampleSet:
        """The set that is tested on: the one that is trained on, if no other is given."""
        return open_set(self.eval_dataset or self.dataset)


@cache
def read_claims() -> dict[str, Any]:
    """The content of `data/claims.yaml`: the design, the rule of selection, the comparisons and the controls.

    Read once a process, and not to be changed: a change of the file is seen after a restart.
    """
    return yaml.safe_load((DATA / "claims.yaml").read_text())


def control_settings(name: str, method: str, chosen: bool = False) -> dict[str, Any]:
    """What a control changes in a method's settings.

    A control with rates of its own needs a choice among them, in `data/claims.yaml` or by the caller (`chosen`).
    """
    controls = read_claims()["controls"]
    if name not in controls:
        raise UserError(f"unknown control '{name}': choose one of {', '.join(controls)}")
    if method not in controls[name]["methods"]:
        raise UserError(f"control '{name}' is for {', '.join(controls[name]['methods'])}, not '{method}'")
    own = controls[name]["methods"][method] or {}
    if "learning_rates" in controls[name] and "learning_rate" not in own and not chosen:
        raise UserError(f"control '{name}' has no learning rate yet: run rftkit select --control {name}")
    return controls[name].get("settings", {}) | own


def every_control() -> tuple[tuple[str, str], ...]:
    """Method and control of every control in `data/claims.yaml`."""
    controls = read_claims()["controls"].items()
    return tuple((method, name) for name, control in controls for method in control["methods"])


def load_settings(profile: str, method: str, **overrides: Any) -> Settings:
    """The settings of a run: the profile's, its parts for the method and the dataset, a control's, then `overrides`.

    An override that is None was not given.
    """
    content = load_profile(profile)
    parts = (content.pop(key, None) for key in ("methods", "datasets", "study"))
    for_methods, for_datasets, _ = ({} if part is None else part for part in parts)
    if not isinstance(for_datasets, dict) or not set(for_datasets) <= set(bundled_sets()):
        raise UserError("'datasets' of a profile must map bundled sets to methods, as in math: {sft: {steps: 60}}")
    for_datasets = {name: _method_part(part, method) for name, part in for_datasets.items()}
    name = Path(profile).stem
    if Path(str(content.get("profile", name))).stem != name:
        raise UserError(f"profile '{profile}' calls itself '{content['profile']}': write profile: {name}")
    given = {key: value for key, value in overrides.items() if value is not None}
    if given.keys() & {"task", "dataset"}:  # the one given decides; the profile's other one may not fit it
        content = {key: value for key, value in content.items() if key not in ("task", "dataset")}
    for_dataset = _for_set(for_datasets, _of_task(content | given)) or {}
    merged = content | _method_part(for_methods, method) | for_dataset
    if control := (merged | given).get("control"):
        merged |= control_settings(str(control), method, chosen="learning_rate" in given)
    merged = _of_task(merged | {"profile": name, "method": method} | given)
    if "model" not in given:
        seed = _typed("seed", merged.get("seed", Settings.seed), "int")
        merged["model"] = base_model(profile, merged.get("model", Settings.model), seed)
    if "steps" in given and "epochs" not in given:
        merged["epochs"] = None
    if isinstance(merged.get("epochs"), dict):
        merged["epochs"] = _for_set(merged["epochs"], merged)
        if merged["epochs"] is None:
            raise UserError(f"'epochs' of profile '{profile}' has no number for '{merged['dataset']}': add other: 10")
    return settings_of(merged)


def settings_of(values: dict[str, Any]) -> Settings:
    """Settings by name, each in its type and checked; those that are not given have their defaults."""
    kinds = {field.name: str(field.type) for field in fields(Settings)}
    for key in values:
        if key not in kinds:
            raise UserError(f"unknown setting '{key}': choose one of {', '.join(kinds)}")
    return check(Settings(**{key: _typed(key, value, kinds[key]) for key, value in values.items()}))


def _for_set(parts: dict[str, Any], merged: dict[str, Any]) -> Any:
    """A profile's part for a set: by its name (the authors' `eurosat-4shot-b2n` is `eurosat`), its task, or `other`."""
    name = short_name(merged["dataset"]).partition("-4shot-")[0]
    task = merged["task"] if merged["task"] != "classification" else "other"
    return parts.get(name, parts.get(task, parts.get("other")))


def _of_task(given: dict[str, Any]) -> dict[str, Any]:
    """What follows from a task or a dataset alone: the other of the two, the scoring rule, room for thoughts."""
    task, dataset = (_typed(name, given.get(name), "str | None") for name in ("task", "dataset"))
    if task not in (None, *TASK_RULES):
        raise UserError(f"unknown task '{task}': choose one of {', '.join(TASK_RULES)}")
    trained = open_set(dataset or (Settings.dataset if task in (None, "classification") else task))
    if task not in (None, trained.task):
        raise UserError(f"dataset '{dataset}' belongs to the task '{trained.task}', not '{task}'")
    tested = _typed("eval_dataset", given.get("eval_dataset"), "str | None")
    other = open_set(tested) if tested else None
    if other and other.task != trained.task:
        raise UserError(f"eval_dataset '{tested}' belongs to the task '{other.task}', not '{trained.task}'")
    usual = {"scoring": trained.rule, "max_completion_tokens": room_for_thoughts(trained.task)}
    names = {"dataset": trained.spec, "eval_dataset": other and other.spec}
    return usual | given | names | {"task": trained.task}


def room_for_thoughts(task: str) -> int:
    """How many tokens a completion with tags may have in a task, if nothing else is said."""
    return Settings.max_completion_tokens if task == "classification" else SCENE_TOKENS


def _method_part(parts: Any, method: str) -> dict[str, Any]:
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        raise UserError("'methods' of a profile must map each method to its settings, as in sft: {steps: 60}")
    for name in (method, *parts):
        _known(name)
    return parts.get(method, {})


def _known(method: str) -> None:
    if method not in METHODS:
        raise UserError(f"unknown method '{method}': choose one of {', '.join(METHODS)}")


def _typed(key: str, value: Any, kind: str) -> Any:
    """A value in its field's type; YAML reads 1e-5 as text, so numbers may be texts."""
    plain = kind.removesuffix(" | None")
    if value is None and plain != kind:
        return None
    if plain in ("bool", "str"):
        if not isinstance(value, bool if plain == "bool" else str) or value == "":
            raise UserError(f"setting '{key}' needs {'true or false' if plain == 'bool' else 'a text'}, not '{value}'")
        return value
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or (plain == "int" and number != int(number)):
        raise UserError(f"setting '{key}' needs a {'whole ' if plain == 'int' else ''}number, not '{value}'")
    return int(number) if plain == "int" else number


def check(settings: Settings) -> Settings:
    """Refuse values that cannot work, with one line each."""
    _known(settings.method)
    numbers = [field.name for field in fields(Settings) if "int" in str(field.type)]
    for name in (*numbers, "beta"):
        within(f"setting '{name}'", getattr(settings, name), *BOUNDS.get(name, (1, 10**6)))
    for name in ("learning_rate", "temperature"):
        if not getattr(settings, name) > 0:
            raise UserError(f"setting '{name}' must be above 0, not {getattr(settings, name)}")
    within("setting 'min_pixels'", settings.min_pixels, 1, settings.max_pixels or MAX_PIXELS)
    get_rule(settings.scoring)
    one_of = {"protocol": PROTOCOLS, "device": (None, "cpu", "cuda"), "report_to": TRACKERS,
              "loss_type": LOSS_TYPES, "reward": REWARDS, "rejected": REJECTED}  # fmt: skip
    for name, known in one_of.items():
        if getattr(settings, name) not in known:
            allowed = ", ".join(filter(None, known))
            raise UserError(f"unknown {name} '{getattr(settings, name)}': choose one of {allowed}")
    if settings.reward == "format" and not MODES[METHODS[settings.method].mode].tags:
        raise UserError(f"method '{settings.method}' has no format to reward: its mode has no tags")
    if settings.rejected and settings.method != "sft":
        raise UserError(f"setting 'rejected' makes a DPO run of the method 'sft', not of '{settings.method}'")
    if problem := why_not(settings.train_set, settings.test_set, METHODS[settings.method].trainer is not None):
        raise UserError(problem)
    if settings.protocol != "base_to_new" and settings.task != "classification":
        raise UserError(f"protocol '{settings.protocol}' is for classification, not for {settings.task}")
    if settings.quantize and settings.lora_rank == 0:
        raise UserError("a quantised model cannot be trained in full: set lora_rank above 0 or quantize to false")
    if METHODS[settings.method].trainer == "sft" and settings.sft_batch % min(settings.micro_batch, settings.sft_batch):
        raise UserError(f"micro_batch {settings.micro_batch} must divide the sft_batch {settings.sft_batch}")
    rollouts = settings.prompts_per_step * settings.num_generations
    if METHODS[settings.method].trainer == "grpo" and rollouts % min(settings.micro_batch, rollouts):
        raise UserError(f"micro_batch {settings.micro_batch} must divide the {rollouts} rollouts of a step")
    return settings


def with_steps(settings: Settings, examples: int) -> Settings:
    """The settings with the steps that `epochs` passes over so many training examples take, if they have epochs."""
    if settings.epochs is None:
        return settings
    batch = settings.sft_batch if METHODS[settings.method].trainer == "sft" else settings.prompts_per_step
    return replace(settings, steps=max(1, -(-settings.epochs * examples // batch)))


def completion_limit(settings: Settings, mode: str) -> int:
    """How many tokens a completion may have in a mode."""
    return settings.max_answer_tokens if mode == "no_thinking" else settings.max_completion_tokens
