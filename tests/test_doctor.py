"""One source says what a profile needs: the doctor and the boxes of the notebooks."""

import re
from functools import cache

import nbformat
import pytest

from rftkit.common.paths import NOTEBOOKS
from rftkit.tools.doctor import DISK, MEMORY, diagnose, needs

BOXES = [path for path in sorted(NOTEBOOKS.glob("0[0-4]*.ipynb"))]
ROW = re.compile(r"^\| `([\w-]+)` \|[^|]*\| (\d+) GiB( GPU memory, estimated)? \| (\d+) GiB \|$", re.M)
once = cache(needs)


@pytest.mark.parametrize("path", BOXES, ids=lambda path: path.stem)
def test_the_box_of_a_notebook_has_the_doctors_numbers(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    rows = ROW.findall(text)
    assert {name for name, *_ in rows} >= {"smoke", "nano", "gpu-2b"}
    for name, memory, on_gpu, disk in rows:
        need = once(name)
        assert (int(memory), int(disk)) == (round(need.memory), need.disk), name
        assert bool(on_gpu) == (need.kind == "GPU memory")


def test_the_doctor_says_what_each_profile_needs():
    seen = {line.name: line.seen for line in diagnose()}
    for name in DISK:
        assert seen[f"profile {name}"].startswith(f"needs {once(name).memory:g} GiB ")
    assert set(MEMORY) < set(DISK)
