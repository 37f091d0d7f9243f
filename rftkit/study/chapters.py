"""What a study consists of: its notebooks, their methods, sets, models and seeds, and the runs that they show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from rftkit.common.errors import UserError
from rftkit.common.paths import PROFILES
from rftkit.gtr import settings as gtr
from rftkit.run import folder_of, with_seeds
from rftkit.runs.beside import arm_folder
from rftkit.runs.collect import short_names
from rftkit.runs.folder import is_complete
from rftkit.settings import Settings, every_control, load_profile, of_study, read_claims
from rftkit.sophia import settings as sophia
from rftkit.tasks.registry import short_name


@dataclass(frozen=True, eq=False)
class Chapter:
    """A notebook of the study, and the methods, sets and models that it runs."""

    notebook: str
    methods: tuple[str, ...]
    controls: tuple[tuple[str, str], ...] = ()  # method and control
    datasets: tuple[str, ...] = ()  # its own sets; none: that of the profile
    parameters: dict[str, Any] = field(default_factory=dict)  # of the notebook, beside profile, sets, seeds and out
    model: str | None = None  # None: the profile's
    model_title: str | None = None  # what tells it from the study's other models; None: its name
    protocol: str | None = None  # None: the profile's
    seeds: int | None = None  # the first of the study's, so many; None: all
    own: ModuleType | None = None  # of a method with settings of its own: the module that has them

    @property
    def title(self) -> str:
        """The notebook's name, and the set, the protocol and the model if they are its own."""
        parts = [self.notebook, self.parameters.get("dataset"), self.protocol, self.model_title or self.model]
        return "-".join(filter(None, parts))


@dataclass(frozen=True, eq=False)
class Part:
    """What a study does of a chapter: some seeds, their runs by folder, and the notebook that shows them."""

    chapter: Chapter
    runs: dict[Path, Any]  # the settings of each
    parameters: dict[str, Any]  # what papermill puts into the notebook's cell of parameters
    executed: Path  # the executed copy

    def missing(self) -> dict[Path, Any]:
        return {folder: settings for folder, settings in self.runs.items() if not is_complete(folder)}


def _sets(datasets: tuple[str, ...], methods: tuple[str, ...], matrix_items: int = 0, **own: Any) -> Chapter:
    """The notebook of several sets. Its matrix tests what is trained on one set on the others."""
    parameters = {"methods": list(methods), "matrix_items": matrix_items}
    return Chapter("05_math_spatial_puzzle", methods, datasets=datasets, parameters=parameters, **own)


WHEN_METHODS = ("cls_rl", "no_thinking_rl", "think_after_answer", "adaptive")
SET_METHODS = ("zero_shot", "sft", *WHEN_METHODS)
SIZE_METHODS = ("zero_shot", "cls_rl", "no_thinking_rl")
LARGER = read_claims()["size"]  # a model beside those of the design: its sets and seeds
HEADLINE = ("01", "02", "03", "04")  # the study if no notebooks are named
CHAPTERS = (
    Chapter("01_sft_baseline", ("zero_shot", "sft", "sft_all")),
    Chapter("02_cls_rl", ("zero_shot", "cls_rl")),  # without what was before, no claim that it learns
    Chapter("03_no_thinking_rl", ("zero_shot", "no_thinking_rl")),
    Chapter("04_think_after_answer", ("zero_shot", "think_after_answer")),
    _sets(("math", "spatial", "puzzle", "shapes", "digits", "emoji", "flags", "textures"), SET_METHODS, 50),
    _sets(("shapes",), SET_METHODS, protocol="few_shot"),
    _sets(("shapes",), SET_METHODS, protocol="open_set", seeds=5),
    # What `size` in data/claims.yaml compares: all methods would make a night of it.
    _sets(tuple(LARGER["sets"]), SIZE_METHODS, model=LARGER["model"], seeds=LARGER["seeds"]),
    Chapter("06_when_to_think", WHEN_METHODS),
    *(
        Chapter("06_when_to_think", WHEN_METHODS, datasets=(name,), parameters={"dataset": name}, seeds=3)
        for name in ("math", "puzzle")
    ),
    Chapter("07_gtr", (), own=gtr),
    Chapter("08_sophia", (), own=sophia),
    Chapter("10_controls", (), every_control(), parameters={"controls": None}),
)


def chapters(profile: str, only: tuple[str, ...] | None, models: Sequence[str] = ()) -> list[Chapter]:
    """The chapters with these numbers, in order; `all` of them; the headline if None.

    They are run with each model if some are named. A chapter that brings its own is part of a study that starts from
    the design's base models.
    """
    numbers = dict.fromkeys(chapter.notebook[:2] for chapter in CHAPTERS)
    named = numbers if only == ("all",) else only or HEADLINE
    if unknown := [number for number in named if number not in numbers]:
        raise UserError(f"--only: no notebook {', '.join(unknown)} in the study; there are {', '.join(numbers)}, all")
    chosen = [chapter for chapter in CHAPTERS if chapter.notebook[:2] in named]
    foreign = [chapter for chapter in chosen if chapter.own and profile not in chapter.own.read_claims()["profiles"]]
    if foreign and only != ("all",):
        raise UserError(f"notebook {foreign[0].notebook} has profiles of its own: nano, smoke or gpu-2b, as they are")
    chosen = [chapter for chapter in chosen if chapter not in foreign]
    if not models and load_profile(profile).get("model") == read_claims()["design"]["bases"]:
        return chosen
    chosen = [chapter for chapter in chosen if chapter.model is None]
    titles = {model: name.replace("/", "-") for model, name in short_names(models).items()}
    with_models = [replace(c, model=m, model_title=titles[m]) for m in models for c in chosen if not c.own]
    return with_models or chosen


def parts_of(plan: dict[Chapter, list[int]], profile: str, dataset: str | None, out: Path) -> list[Part]:
    """The parts of a study that have something to run: of chapters with their seeds (`dealt`), perhaps with one set."""
    parts = []
    for chapter, seeds in plan.items():
        if runs := _runs_of(chapter, profile, dataset, seeds, out):
            parameters = _parameters(chapter, profile, seeds, list(runs.values()), out)
            of_set, of_seed = dataset and short_name(dataset), f"s{seeds[0]}" if seeds[0] else None
            name = "-".join(filter(None, (chapter.title, of_set, of_seed)))  # parts of a study overwrite no other's
            executed = out / Path(profile).stem / "notebooks" / f"{name}.ipynb"
            parts.append(Part(chapter, runs, parameters, executed))
    return parts


def _runs_of(chapter: Chapter, profile: str, dataset: str | None, seeds: list[int], out: Path) -> dict[Path, Any]:
    """The runs of a chapter by their folders."""
    if chapter.own:
        return {arm_folder(settings, out): settings for settings in chapter.own.designed(profile, seeds, dataset)}
    methods = [(method, None) for method in chapter.methods] + list(chapter.controls)
    own = {"model": chapter.model, "protocol": chapter.protocol}
    runs = {}
    for name in datasets_of(chapter, dataset):
        for method, control in methods:
            for settings in with_seeds(profile, method, seeds, dataset=name, control=control, **own):
                runs[folder_of(settings, out)] = settings
    return runs


def datasets_of(chapter: Chapter, dataset: str | None) -> tuple[str | None, ...]:
    """The sets a chapter runs: the one asked for, or its own, or the profile's (None)."""
    if dataset is None:
        return chapter.datasets or (None,)
    if "dataset" in chapter.parameters:
        return ()  # the chapter of the same notebook without a set of its own has it
    if chapter.protocol or chapter.seeds:
        return tuple(name for name in chapter.datasets if name == dataset)  # it is about its own sets alone
    return (dataset,)


def _parameters(chapter: Chapter, profile: str, seeds: list[int], runs: list[Settings], out: Path) -> dict[str, Any]:
    """The notebook's parameters. It runs elsewhere, so paths are whole."""
    bundled = (PROFILES / f"{profile}.yaml").is_file()
    found = {
        "profile": profile if bundled else str(Path(profile).resolve()),
        "seeds": seeds,
        "out": str(out.resolve()),
        "model": chapter.model,
    }
    sets = list(dict.fromkeys(run.dataset for run in runs))
    if chapter.own:
        del found["model"]
        found |= {"arms": list(dict.fromkeys(run.arm for run in runs))}
        found |= {"environments": sets} if chapter.own is gtr else {}
    elif chapter.datasets and "dataset" not in chapter.parameters:
        found |= {"datasets": sets, "protocol": runs[0].protocol}
    else:
        found |= {"dataset": sets[0]}
    return found | chapter.parameters


def dealt(
    profile: str,
    only: tuple[str, ...] | None,
    seeds: Sequence[int] | None,
    models: Sequence[str],
    shard: str | None,
    first_seed: int = 0,
) -> dict[Chapter, list[int]]:
    """The chapters of a study (`chapters`) and the seeds of each.

    Args:
        seeds: None: from the first on as many as the profile says, the method's own if it has settings of its own.
        models: what to start from, each with all seeds; none: what the profile says.
        shard: `i/n`: the i-th of n parts of the work only.
    """
    # Notebooks run in a folder of their own: paths are made absolute.
    models = [str(Path(m).resolve()) if Path(m).is_dir() else m for m in dict.fromkeys(models)]
    pairs = []
    for chapter in chapters(profile, only, models):
        own = chapter.own.read_claims()["profiles"][profile] if chapter.own else {}
        usual = range(first_seed, first_seed + (own.get("seeds") or of_study(profile)["seeds"]))
        pairs += [(chapter, seed) for seed in (seeds or usual)[: chapter.seeds]]
    if shard is not None:
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--shard must be i/n with i from 1 to n, such as 1/3, not '{shard}'")
        pairs = pairs[int(found[1]) - 1 :: int(found[2])]
    plan: dict[Chapter, list[int]] = {}
    for chapter, seed in pairs:
        plan.setdefault(chapter, []).append(seed)
    return plan
