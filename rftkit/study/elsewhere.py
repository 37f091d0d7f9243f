"""Runs made on a Ray cluster, a task each. They come home as run folders, whether the disk is shared or not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

from rftkit.common.cluster import cluster
from rftkit.common.errors import UserError
from rftkit.common.pool import attempt
from rftkit.runs.fingerprint import installed
from rftkit.runs.folder import run_files
from rftkit.settings import of_study
from rftkit.study.workers import ENVIRONMENT, HandOver, make_run, place_of


@contextmanager
def there(address: str, profile: str, todo: dict[Path, Any], out: Path, minutes: float | None) -> Iterator[HandOver]:
    """A cluster that can make these runs (`make_runs`). The profile says what a run needs: `study: {num_cpus: 4}`."""
    needs = of_study(profile)
    runs = todo.values()
    names = {n for run in runs for n in (run.model, run.dataset, getattr(run, "eval_dataset", None)) if n}
    paths = sorted(path for path in {Path(name.rpartition("@")[2]) for name in names} if path.is_absolute())
    with (
        cluster(address, needs["num_cpus"], needs.get("num_gpus"), ENVIRONMENT, _differs, installed(), paths) as submit,
        NamedTemporaryFile(dir=out, prefix=".shared-") as mark,  # a machine that sees it writes where we read
    ):
        place = Path(mark.name).resolve()
        yield lambda folder, run: submit(_elsewhere, run, folder.relative_to(out), place, minutes)


def _differs(expected: dict[str, str], paths: list[Path]) -> str | None:
    """On a machine of the cluster: in what it differs from the one that started the study."""
    found = installed()
    other = [f"{name} {found[name][:12]}, not {value[:12]}" for name, value in expected.items() if found[name] != value]
    other += [f"no '{path}'" for path in paths if not path.exists()]
    return f"has {'; '.join(other)}: install the same there as here" if other else None


def _elsewhere(settings: Any, name: Path, mark: Path, minutes: float | None) -> str | dict[str, bytes]:
    """On a machine of the cluster: make a run. Returns what went wrong, or its files; none if the disk is shared."""
    files: dict[str, bytes] = {}
    return attempt(_make, settings, name, mark, files, minutes=minutes) or files


def _make(settings: Any, name: Path, mark: Path, files: dict[str, bytes]) -> None:
    shared = mark.exists()
    with nullcontext(mark.parent) if shared else TemporaryDirectory(prefix="rftkit-") as place:
        folder = Path(place) / name
        if place_of(settings, Path(place)) != folder:  # of a machine that came later, nothing was asked
            raise UserError(f"{socket.gethostname()} has other data, another model, other versions or other code")
        make_run(settings, Path(place))
        files.update({} if shared else run_files(folder))
