"""Notebooks stored executed: `make notebooks`. Outputs are static, small, and in step with the cells that made them."""

from __future__ import annotations

import hashlib
import sys
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

from rftkit.common.paths import NOTEBOOKS, ROOT
from rftkit.runs.folder import write_atomically

# Runs are made here, not among the reader's; the report is of none, so that it shows the archived study.
OUT = {"09_report": "../build/no-runs"}
USUAL_OUT = "../build/notebooks"
STATIC = ("image/png", "text/html", "text/latex", "text/markdown", "text/plain")
WIDGET = "application/vnd.jupyter.widget-view+json"
SOLVED = NOTEBOOKS / "solutions"


def sources_digest(notebook: nbformat.NotebookNode) -> str:
    """Of the code cells: what the outputs were made by."""
    sources = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(sources.encode()).hexdigest()


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook at `path`, run from its first cell to its last with the parameters that stand in it."""
    notebook = nbformat.read(path, 4)
    sources = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('out = "../runs"', f'out = "{OUT.get(path.stem, USUAL_OUT)}"')
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}).execute()
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
    for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.outputs = [output for given in cell.outputs if (output := static(given))]
        cell.execution_count = number
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
    notebook.metadata.pop("widgets", None)
    notebook.metadata["executed"] = {"sources": sources_digest(notebook)}
    return notebook


def static(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output as it is stored: no progress bars, widgets or folders of this machine. None if nothing is left."""
    if output.output_type == "stream":
        shown = output | {"text": without_root(output.text)}
        return None if output.name == "stderr" else nbformat.from_dict(shown)
    data = output.get("data", {})
    if not data or WIDGET in data:
        return None
    kept = {kind: content for kind, content in data.items() if kind in STATIC}
    if "image/png" in kept:  # beside it stands only what its object is called
        kept.pop("text/plain", None)
    shown = {kind: (small_png if kind == "image/png" else without_root)(content) for kind, content in kept.items()}
    return nbformat.from_dict(output | {"data": shown, "metadata": {}})


def small_png(content: str) -> str:
    """A figure in 256 colours, a third of the bytes, both in base64: a clone holds all stored figures for ever."""
    with Image.open(BytesIO(b64decode(content))) as figure:
        drawn = BytesIO()
        figure.convert("RGB").quantize(256).save(drawn, "PNG", optimize=True)
    return min(b64encode(drawn.getvalue()).decode(), content, key=len)


def without_root(text: str) -> str:
    """Paths as seen from the top of the repository."""
    return text.replace(f"{ROOT}/", "").replace(str(ROOT), ".")


def main(names: list[str]) -> None:
    """Execute and store the notebooks whose names begin so; all, without names."""
    paths = [path for folder in (NOTEBOOKS, SOLVED) for path in sorted(folder.glob("[0-9]*.ipynb"))]
    chosen = [path for path in paths if not names or path.name.startswith(tuple(names))]
    if not chosen:
        sys.exit(f"no notebook begins with {' or '.join(names)}: there are {', '.join(path.stem for path in paths)}")
    for number, path in enumerate(chosen, 1):
        print(f"{number} of {len(chosen)}: {path.relative_to(ROOT)}", flush=True)
        write_atomically(path, nbformat.writes(executed(path)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
