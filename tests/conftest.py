"""Fixtures: the bundled model, loaded once for tests that do not train it; a small profile; bad pictures."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in the tests may reach for a hub
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores

import bad_data
import pytest
from hypothesis import settings

settings.register_profile("kit", deadline=None)  # a busy machine is not a failure
settings.load_profile("kit")

EARLY = str(Path(__file__).with_name("early"))  # says itself why it is first, here and in what the tests start
sys.path.insert(0, EARLY)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (EARLY, os.environ.get("PYTHONPATH"))))

# The files that take longest begin: a worker that begins one last works alone at the end.
LONGEST = ("test_played_with", "test_ray", "test_exercises", "test_notebooks", "test_gpu_profiles", "test_trl_suite")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)


MINE = """
model: nano-s
dataset: digits
steps: 2
prompts_per_step: 2
num_generations: 4
sft_batch: 4
test_items: 8
pass_items: 0
"""


@pytest.fixture(scope="session")
def nano():
    """The bundled model and its processor."""
    from rftkit.models import load

    return load("nano-s", device="cpu")


@pytest.fixture(scope="session")
def shapes():
    """Twelve test examples of shapes, base classes."""
    from rftkit.tasks.registry import open_set

    return open_set("shapes").examples("test", "base", 12, 0)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of one good picture and many bad ones, for data files beside them."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    bad_data.write_images(folder)
    return folder


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A profile by relative path, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    return "mine.yaml"
