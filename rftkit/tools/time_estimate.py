"""`rftkit estimate`: the memory of a run by hand, and its time from a few real steps."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from rftkit.memory.peak_memory import Estimate, estimate, to_need_less
from rftkit.models import resolve
from rftkit.run import evaluate_run, execute, load_run, test_splits
from rftkit.settings import METHODS, Settings, with_steps
from rftkit.tasks.example import Example

STEPS = 3  # measured ones; the first warms up and is not counted
ITEMS = 64  # of a part that is evaluated, at most
MADE_FOR_A_GPU = 10**8  # parameters: models with more
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")  # one of them is in every checkpoint


@dataclass(frozen=True)
class Times:
    """Seconds of a training step (None: nothing is trained), of the whole training and of the evaluation."""

    step: float | None
    training: float
    evaluation: float


def measure(settings: Settings) -> Times:
    """Seconds of a run, by proportion from a real one of three steps and few test items. Its folder is removed."""
    few = few_of(settings)
    marks = [time.perf_counter()]  # of the beginning, and of the end of each step
    with tempfile.TemporaryDirectory() as temporary:
        if METHODS[settings.method].trainer:
            execute(few, Path(temporary), on_row=lambda rows: marks.append(time.perf_counter()))
        else:
            model, processor = load_run(few, None)
            tests = test_splits(few)
            marks = [time.perf_counter()]
            evaluate_run(few, model, processor, tests)
        seconds = time.perf_counter() - marks[-1]
    asked, measured = (sum(map(len, test_splits(run).values())) for run in (settings, few))
    evaluation = seconds * asked / measured
    if len(marks) == 1:
        return Times(None, 0.0, evaluation)
    step = (marks[-1] - marks[1]) / (len(marks) - 2)
    return Times(step, step * settings.steps, evaluation)


def few_of(settings: Settings) -> Settings:
    """The settings of the run that is measured: three steps, and of each part's test items one batch at most.

    Of the items for pass@8 it has the same share, so that one proportion holds for the whole evaluation.
    """
    asked = settings.test_items or max(map(len, test_splits(settings).values()))
    items = min(ITEMS, settings.eval_batch, asked)
    passed = math.ceil(settings.pass_items * items / asked)
    return replace(
        settings, steps=STEPS, epochs=None, test_items=items, pass_items=passed, eval_every=0, report_to=None
    )


def why_not_measured(model: str, found: Estimate) -> str | None:
    """Why a run of this model and estimate cannot be tried here; None if it can. No model is downloaded for it."""
    if found.free is None:
        return "there is no GPU here"
    if found.device == "cpu" and found.parameters > MADE_FOR_A_GPU:
        return "a model of this size is for a GPU"
    if not found.fits:
        return "the run does not fit"
    if not is_at_hand(model):
        return f"the model is not on this machine (rftkit run fetches it): hf download {model}"
    return None


def is_at_hand(model: str) -> bool:
    """Whether a model's weights are on this machine: bundled, in a folder, or in the hub's cache."""
    place = resolve(model)
    return Path(place).is_dir() or any(isinstance(try_to_load_from_cache(place, name), str) for name in WEIGHTS)


def report(settings: Settings, examples: Sequence[Example], with_time: bool = True) -> dict[str, Any]:
    """What `rftkit estimate --json` prints, in bytes and seconds. `time` is None, and `no_time` says why, where it was
    not measured."""
    settings = with_steps(settings, len(examples))
    found = estimate(settings, examples)
    no_time = why_not_measured(settings.model, found) if with_time else "--no-time"
    times = None
    if no_time is None:
        print(f"measuring the time: {STEPS} steps and a part of the evaluation ...", file=sys.stderr)
        times = asdict(measure(settings))
    asked = {name: getattr(settings, name) for name in ("profile", "method", "dataset", "model", "steps")}
    return asked | asdict(found) | {"time": times, "no_time": no_time}


def as_text(found: dict[str, Any]) -> str:
    """The report for people."""
    device = "CPU" if found["device"] == "cpu" else "GPU"
    lines = [
        f"{found['profile']}, {found['method']} on {found['dataset']}, {found['model']} "
        f"({found['parameters'] / 1e9:.2f} B parameters), {found['device']}",
        f"longest prompt {found['tokens']['prompt']} tokens, completion up to {found['tokens']['completion']}",
        "memory, estimated:",
    ]
    lines += [f"  {name:<12}{size / 2**30:>8.2f} GiB" for name, size in found["memory"].items()]
    if found["free"] is None:
        lines.append("there is no GPU here: memory as it would be on one")
    else:
        verdict = "fits" if found["fits"] else "does not fit"
        lines.append(f"on this machine's {device} it {verdict}: {found['free'] / 2**30:.1f} GiB are free")
    if device == "CPU" and found["parameters"] > MADE_FOR_A_GPU:
        lines.append("on a GPU, which such a model is for: --device cuda")
    if found["fixes"]:
        lines.append(f"to need less, {to_need_less(found['fixes'])}")
    if found["time"] is None:
        lines.append(f"time was not measured: {found['no_time']}")
        return "\n".join(lines)
    times = {name: timedelta(seconds=round(seconds or 0)) for name, seconds in found["time"].items()}
    lines.append("time (h:mm:ss), by proportion from a few real steps and a part of the evaluation here:")
    if step := found["time"]["step"]:
        lines.append(f"  {times['training']} for {found['steps']} steps of {step:.3g} s")
    lines.append(f"  {times['evaluation']} to evaluate")
    return "\n".join(lines)
