"""Fixtures: the bundled model, loaded once for tests that do not train it."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in the tests may reach for a hub

import pytest
import torch

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def nano():
    """The bundled model and its processor."""
    from rftkit.models import load

    return load("nano-s", device="cpu")


@pytest.fixture(scope="session")
def shapes():
    """Twelve test examples of shapes, base classes."""
    from rftkit.tasks.classification import load_split

    return load_split("shapes", "test", 12, 0, "base")
