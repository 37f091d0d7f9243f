"""Settings of a SOPHIA run. Where the paper names a number it is the default; profiles stand in `data/claims.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any, Literal

import pydantic
from pydantic import Field

from rftkit.common.validation import STRICT, Number, Text, Whole, checked
from rftkit.models import resolve
from rftkit.runs.beside import arm_settings
from rftkit.runs.fingerprint import sha256_examples, sha256_model
from rftkit.settings import METHODS, MOST, SEEDS, Settings, control_settings, settings_of
from rftkit.settings import read_claims as every_claim
from rftkit.sophia.captions import PROMPTS, USUAL
from rftkit.sophia.selection import SELECTIONS, Selection
from rftkit.tasks.registry import open_set

RAFT = "self_training"  # as a control of `cls_rl`
FRESH = 2**31  # added to the seed: the pictures that GRPO goes on with are none of those that SOPHIA learnt from


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SophiaSettings:
    """Everything that decides the numbers of a SOPHIA run. `rftkit run --method sophia` has a flag for each field."""

    profile: Text = Field("nano", description="a profile of `sophia` in data/claims.yaml")
    method: Literal["sophia"] = Field("sophia", description="SOPHIA (arXiv 2507.16814)")
    arm: Text | None = Field(None, description="an arm of `sophia` in data/claims.yaml, such as outcome")
    dataset: Text = Field("math", description="a drawn set (math, puzzle), a folder or a JSONL file")
    model: Text = Field("nano-fast", description="bundled name, folder or hub id; each seed takes one of a profile's")
    seed: Whole = Field(0, ge=0, le=SEEDS - FRESH, description="of pictures, captions, reasonings, order, adapter")
    train_items: Whole = Field(512, ge=1, le=MOST, description="pictures that are captioned")
    test_items: Whole = Field(500, ge=1, le=MOST, description="test items a part, the same for all seeds")
    instead: Literal["zero_shot", "sft", "cls_rl", "raft", None] = Field(
        None, description="a method of the kit in SOPHIA's place, examined alike"
    )
    prompt: Text | None = Field(None, description="what a caption is asked by: rows, columns, or any text")
    captions: Whole = Field(8, ge=1, le=MOST, description="captions a picture (the paper's K)")
    captioner: Text | None = Field(None, description="another model whose captions are reasoned on; true: true ones")
    reasonings: Whole = Field(8, ge=1, le=MOST, description="reasonings a caption (the paper's N)")
    reasoner: Literal["rule", "local", "server"] = Field("rule", description="who reasons on captions")
    reasoner_model: Text | None = Field(None, description="reasoner local or server: the model")
    server: Text | None = Field(None, description="reasoner server: its address, up to and with /v1")
    record: Text | None = Field(None, description="reasoner server: a file replies are looked up in and added to")
    prompt_price: Number = Field(0.0, ge=0, description="reasoner server: of a million tokens asked, in any currency")
    completion_price: Number = Field(0.0, ge=0, description="reasoner server: of a million tokens answered")
    reasoner_seconds: Number = Field(3600.0, gt=0, description="a batch of 128 captions may take the reasoner")
    reasoner_tokens: Whole = Field(512, ge=1, le=MOST, description="reasoner local or server: longest reasoning")
    copy_slip: Number = Field(0.05, ge=0, le=1, description="reasoner rule: chance of a miscopied number or name")
    step_slip: Number = Field(0.07, ge=0, le=1, description="reasoner rule: chance of a wrong step")
    select: Literal[tuple(SELECTIONS)] = Field("sophia", description="which reasonings are learnt from")
    alpha: Number = Field(0.75, ge=0, le=1, description="R(c) must be above it, where selection looks at it")
    keep: Whole = Field(1, ge=1, le=MOST, description="reasonings kept of a picture (Keep-n)")
    oracle: bool = Field(False, description="learn from the true steps of each picture: no captions, no reasoner")
    prepend_caption: bool = Field(False, description="the caption stands at the beginning of the thought")
    caption_share: Number = Field(0.0, ge=0, lt=1, description="of a batch that are captions of kept reasonings")
    ratio_cap: Number | None = Field(None, gt=0, description="weight by min(pi/mu, cap); the ratio is 1 if not given")
    steps: Whole = Field(300, ge=1, le=MOST, description="optimizer steps of the update")
    batch: Whole = Field(16, ge=1, le=MOST, description="rows an optimizer step")
    micro_batch: Whole = Field(16, ge=1, le=MOST, description="rows in memory at once")
    learning_rate: Number = Field(1e-3, gt=0, description="of AdamW, constant")
    lora_rank: Whole = Field(16, ge=0, le=MOST, description="of the adapters; 0 trains the language model in full")
    max_tokens: Whole = Field(64, ge=1, le=MOST, description="longest caption and longest completion")
    grpo_steps: Whole = Field(0, ge=0, le=MOST, description="steps of GRPO afterwards, on fresh pictures")
    grpo_rate: Number = Field(3e-4, gt=0, description="learning rate of GRPO")
    device: Literal["cpu", "cuda", None] = Field(None, description="where to run; cuda, if there is one, if not given")

    def __post_init__(self) -> None:
        """ValueError on settings that do not go together."""
        drawn = self.dataset in USUAL
        if self.batch % min(self.micro_batch, self.batch):
            raise ValueError(f"micro_batch {self.micro_batch} must divide the batch {self.batch}")
        if self.reasoner != "rule" and not self.reasoner_model:
            raise ValueError(f"reasoner {self.reasoner} needs reasoner_model")
        if self.reasoner == "server" and not (self.server or self.record):
            raise ValueError("reasoner server needs server, or a record of its replies")
        if not drawn and (self.reasoner == "rule" or self.captioner == "true" or self.oracle or not self.prompt):
            known = ", ".join(USUAL)
            raise ValueError(
                f"'{self.dataset}' needs reasoner local or server, and a prompt: rule and truth know {known} alone"
            )
        if drawn and self.prompt not in (None, *PROMPTS):
            raise ValueError(f"the prompt of '{self.dataset}' is rows or columns, not '{self.prompt}'")
        if self.ratio_cap is not None and self.reasoner != "rule":
            raise ValueError(f"ratio_cap needs mu, which reasoner {self.reasoner} does not tell")
        mixed = round(self.caption_share * self.batch)
        if self.caption_share and not 0 < mixed < self.batch:
            raise ValueError(f"caption_share {self.caption_share} is {mixed} of the {self.batch} rows of a batch")
        if self.oracle and self.caption_share:
            raise ValueError("with oracle there are no captions for caption_share")
        if self.instead and (self.oracle or self.grpo_steps):
            raise ValueError(f"instead {self.instead} is a run of its own: leave out oracle and grpo_steps")

    @property
    def inputs(self) -> list[str]:
        """Digests of what decides the numbers and stands neither here nor in the code, beside the start model."""
        other = [self.captioner, self.reasoner_model if self.reasoner == "local" else None]
        found = [sha256_model(resolve(name)) for name in other if name and name != "true"]
        if self.dataset not in USUAL:
            run, data = self.as_run(), open_set(self.dataset)
            tests = (data.examples("test", part, run.test_items, run.test_seed, run.protocol)
                     for part in data.parts(run.protocol))  # fmt: skip
            shots = data.training(run.protocol, run.shots, self.train_items, self.seed)
            found.append(sha256_examples([*shots, *(example for part in tests for example in part)]))
        return found

    @property
    def caption_prompt(self) -> str:
        """`rows`, `columns`, or what else was asked for."""
        return self.prompt or USUAL[self.dataset]

    @property
    def mode(self) -> str:
        """How answers are asked for in the end; an untrained model is asked to think."""
        return METHODS["sft"].mode if self.instead == "sft" else "thinking"

    @property
    def selection(self) -> Selection:
        usual = SELECTIONS[self.select]
        alpha = None if usual.alpha is None else self.alpha
        return Selection(alpha, usual.right, usual.shortest, self.keep)

    def as_run(self, **changes: Any) -> Settings:
        """The kit's settings of a run in thinking mode with this one's set, model, update and test items."""
        data = open_set(self.dataset)
        values = {
            "profile": self.profile, "task": data.task, "dataset": data.spec, "method": "cls_rl",
            "model": self.model, "seed": self.seed, "shots_seed": self.seed, "train_items": self.train_items,
            "test_items": self.test_items, "scoring": data.rule, "protocol": data.usual_protocol, "steps": self.steps,
            "sft_batch": self.batch, "micro_batch": self.micro_batch, "learning_rate": self.learning_rate,
            "lora_rank": self.lora_rank, "max_completion_tokens": self.max_tokens, "device": self.device,
            "prompts_per_step": self.micro_batch,  # GRPO's; it must fit the micro_batch
        }  # fmt: skip
        return settings_of(values | changes)

    def as_grpo(self, model: str) -> Settings:
        """GRPO by LoRA from the updated model on, on as many pictures that are drawn anew."""
        fresh = {"shots_seed": self.seed + FRESH, "steps": self.grpo_steps, "learning_rate": self.grpo_rate}
        fresh["lora_rank"] = self.lora_rank or Settings.lora_rank
        return self.as_run(model=model, **self._kits(), **fresh)

    def as_instead(self) -> Settings:
        """The kit's run in SOPHIA's place: from the same start model, on the same pictures."""
        if self.instead == "raft":
            own = {"method": "cls_rl", "control": RAFT} | control_settings(RAFT, "cls_rl")
        else:
            own = {"method": self.instead}
        return self.as_run(**own, **self._kits())

    def _kits(self) -> dict[str, int]:
        """GRPO's groups as everywhere in the kit, fewer if there are fewer pictures; next to no evaluation of the
        kit's, for all runs are examined alike afterwards."""
        prompts = min(Settings.prompts_per_step, self.train_items)
        groups = {"prompts_per_step": prompts, "micro_batch": prompts * Settings.num_generations}
        return groups | {"pass_items": 0, "test_items": 1}


FIELDS = SophiaSettings.__pydantic_fields__


def read_claims() -> dict[str, Any]:
    """`sophia` in `data/claims.yaml`."""
    return every_claim()["sophia"]


def load_settings(profile: str = "nano", **overrides: Any) -> SophiaSettings:
    """The settings of a run, by `sophia` in `data/claims.yaml`; see `arm_settings`."""
    settings, models = arm_settings(SophiaSettings, read_claims(), profile, overrides)
    if settings.captioner == "other":  # the one of the profile's before its own turn
        other = models[settings.seed % len(models) - 1]
        settings = checked(SophiaSettings, asdict(settings) | {"captioner": other})
    return settings


def designed(profile: str, seeds: Sequence[int], dataset: str | None = None) -> list[SophiaSettings]:
    """The runs of the study of `sophia` in `data/claims.yaml`: the arms of each of its parts with each seed.

    A part may have a profile beneath the study's, such as `thinks` of `nano`; other profiles leave it out. It may have
    the first so many of the `seeds` alone. With a `dataset` only the parts on it.
    """
    claims, runs = read_claims(), []
    for part in claims["design"]:
        own = "/".join(filter(None, (profile, part.get("profile"))))
        if own in claims["profiles"] and dataset in (None, part["dataset"]):
            pairs = product(part["arms"], seeds[: part.get("seeds")])
            runs += [load_settings(own, dataset=part["dataset"], arm=arm, seed=seed) for arm, seed in pairs]
    return runs
