"""What a run found: the contents of its `results.json`, with a name for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from rftkit.prompts import MODES
from rftkit.rewards import RULES
from rftkit.settings import METHODS
from rftkit.tasks.example import PROTOCOLS, TASK_RULES

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Proportion:
    """`correct` of `n` answers: accuracy (0-1) and its 95 % Wilson interval."""

    n: Count
    correct: Count
    accuracy: Share
    ci_low: Share
    ci_high: Share


@dataclass(frozen=True)
class Measure(Proportion):
    """A proportion of the answers to a part in a mode: right by a rule or by likelihood, well-formed, `pass@8`."""

    split: str
    mode: str
    measure: str


@dataclass(frozen=True)
class Training:
    """What training took; a run of the first study says less."""

    seconds: Amount
    steps: Count | None = None
    generate_seconds: Amount | None = None
    update_seconds: Amount | None = None
    tokens: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A complete run. Older files lack what has a default here."""

    profile: str
    task: Literal[tuple(TASK_RULES)]
    dataset: str
    eval_dataset: str | None = None
    protocol: Literal[tuple(PROTOCOLS)] = "base_to_new"
    method: Literal[tuple(METHODS)]
    control: str | None = None
    model: str  # the one it started from
    seed: Count
    mode: Literal[tuple(MODES)]  # the method's own
    scoring: Literal[tuple(RULES)]
    parts: Annotated[dict[str, Proportion], Field(alias="eval")]  # in that mode, by that rule
    measures: list[Measure]
    completion_length: Amount  # tokens, the mean of its answers in that mode
    consistency: Share | None = None  # of answers that agree with their thoughts
    training: Training | None
    seconds: Amount  # of the whole run
    versions: dict[str, str]
    git_revision: str | None
    config_sha256: str
    kind_sha256: str | None = None  # runs with the same can be pooled
    data_sha256: str
    tests_sha256: str | None = None
    changed: str | None = None  # settings other than its profile's, in words (`runs.changed`); None: not known
    # Not in the file: where its answers are, and the folder or archive that it was read from.
    folder: Annotated[Path | None, Field(exclude=True)] = None
    source: Annotated[Path | None, Field(exclude=True)] = None
    answers: Annotated[Any, Field(exclude=True)] = None  # of an archived run

    @property
    def label(self) -> str:
        """Its method, with a control METHOD+CONTROL; what else was changed stands behind it: `cls_rl, 10 steps`."""
        label = f"{self.method}+{self.control}" if self.control else self.method
        return f"{label}, {self.changed}" if self.changed else label

    @property
    def as_written(self) -> bool:
        """Whether it is its method as the profile has it."""
        return not self.control and not self.changed

    @property
    def pair(self) -> tuple[str, int]:
        """Start model and seed, by which runs of two methods are paired."""
        return self.model, self.seed


RUN = TypeAdapter(Run)
