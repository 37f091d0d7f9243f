"""Settings of a run: command line over notebook over profile, one flat dataclass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, TypeAdapter, ValidationError

from rftkit.common.errors import UserError
from rftkit.common.paths import BUNDLED, DATA, PROFILES, model_folder, profile_path
from rftkit.common.validation import STRICT, Number, Text, Whole, checked, read_mapping
from rftkit.prompts import MODES
from rftkit.rewards import RULES
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
MOST = 10**6  # of whole numbers without a bound of their own: beyond it nothing would run
SEEDS = 2**32 - 1  # the largest that numpy takes
Rewarded = Literal["mode", "accuracy", "format", "random"]
# The losses of TRL whose log-probs and importance ratios are those of the paper's GRPO.
Loss = Literal["grpo", "bnpo", "dr_grpo", "dapo"]
Tracker = Literal["wandb", "trackio", "tensorboard", "mlflow", None]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Settings:
    """Everything that decides a run's numbers. One instance is one run. `rftkit run` has a flag for each field."""

    profile: Text = Field("nano", description="name of the profile the defaults come from, or path of a YAML file")
    task: Literal[tuple(TASK_RULES)] = Field("classification", description="what is asked")
    dataset: Text = Field("shapes", description="a bundled set, a folder, or a real set: hub:NAME or NAME@DIR")
    eval_dataset: Text | None = Field(None, description="another set of the same task to test on")
    # Train on base classes, test both halves; new_to_base: swapped; few_shot: all classes; open_set: so without lists.
    protocol: Literal[PROTOCOLS] = Field("base_to_new", description="classes that are trained on, and tested")
    method: Literal[tuple(METHODS)] = Field("no_thinking_rl", description="how the model is trained")
    control: Text | None = Field(None, description="a control of data/claims.yaml, which changes the method")
    model: Text = Field("nano-s", description="bundled name, folder or hub id; of a profile's list each seed takes one")
    seed: Whole = Field(0, ge=0, le=SEEDS, description="of training: adapter initialisation, sampling, order")
    shots_seed: Whole | None = Field(None, ge=0, le=SEEDS, description="of shots and choice lists; or the seed itself")
    test_seed: Whole = Field(0, ge=0, le=SEEDS, description="of the test items; keep it to compare runs")
    shots: Whole = Field(4, ge=1, le=MOST, description="classification: training images a class")
    blank: bool = Field(False, description="train on blank pictures in place of the set's own, test on both")
    train_items: Whole = Field(512, ge=1, le=MOST, description="training items in all, where not by shots")
    test_items: Whole | None = Field(None, ge=1, le=MOST, description="test items a part; if not given all, or 1,000")
    val_items: Whole = Field(200, ge=0, le=MOST, description="held-out base images, for curves and rftkit select")
    pass_items: Whole = Field(100, ge=0, le=MOST, description="test images a half for pass@8, eight samples each")
    scoring: Literal[tuple(RULES)] = Field("strict", description="rule of the reward and of the headline accuracy")
    steps: Whole = Field(60, ge=1, le=MOST, description="optimizer steps")
    epochs: Whole | None = Field(None, ge=1, le=MOST, description="passes over the examples, in place of steps")
    learning_rate: Number = Field(1e-3, gt=0, description="of AdamW, constant")
    prompts_per_step: Whole = Field(8, ge=1, le=MOST, description="GRPO: questions an optimizer step")
    num_generations: Whole = Field(8, ge=2, le=MOST, description="GRPO: completions a question (the group size G)")
    sft_batch: Whole = Field(32, ge=1, le=MOST, description="SFT: examples an optimizer step")
    micro_batch: Whole = Field(64, ge=1, le=MOST, description="sequences in memory at once while training")
    eval_batch: Whole = Field(250, ge=1, le=MOST, description="prompts in memory at once while evaluating")
    max_completion_tokens: Whole = Field(40, ge=1, le=MOST, description="longest completion in modes with tags, tokens")
    max_answer_tokens: Whole = Field(12, ge=1, le=MOST, description="longest completion in the mode without, tokens")
    temperature: Number = Field(1.0, gt=0, description="of sampling in training and pass@8")
    beta: Number = Field(0.0, ge=0, le=MOST, description="weight of the KL term; above 0 it costs a reference pass")
    reward: Rewarded = Field("mode", description="GRPO: what is rewarded; mode: accuracy, and format of its tags")
    negatives: bool = Field(True, description="GRPO: false learns from right completions, each with advantage 1 (RAFT)")
    rejected: Literal["model", "random", None] = Field(None, description="SFT: whose wrong answer DPO is to lower")
    loss_type: Loss = Field("grpo", description="TRL's name; grpo is the paper's mean over each completion's tokens")
    lora_rank: Whole = Field(16, ge=0, le=MOST, description="of the adapters; 0 is full fine-tuning")
    quantize: bool = Field(False, description="NF4 base model (QLoRA)")
    gradient_checkpointing: bool = Field(False, description="less memory, a third more time")
    share_prefix: bool = Field(True, description="GRPO: prompt and image once per group; false: stock TRL")
    max_pixels: Whole | None = Field(None, ge=1, le=MAX_PIXELS, description="pixels an image is scaled down to")
    min_pixels: Whole | None = Field(None, ge=1, le=MAX_PIXELS, description="pixels an image is scaled up to")
    save_every: Whole = Field(20, ge=1, le=MOST, description="steps between checkpoints")
    eval_every: Whole = Field(0, ge=0, le=MOST, description="steps between points of the accuracy curve; 0: none")
    eval_kl: bool = Field(False, description="the curve also has the forward KL from the base model")
    device: Literal["cpu", "cuda", None] = Field(None, description="where to run; cuda, if there is one, if not given")
    report_to: Tracker = Field(None, description="a tracker that TRL hands its metrics to")
    check_memory: bool = Field(True, description="on a GPU: refuse a run estimated to need more memory than is free")

    @property
    def train_set(self) -> ExampleSet:
        """The set that is trained on."""
        return open_set(self.dataset, self.task)

    @property
    def test_set(self) -> ExampleSet:
        """The set that is tested on: the one that is trained on, if no other is given."""
        return open_set(self.eval_dataset or self.dataset, self.task)

    def __post_init__(self) -> None:
        """ValueError on settings that do not go together."""
        method = METHODS[self.method]
        if self.max_pixels and self.min_pixels and self.min_pixels > self.max_pixels:
            raise ValueError(f"setting 'min_pixels' must be at most {self.max_pixels}, not {self.min_pixels}")
        if self.reward == "format" and not MODES[method.mode].tags:
            raise ValueError(f"method '{self.method}' has no format to reward: its mode has no tags")
        if self.rejected and self.method != "sft":
            raise ValueError(f"setting 'rejected' makes a DPO run of the method 'sft', not of '{self.method}'")
        if self.protocol != "base_to_new" and self.task != "classification":
            raise ValueError(f"protocol '{self.protocol}' is for classification, not for {self.task}")
        if self.quantize and self.lora_rank == 0:
            raise ValueError("a quantised model cannot be trained in full: set lora_rank above 0 or quantize to false")
        rollouts = self.prompts_per_step * self.num_generations
        if method.trainer == "sft" and self.sft_batch % min(self.micro_batch, self.sft_batch):
            raise ValueError(f"micro_batch {self.micro_batch} must divide the sft_batch {self.sft_batch}")
        if method.trainer == "grpo" and rollouts % min(self.micro_batch, rollouts):
            raise ValueError(f"micro_batch {self.micro_batch} must divide the {rollouts} rollouts of a step")


FIELDS = Settings.__pydantic_fields__  # by name: type, default, bounds and description


def settings_of(values: dict[str, Any]) -> Settings:
    """Settings by name, checked; those that are not given have their defaults. UserError on the first mistake."""
    for name in values:
        if name not in FIELDS:
            raise UserError(f"unknown setting '{name}': choose one of {', '.join(FIELDS)}")
    return checked(Settings, values)


def read_claims() -> dict[str, Any]:
    """The content of `data/claims.yaml`: the design, the rule of selection, the comparisons and the controls."""
    return read_mapping(DATA / "claims.yaml", "file")


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


OfMethods = dict[Literal[tuple(METHODS)], dict[str, Any]]
OfSets = dict[Literal[tuple(bundled_sets())], OfMethods]
Names = Text | Annotated[list[Text], Field(min_length=1)]
OfStudy = dict[Literal["seeds", "num_cpus", "num_gpus"], Annotated[int, Field(strict=True, ge=1)]]
# What a profile may hold in a form of its own, and what is said of another form.
PARTS = {
    "methods": (TypeAdapter(OfMethods | None), "map each method to its settings, as in sft: {steps: 60}"),
    "datasets": (TypeAdapter(OfSets | None), "map bundled sets to methods, as in math: {sft: {steps: 60}}"),
    "model": (TypeAdapter(Names), "be a name or a list of names, as in model: [nano-s, my/model]"),
    "study": (TypeAdapter(OfStudy), "hold a number of seeds, as in study: {seeds: 5}"),
}


def load_profile(name: str) -> dict[str, Any]:
    """The content of a profile, by name (`notebooks/profiles/NAME.yaml`) or by path."""
    path = profile_path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise UserError(f"no profile '{name}': choose one of {known}, or give the path of a YAML file")
    content = read_mapping(path, "profile")
    own = {key: value for key, value in content.items() if key != "like"}
    if (like := content.get("like")) is None:
        return own
    if like == path.stem or not (PROFILES / f"{like}.yaml").is_file():  # of the kit's own, so that there is no circle
        raise UserError(f"'like' of profile '{path}' must name another profile of the kit, not '{like}'")
    return load_profile(like) | {"profile": path.stem} | own


def _part(content: dict[str, Any], name: str) -> Any:
    """One of the PARTS of a profile, checked; an empty one if it has none."""
    form, words = PARTS[name]
    try:
        return form.validate_python(content.get(name, {})) or {}
    except ValidationError as error:
        found = error.errors()[0]
        raise UserError(f"'{name}' of a profile must {words}; '{found['input']}': {found['msg']}") from error


def of_study(profile: str) -> dict[str, int]:
    """How many seeds a study with this profile has, and what a run needs of a cluster; its GPUs only if given."""
    return {"seeds": 1, "num_cpus": 1} | _part(load_profile(profile), "study")


def whose_turn(models: str | list[str], seed: int, profile: str) -> str:
    """The model that a seed starts from: of a list the one whose turn it is, and a folder beside the profile first."""
    model = models[seed % len(models)] if isinstance(models, list) else models
    beside = model_folder(model, profile_path(profile).parent)
    return str(beside.resolve()) if beside and not beside.is_relative_to(BUNDLED) else model


def load_settings(profile: str, method: str, **overrides: Any) -> Settings:
    """The settings of a run: the profile's, its parts for the method and the dataset, a control's, then `overrides`.

    An override that is None was not given.
    """
    read = load_profile(profile)
    name = Path(profile).stem
    if Path(str(read.get("profile", name))).stem != name:
        raise UserError(f"profile '{profile}' calls itself '{read['profile']}': write profile: {name}")
    content = {key: value for key, value in read.items() if key not in ("methods", "datasets", "study")}
    content |= _part(read, "methods").get(method, {})
    given = {key: value for key, value in overrides.items() if value is not None}
    if given.keys() & {"task", "dataset"}:  # the one given decides; the profile's other one may not fit it
        content = {key: value for key, value in content.items() if key not in ("task", "dataset")}
    usual, sets = _of_sets(content | given)
    merged = usual | content | (_for_set(_part(read, "datasets"), sets) or {}).get(method, {})
    if control := (merged | given).get("control"):
        merged |= control_settings(str(control), method, chosen="learning_rate" in given)
    merged |= {"profile": name, "method": method} | given | sets
    if "steps" in given and "epochs" not in given:
        merged["epochs"] = None
    tested = sets | {"dataset": sets["eval_dataset"] or sets["dataset"]}
    if isinstance(merged.get("test_items"), dict):
        merged["test_items"] = _for_set(merged["test_items"], tested)
    if isinstance(merged.get("epochs"), dict):
        merged["epochs"] = _for_set(merged["epochs"], merged)
        if merged["epochs"] is None:
            raise UserError(f"'epochs' of profile '{profile}' has no number for '{merged['dataset']}': add other: 10")
    if "model" not in given:
        models = _part({"model": Settings.model} | merged, "model")
        merged["model"] = whose_turn(models, settings_of({"seed": merged.get("seed", Settings.seed)}).seed, profile)
    settings = settings_of(merged)
    if problem := why_not(settings.train_set, settings.test_set, METHODS[method].trainer is not None):
        raise UserError(problem)
    return settings


def _for_set(parts: dict[str, Any], sets: dict[str, Any]) -> Any:
    """A profile's part for a set: its name (of the authors' `dtd-4shot-b2n` `dtd`), its task, `bundled`, `other`."""
    name = short_name(sets["dataset"]).partition("-4shot-")[0]
    task = sets["task"] if sets["task"] != "classification" else "other"
    usual = parts.get("bundled" if sets["dataset"] in bundled_sets() else "other", parts.get("other"))
    return parts.get(name, parts.get(task, usual))


def _of_sets(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What follows from a task or a set alone: the usual rule and room for thoughts; task and sets in full."""
    asked = {name: given[name] for name in ("task", "dataset", "eval_dataset") if given.get(name) is not None}
    settings_of(asked)  # there is such a task, and the sets are texts
    task = asked.get("task")
    trained = open_set(asked.get("dataset", Settings.dataset if task in (None, "classification") else task), task)
    tested = open_set(asked["eval_dataset"], trained.task) if "eval_dataset" in asked else None
    usual = {"scoring": trained.rule, "protocol": trained.usual_protocol}
    usual["max_completion_tokens"] = room_for_thoughts(trained.task)
    return usual, {"task": trained.task, "dataset": trained.spec, "eval_dataset": tested and tested.spec}


def room_for_thoughts(task: str) -> int:
    """How many tokens a completion with tags may have in a task, if nothing else is said."""
    return Settings.max_completion_tokens if task == "classification" else SCENE_TOKENS


def with_steps(settings: Settings, examples: int) -> Settings:
    """The settings with the steps that `epochs` passes over so many training examples take, if they have epochs."""
    if settings.epochs is None:
        return settings
    batch = settings.sft_batch if METHODS[settings.method].trainer == "sft" else settings.prompts_per_step
    return settings_of(asdict(settings) | {"steps": max(1, -(-settings.epochs * examples // batch))})


def completion_limit(settings: Settings, mode: str) -> int:
    """How many tokens a completion may have in a mode."""
    return settings.max_answer_tokens if mode == "no_thinking" else settings.max_completion_tokens
