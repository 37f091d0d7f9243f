"""What is looked at before a run, and after it: pictures that cannot be used, rewards that were never earned."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rftkit.runs.folder import METRICS
from rftkit.runs.log import COMPLETIONS, read_log
from rftkit.settings import METHODS, Settings
from rftkit.tasks.example import Example, ExampleSet, tell_what_is_asked
from rftkit.tasks.images import check_pictures


def tell_of_data(settings: Settings, tests: dict[str, list[Example]], shots: list[Example]) -> dict[str, int]:
    """Say what is not asked, not read, or asked without having been trained on; how many test items there are."""
    if settings.eval_dataset and METHODS[settings.method].trainer:
        _tell_of_training(settings.train_set, shots, next(iter(tests.values())))
    return tell_what_is_asked(settings.test_set, tests, settings.test_items, settings.protocol)


def _tell_of_training(data: ExampleSet, shots: Sequence[Example], tested: Sequence[Example]) -> None:
    """Where another set is tested on: the files passed over in the trained one, and classes that the shots lack."""
    if data.passed_over:
        print(f"{data.name}: {data.passed_over}", file=sys.stderr)
    trained = {example.answer for example in shots if example.task == "classification"}
    asked = {example.answer for example in tested if example.task == "classification"}
    if other := sorted(asked - trained):
        told = f"{len(other)} of the {len(asked)} classes tested on are not among the {len(trained)} trained on"
        print(f"{told}, such as '{other[0]}'", file=sys.stderr)


def check_run(settings: Settings, tests: dict[str, list[Example]], shots: Sequence[Example]) -> None:
    """UserError before the costly part on a picture that a run cannot use.

    Of all pictures the header is read. Those that it will use for certain are decoded once: the test items, and what it
    is trained on if its steps come to each of them.
    """
    batch = settings.sft_batch if METHODS[settings.method].trainer == "sft" else settings.prompts_per_step
    check_pictures(shots, whole=settings.steps * batch >= len(shots))
    check_pictures((example for part in tests.values() for example in part), whole=True)


def tell_of_no_reward(folder: Path) -> None:
    """A line on stderr if a run had a reward that none of its completions ever earned."""
    rows = read_log(folder / METRICS) if (folder / METRICS).exists() else pd.DataFrame()
    kinds = [name for name in ("accuracy_reward", "format_reward") if name in rows] or ["reward"]
    if never := [name for name in kinds if name in rows and (rows[name] == 0).all()]:
        told = f"{' and '.join(never)} 0 in every one of {len(rows)} steps: no completion earned it"
        print(f"{folder.name}: {told}; see its {COMPLETIONS}, and rftkit diagnose of the start model", file=sys.stderr)
