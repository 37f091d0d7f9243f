"""What a study consists of: its notebooks, their methods, sets, models and seeds, and the runs these make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rftkit.common.errors import UserError
from rftkit.prompts import MODES
from rftkit.run import folder_of, with_seeds
from rftkit.runs.collect import short_names
from rftkit.settings import METHODS, Settings, every_control, load_profile, read_claims


@dataclass(frozen=True, eq=False)
class Chapter:
    """A notebook of the study, and the methods, sets and models that it runs."""

    notebook: str
    methods: tuple[str, ...]
    controls: tuple[tuple[str, str], ...] = ()  # method and control
    datasets: tuple[str, ...] = ()  # its own sets; none: that of the profile
    parameters: dict[str, Any] = field(default_factory=dict)  # of the notebook, beside profile, sets, seeds and out
    headline: bool = True  # part of the study if no notebooks are named
    model: str | None = None  # None: the profile's
    model_title: str | None = None  # what tells it from the study's other models; None: its name
    protocol: str | None = None  # None: the profile's
    seeds: int | None = None  # the first of the study's, so many; None: all

    @property
    def number(self) -> str:
        return self.notebook[:2]

    @property
    def title(self) -> str:
        """The notebook's name, and the set, the protocol and the model if they are its own."""
        parts = [self.notebook, self.parameters.get("dataset"), self.protocol, self.model_title or self.model]
        return "-".join(filter(None, parts))

    @property
    def weight(self) -> int:
        """How long a run takes, roughly: twice as long if it writes thoughts."""
        methods = (*self.methods, *(method for method, _ in self.controls))
        return max(2 if MODES[METHODS[method].mode].tags else 1 for method in methods)


RL_METHODS = ("cls_rl", "no_thinking_rl", "think_after_answer")
SET_METHODS = ("zero_shot", "sft", *RL_METHODS, "adaptive")
SIZE_METHODS = ("zero_shot", "cls_rl", "no_thinking_rl")
LARGER = read_claims()["size"]  # a model beside those of the design: its sets and seeds
CHAPTERS = (
    Chapter("01_sft_baseline", ("zero_shot", "sft", "sft_all")),
    Chapter("02_cls_rl", ("cls_rl",)),
    Chapter("03_no_thinking_rl", ("no_thinking_rl",)),
    Chapter("04_think_after_answer", ("think_after_answer",)),
    Chapter(
        "05_math_spatial_puzzle",
        SET_METHODS,
        datasets=("math", "spatial", "puzzle", "shapes", "digits", "emoji", "flags", "textures"),
        parameters={"methods": SET_METHODS},
        headline=False,
    ),
    *(
        Chapter(
            "05_math_spatial_puzzle",
            SET_METHODS,
            datasets=("shapes",),
            parameters={"methods": SET_METHODS, "matrix_items": 0},
            headline=False,
            protocol=protocol,
            seeds=seeds,
        )
        for protocol, seeds in (("few_shot", None), ("open_set", 5))
    ),
    Chapter(  # what `size` in data/claims.yaml compares: all methods would make a night of it
        "05_math_spatial_puzzle",
        SIZE_METHODS,
        datasets=tuple(LARGER["sets"]),
        parameters={"methods": SIZE_METHODS, "matrix_items": 0},
        headline=False,
        model=LARGER["model"],
        seeds=LARGER["seeds"],
    ),
    Chapter("06_when_to_think", (*RL_METHODS, "adaptive"), headline=False),
    *(
        Chapter(
            "06_when_to_think",
            (*RL_METHODS, "adaptive"),
            datasets=(name,),
            parameters={"dataset": name},
            headline=False,
            seeds=3,
        )
        for name in ("math", "puzzle")
    ),
    Chapter("10_controls", (), every_control(), parameters={"controls": None}, headline=False),
)


def chapters(profile: str, only: tuple[str, ...] | None, models: Sequence[str] = ()) -> list[Chapter]:
    """The chapters with these numbers, in order; `all` of them; the headline if None.

    They are run with each model if some are named. A chapter that brings its own is part of a study that starts from
    the design's base models.
    """
    numbers = dict.fromkeys(chapter.number for chapter in CHAPTERS)
    named = tuple(numbers) if only == ("all",) else only
    unknown = [number for number in named or () if number not in numbers]
    if unknown:
        raise UserError(f"--only: no notebook {', '.join(unknown)} in the study; there are {', '.join(numbers)}, all")
    chosen = [chapter for chapter in CHAPTERS if (chapter.headline if named is None else chapter.number in named)]
    if not models and load_profile(profile).get("model") == read_claims()["design"]["bases"]:
        return chosen
    chosen = [chapter for chapter in chosen if chapter.model is None]
    titles = {model: name.replace("/", "-") for model, name in short_names(models).items()}
    named = [replace(chapter, model=m, model_title=titles[m]) for m in models for chapter in chosen]
    return named if models else chosen


def runs_of(chapter: Chapter, profile: str, dataset: str | None, seeds: list[int], out: Path) -> dict[Path, Settings]:
    """The runs of a chapter by their folders."""
    methods = [(method, None) for method in chapter.methods] + list(chapter.controls)
    own = {"model": chapter.model, "protocol": chapter.protocol}
    runs = {}
    for name in datasets_of(chapter, dataset):
        for method, control in methods:
            for settings in with_seeds(profile, method, seeds, dataset=name, control=control, **own):
                runs[folder_of(settings, out)] = settings
    return runs


def datasets_of(chapter: Chapter, dataset: str | None) -> tuple[str | None, ...]:
    """The sets a chapter runs: the one asked for, or its own, or the profile's (None); a chapter with a protocol or a
    number of seeds of its own has no others than its own."""
    if dataset and "dataset" in chapter.parameters:
        return ()  # the chapter of the same notebook without a set of its own has it
    if (chapter.protocol or chapter.seeds) and dataset:
        return tuple(name for name in chapter.datasets if name == dataset)
    return (dataset,) if dataset or not chapter.datasets else chapter.datasets


def dealt(
    profile: str, only: tuple[str, ...] | None, seeds: Sequence[int], models: Sequence[str], shard: str | None
) -> dict[Chapter, list[int]]:
    """The chapters of a study (`chapters`) and the seeds of each.

    Args:
        models: what to start from, each with all seeds; none: what the profile says.
        shard: `i/n`: the i-th of n parts of the work only.
    """
    pairs = [(chapter, seed) for chapter in chapters(profile, only, models) for seed in seeds[: chapter.seeds]]
    if shard is not None:
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--shard must be i/n with i from 1 to n, such as 1/3, not '{shard}'")
        pairs = pairs[int(found[1]) - 1 :: int(found[2])]
    plan: dict[Chapter, list[int]] = {}
    for chapter, seed in pairs:
        plan.setdefault(chapter, []).append(seed)
    return plan
