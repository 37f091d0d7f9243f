"""Every notebook runs headless in the smoke profile, and reads well."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from rftkit.common.paths import NOTEBOOKS, ROOT
from rftkit.tools.stored import STATIC, sources_digest

CHAPTERS = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
name = pytest.mark.parametrize("path", [*CHAPTERS, *SOLUTIONS], ids=lambda p: f"{p.parent.name}/{p.stem}")


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")  # shared: later chapters compare with the runs of earlier ones


# Of the solutions one runs in a kernel here; the cells of all run in test_exercises.
@pytest.mark.parametrize("path", [*CHAPTERS, *SOLUTIONS[:1]], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_it_runs_headless(path, out, tmp_path):
    before = set(ROOT.rglob("notebooks/**/*"))
    command = [sys.executable, "-m", "papermill", str(path), str(tmp_path / path.name), "--kernel", "python3"]
    command += ["--cwd", str(NOTEBOOKS), "--no-progress-bar"]
    if path in CHAPTERS:
        command += ["-f", str(NOTEBOOKS / "profiles" / "smoke.yaml"), "-p", "out", str(out)]
        command += ["-p", "matrix_items", "4"]  # of 05; the others know none
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert set(ROOT.rglob("notebooks/**/*")) == before
    executed = code_cells(tmp_path / path.name)
    assert any(cell.outputs for cell in executed)
    said = "".join(output.get("text", "") for cell in executed for output in cell.outputs)
    checks = sum(cell.source.count("check(") for cell in executed)
    # The exercises of a chapter are stored unsolved.
    assert (said.count("[pass]"), said.count("[fail]")) == ((0, checks) if path in CHAPTERS else (checks, 0))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_one_cell_is_tagged_parameters_and_holds_literals_only(path):
    (cell,) = [c for c in code_cells(path) if "parameters" in c.metadata.get("tags", [])]
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


@name
def test_it_is_stored_with_its_outputs(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3" and "widgets" not in notebook.metadata
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert notebook.metadata["executed"]["sources"] == sources_digest(notebook), "run make notebooks"
    kinds = {kind for cell in cells for output in cell.outputs for kind in output.get("data", {})}
    assert "image/png" in kinds or path in SOLUTIONS
    assert kinds <= set(STATIC)
    assert not {output.output_type for cell in cells for output in cell.outputs} & {"error"}
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]


def test_stored_notebooks_are_small_and_know_no_machine():
    texts = {path.name: path.read_text() for path in (*CHAPTERS, *SOLUTIONS)}
    assert sum(path.stat().st_size for path in (*CHAPTERS, *SOLUTIONS)) < 6e6
    for text in texts.values():
        assert str(ROOT) not in text and str(Path.home()) + "/" not in text and "site-packages" not in text


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_it_predicts_before_the_run_and_concludes_after_it(path):
    prose = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    places = [next(place for place, text in enumerate(prose) if word in text) for word in ("redict", "What came out")]
    assert places == sorted(places)
    assert any("$$" in text for text in prose[: places[1]])
    assert prose[-1].startswith("## What was written where") and any("**4.**" in text for text in prose)


@name
def test_cells_are_short(path):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert max(lengths) <= 40 and statistics.median(lengths) < 12


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_it_has_a_solution(path):
    assert (NOTEBOOKS / "solutions" / path.name).exists()


def test_links_lead_somewhere():
    import re

    for path in CHAPTERS:
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "markdown":
                for link in re.findall(r"\]\((?!http)([^)#]+)", cell.source):
                    assert (Path(path).parent / link).exists(), (path.name, link)
