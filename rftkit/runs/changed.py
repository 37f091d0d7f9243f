"""What a run was set otherwise than its profile says. Such runs are rows of their own and decide no claim."""

from __future__ import annotations

from dataclasses import asdict, replace

from rftkit.common.errors import UserError
from rftkit.runs.fingerprint import NOT_IN_KIND, kind_sha256
from rftkit.runs.folder import read_settings
from rftkit.runs.results import Run
from rftkit.settings import METHODS, Settings, load_settings

# What decides the numbers of a model that is not trained.
OF_TESTS = ("test_seed", "test_items", "pass_items", "scoring", "max_completion_tokens", "max_answer_tokens",
            "temperature", "quantize", "max_pixels", "min_pixels")  # fmt: skip
SAID = ("profile", "task", "dataset", "eval_dataset", "protocol", "method", "control")  # beside these in any table
FIRST = ("steps", "epochs", "learning_rate")


def as_set(run: Run) -> Run:
    """A run with `changed`: in words, such as `10 steps, learning rate 0.01`; empty if nothing was.

    None if that cannot be told: the profile is not the kit's, or the run was archived before it said so.
    """
    return run if run.changed is not None else replace(run, changed=_changes(run))


def _changes(run: Run) -> str | None:
    asked = {name: getattr(run, name) for name in ("dataset", "eval_dataset", "protocol", "control")}
    try:
        usual = load_settings(run.profile, run.method, **asked)
        if run.kind_sha256 == kind_sha256(usual):
            return ""
        return _differences(read_settings(run.folder), usual) if run.folder else None
    except UserError:
        return None


def _differences(own: Settings, usual: Settings) -> str:
    trained = METHODS[own.method].trainer is not None
    # Of two runs with the same epochs the steps follow from the number of examples.
    counted = "steps" if own.epochs is not None else "epochs"
    left_out = {*NOT_IN_KIND, *SAID, counted}
    before, words = asdict(usual), []
    for name, value in sorted(asdict(own).items(), key=lambda item: item[0] not in FIRST):
        if value != before[name] and name not in left_out and (trained or name in OF_TESTS):
            words.append(f"{value} {name}" if name in ("steps", "epochs") else f"{name} {value}")
    return ", ".join(words).replace("_", " ")
