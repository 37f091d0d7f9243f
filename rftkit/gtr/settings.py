"""Settings of a GTR run. The defaults are the paper's and its released code's; `data/gtr.yaml` has smaller profiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pydantic
from pydantic import Field

from rftkit.common.paths import DATA
from rftkit.common.validation import STRICT, Number, Text, Whole, read_mapping
from rftkit.runs.beside import arm_settings
from rftkit.settings import MOST, SEEDS

CLAIMS = DATA / "gtr.yaml"  # mixture, profiles, arms and comparisons, written before the first run
TRAINABLE = ("numberline", "ezpoints", "points24")  # whose thoughts can be told true from false
Corrector = Literal["exact", "past", "local", "server", "none"]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class GTRSettings:
    """Everything that decides the numbers of a GTR run. `rftkit run --method gtr` has a flag for each field."""

    profile: Text = Field("nano", description="a profile of data/gtr.yaml")
    method: Literal["gtr"] = Field("gtr", description="Guided Thought Reinforcement (arXiv 2503.08525)")
    arm: Text | None = Field(None, description="an arm of data/gtr.yaml: unguided, gtr, gtr_past, cloned, early_stop")
    dataset: Literal[TRAINABLE] = Field("ezpoints", description="the environment")
    model: Text = Field("nano-agent", description="bundled name, folder or hub id; each seed takes one of a profile's")
    seed: Whole = Field(0, ge=0, le=SEEDS, description="of training: adapter, deals, sampling, order")
    updates: Whole = Field(14, ge=1, le=MOST, description="rollouts, each followed by an update")
    rollout: Whole = Field(1024, ge=1, le=MOST, description="environment steps a rollout")
    envs: Whole = Field(64, ge=1, le=MOST, description="environments stepped at once (the released code: 1)")
    epochs: Whole = Field(4, ge=1, le=MOST, description="passes over a rollout")
    minibatch: Whole = Field(128, ge=1, le=MOST, description="steps an optimizer step")
    micro_batch: Whole = Field(64, ge=1, le=MOST, description="replies in memory at once while training")
    learning_rate: Number = Field(1e-5, gt=0, description="of Adam, along a cosine to 1e-9 in `schedule` updates")
    schedule: Whole = Field(25, ge=0, le=MOST, description="updates of the cosine; 0: constant rate")
    value_rate: Number | None = Field(None, gt=0, description="of the value head; learning_rate if not given")
    gamma: Number = Field(0.9, ge=0, le=1, description="discount")
    gae: Number = Field(0.95, ge=0, le=1, description="lambda of generalised advantage estimation")
    clip: Number = Field(0.1, gt=0, le=MOST, description="of the ratio")
    value_clip: Number | None = Field(0.1, gt=0, description="of the value; 0.1 is too tight for values up to 10")
    value_detached: bool = Field(False, description="the value head's gradient stops at the hidden state")
    grad_norm: Number = Field(0.01, gt=0, description="the gradient is clipped to this norm")
    clone_norm: Number | None = Field(None, gt=0, description="a clip of its own for the clone loss")
    clone_weight: Number = Field(1.0, ge=0, le=MOST, description="of the clone loss")
    thought_weight: Number = Field(0.5, ge=0, le=1, description="lambda: of the thought's log-probability in the ratio")
    format_reward: Number = Field(5.0, ge=0, le=MOST, description="for valid JSON, added to the return after GAE")
    temperature: Number = Field(0.2, gt=0, description="of sampling, in training and evaluation")
    repetition_penalty: Number = Field(1.2, ge=1, le=10, description="in sampling only; 1: none")
    max_tokens: Whole = Field(256, ge=1, le=MOST, description="longest reply, tokens")
    corrector: Corrector = Field("exact", description="who corrects thoughts; none is RL4VLM")
    ppo: bool = Field(True, description="false: thoughts are cloned only (SFT)")
    dagger: bool = Field(True, description="clone from all steps so far; false: from the last rollout")
    clone_action: bool = Field(False, description="clone the corrector's action too")
    early_stop: bool = Field(True, description="training episodes that cannot be won any more end with -1")
    whole_plans: bool = Field(False, description="clone also along the rest of a corrected plan, not in the paper")
    server: Text | None = Field(None, description="corrector server: its address, up to and with /v1")
    corrector_model: Text | None = Field(None, description="corrector local or server: the model")
    record: Text | None = Field(None, description="corrector server: a file replies are looked up in and added to")
    lora_rank: Whole = Field(128, ge=0, le=MOST, description="of the adapters; 0 is full fine-tuning but for vision")
    quantize: bool = Field(False, description="NF4 base model (QLoRA)")
    test_episodes: Whole = Field(200, ge=1, le=MOST, description="fixed deals a part, played by plain rules")
    held_out: bool = Field(False, description="play other fixed deals, which settings may be chosen by")
    fixed_states: Whole = Field(192, ge=2, le=MOST, description="states that thoughts are measured on")
    device: Literal["cpu", "cuda", None] = Field(None, description="where to run; cuda, if there is one, if not given")

    def __post_init__(self) -> None:
        """ValueError on settings that do not go together."""
        if self.rollout % self.envs:
            raise ValueError(f"envs {self.envs} must divide the rollout of {self.rollout} steps")
        if not self.ppo and self.corrector == "none":
            raise ValueError("without ppo and without a corrector nothing is learnt: choose one of them")
        if self.corrector == "server" and not (self.corrector_model and (self.server or self.record)):
            raise ValueError("corrector server needs corrector_model, and server or record")
        if self.corrector == "local" and not self.corrector_model:
            raise ValueError("corrector local needs corrector_model")
        if self.quantize and self.lora_rank == 0:
            raise ValueError("a quantised model cannot be trained in full: set lora_rank above 0 or quantize to false")


FIELDS = GTRSettings.__pydantic_fields__


def read_claims() -> dict[str, Any]:
    """The content of `data/gtr.yaml`."""
    return read_mapping(CLAIMS, "file")


def load_settings(profile: str = "nano", **overrides: Any) -> GTRSettings:
    """The settings of a run, by `data/gtr.yaml`; see `arm_settings`."""
    return arm_settings(GTRSettings, read_claims(), profile, overrides)[0]


def designed(profile: str, seeds: Sequence[int], dataset: str | None = None) -> list[GTRSettings]:
    """The runs of the study of `data/gtr.yaml`: its arms with each seed on its environments, or on one of them."""
    design = read_claims()["design"]
    names = [name for name in design["datasets"] if dataset in (None, name)]
    return [load_settings(profile, dataset=n, arm=arm, seed=s) for n in names for arm in design["arms"] for s in seeds]
