"""What a run is trained and tested on, by its settings."""

from __future__ import annotations

from functools import lru_cache

from rftkit.settings import METHODS, Settings
from rftkit.tasks import Example
from rftkit.tasks.bundled import datasets, evaluated_parts, is_table, load_part, training_set


def tested_on(settings: Settings) -> str:
    """The set a run is tested on: the one it is trained on, if no other is given."""
    return settings.eval_dataset or settings.dataset


def test_splits(settings: Settings) -> dict[str, list[Example]]:
    """The test examples of a run by part: halves or all classes, a drawn task's parts, a table's `test`."""
    data = tested_on(settings)
    load = _tests_once if data in datasets() else _tests
    return load(data, settings.test_items, settings.test_seed, settings.protocol).copy()


def _tests(data: str, items: int, seed: int, protocol: str) -> dict[str, list[Example]]:
    return {part: load_part(data, "test", items, seed, part, protocol) for part in evaluated_parts(data, protocol)}


# What was asked of the bundled sets last is kept: a study asks run after run. Files of other sets may change meanwhile.
_tests_once = lru_cache(maxsize=4)(_tests)
_training_once = lru_cache(maxsize=16)(training_set)  # a set's of as many seeds


def training_examples(settings: Settings) -> list[Example]:
    """What a run is trained on: drawn anew for each seed unless `shots_seed` holds it fixed.

    For a method that does not train it is what others of these settings are trained on, but nothing of a table.
    """
    if METHODS[settings.method].trainer is None and is_table(settings.dataset):  # it may have a test split only
        return []
    seed = settings.seed if settings.shots_seed is None else settings.shots_seed
    load = _training_once if settings.dataset in datasets() else training_set
    return load(settings.dataset, settings.protocol, settings.shots, settings.train_items, seed).copy()


def asked_examples(settings: Settings) -> list[Example]:
    """What a run is trained on, or if that is nothing the first part of what it is tested on: for estimates."""
    return training_examples(settings) or next(iter(test_splits(settings).values()))
