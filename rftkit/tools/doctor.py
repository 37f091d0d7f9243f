"""`rftkit doctor`: what this machine can run, each line [ok] or [no] with the fix.

Imports of packages stand inside the checks: one that is missing must not end the others.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from rftkit.common.paths import DATA, NOTEBOOKS

GIB = 2**30
# What each profile needs of the disk for runs and models, and of a laptop's memory with notebooks and all, in GiB.
DISK = {"smoke": 1, "nano": 1, "gpu-2b": 12, "gpu-3b": 16, "gpu-7b": 40, "gpu-qwen3-2b": 12, "gpu-qwen3-4b": 20}
MEMORY = {"smoke": 2, "nano": 4}


@dataclass(frozen=True)
class Line:
    """One finding: its name, whether it is fine, what was seen, and how to fix it."""

    name: str
    ok: bool
    seen: str
    fix: str = ""


def diagnose() -> list[Line]:
    """All findings, most basic first. A check whose own package is missing says so; the others still run."""
    lines = []
    for check in (_packages, _disk, _memory, _device, _profiles):
        try:
            lines += check()
        except (ImportError, OSError, RuntimeError) as error:  # the latter from packages that are there but broken
            name = getattr(error, "name", None)
            fix = f"pip install {name}" if name else "pip install -r requirements.lock again"
            lines.append(Line(check.__name__.strip("_"), False, f"cannot tell: {error}", fix))
    return lines


def _packages() -> Iterator[Line]:
    """Python, and what rftkit needs of packages."""
    yield Line("python", sys.version_info >= (3, 11, 5), platform.python_version(), "install Python 3.11.5 or newer")
    from packaging.requirements import Requirement

    try:
        needs = [Requirement(text) for text in requires("rftkit") or []]
    except PackageNotFoundError:
        yield Line("rftkit", False, "not installed", "pip install --no-deps --no-build-isolation -e .")
        return
    for need in needs:
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            seen = version(need.name)
            ok = need.specifier.contains(seen, prereleases=True)
        except PackageNotFoundError:
            seen, ok = "not installed", False
        yield Line(need.name, ok, seen, f'pip install "{need}"')


def _disk() -> Iterator[Line]:
    models = sorted(path.parent.name for path in (DATA / "models").glob("*/model.safetensors"))
    fix = "install from a clone with pip install -e ."
    yield Line("bundled models", bool(models), ", ".join(models) or "none", fix)
    yield Line("notebooks", NOTEBOOKS.is_dir(), str(len(list(NOTEBOOKS.glob("*.ipynb")))), fix)
    free = _free_disk()
    yield Line("disk", free >= 1, f"{free:.1f} GiB free here", "free 1 GiB, or give --out on another disk")


def _memory() -> Iterator[Line]:
    free = _free_memory()
    yield Line("memory", free >= 4, f"{free:.1f} GiB free", "close other programs: the CPU study needs 4 GiB")


def _free_disk() -> float:
    return shutil.disk_usage(".").free / GIB


def _free_memory() -> float:
    import psutil

    return psutil.virtual_memory().available / GIB


def _device() -> Iterator[Line]:
    import torch

    yield Line("cpu", True, f"{os.cpu_count() or 1} cores, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        yield Line(f"gpu {index}", True, f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB")
    if not torch.cuda.is_available():
        yield Line("gpu", False, "none", "the bundled models need none; for gpu-2b use a machine with CUDA")


@dataclass(frozen=True)
class Needs:
    """What a profile needs, in GiB; of a GPU's memory the most that `rftkit estimate` prints for a method."""

    memory: float
    kind: str  # memory, or GPU memory
    disk: int


def needs(profile: str) -> Needs:
    """What a profile of the kit needs: the one source for `rftkit doctor` and the boxes of the notebooks."""
    if profile in MEMORY:
        return Needs(MEMORY[profile], "memory", DISK[profile])
    from rftkit.memory.peak_memory import estimate
    from rftkit.run import asked_examples
    from rftkit.settings import METHODS, load_settings

    chosen = [load_settings(profile, method, device="cuda") for method in METHODS]
    peak = max(estimate(settings, asked_examples(settings)).memory["total"] for settings in chosen)
    return Needs(round(peak / GIB, 2), "GPU memory", DISK[profile])


def _profiles() -> Iterator[Line]:
    from rftkit.memory.peak_memory import free_memory

    for name in DISK:
        need = needs(name)
        free = _free_memory() if need.kind == "memory" else (free_memory("cuda") or 0) / GIB
        ok = free >= need.memory and _free_disk() >= need.disk
        seen = f"needs {need.memory:g} GiB {need.kind}, {need.disk} GiB disk"
        yield Line(f"profile {name}", ok, seen, "see the lines above")


def as_text(lines: list[Line]) -> str:
    """The findings for people."""
    width = max(len(line.name) for line in lines)
    told = []
    for line in lines:
        mark, fix = ("ok", "") if line.ok else ("no", f"  -> {line.fix}")
        told.append(f"[{mark}] {line.name:<{width}}  {line.seen}{fix}")
    return "\n".join(told)
