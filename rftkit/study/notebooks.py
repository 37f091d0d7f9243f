"""Executes a notebook in a kernel of its own. Loads nothing slow: each process that does so begins with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def execute(notebook: Path, parameters: dict[str, Any], executed: Path) -> None:
    """Execute a notebook through papermill, in its folder. The copy is there when it is done, or has failed."""
    from papermill import execute_notebook  # a second, which workers that make runs can do without

    executed.parent.mkdir(parents=True, exist_ok=True)
    unfinished = executed.with_name(f".{executed.name}")
    try:
        execute_notebook(
            notebook,
            unfinished,
            parameters,
            kernel_name="python3",
            cwd=notebook.parent,
            progress_bar=False,
            extra_arguments=["--log-level=CRITICAL"],  # of the kernel: what it writes would stand among ours
        )
    finally:
        if unfinished.exists():
            unfinished.replace(executed)
