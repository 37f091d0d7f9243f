"""Notebooks as people play with them: other parameters, and every cell run twice."""

import ast
import subprocess
import sys
from copy import deepcopy

import nbformat
import pytest
import yaml

from rftkit.common.paths import NOTEBOOKS

CHAPTERS = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
OTHER = {
    "profile": "smoke",
    "dataset": "digits",
    "datasets": ["spatial"],
    "model": "nano-s-1",
    "seeds": [1, 2],
    "steps": 2,
    "methods": ["zero_shot", "think_after_answer"],
    "controls": ["format_reward"],
    "protocol": "base_to_new",
    "matrix_items": 0,
    "environments": ["numberline"],
    "arms": ["cloned"],
}
OWN = {"08_sophia": {"arms": ["oracle"]}}  # what a notebook means by a name of its own


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_other_parameters_and_every_cell_twice(path, tmp_path):
    notebook, cells, parameters = nbformat.read(path, 4), [], {"out": str(tmp_path / "runs")}
    for cell in notebook.cells:
        cells.append(cell)
        if "parameters" in cell.metadata.get("tags", []):
            names = [statement.targets[0].id for statement in ast.parse(cell.source).body]
            own = OTHER | OWN.get(path.stem, {})
            parameters |= {name: own[name] for name in names if name in own}
        elif cell.cell_type == "code":
            cells.append(nbformat.from_dict(deepcopy(cell) | {"id": f"{cell.id}-again"[-64:]}))
    assert {"profile", "out"} <= set(parameters)
    notebook.cells = cells
    nbformat.write(notebook, tmp_path / path.name)
    (tmp_path / "parameters.yaml").write_text(yaml.safe_dump(parameters))
    command = [sys.executable, "-m", "papermill", str(tmp_path / path.name), str(tmp_path / "executed.ipynb")]
    command += ["-f", str(tmp_path / "parameters.yaml"), "--cwd", str(NOTEBOOKS), "--kernel", "python3"]
    finished = subprocess.run([*command, "--no-progress-bar"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
