"""`rftkit doctor`: what this machine can run, each line [ok] or [no] with the fix.

Imports of packages stand inside the checks: one that is missing must not end the others.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from rftkit.common.paths import DATA, NOTEBOOKS

GIB = 2**30
# What each profile needs of the disk for runs and models, and of a laptop's memory with notebooks and all, in GiB.
DISK = {"smoke": 1, "nano": 1, "gpu-2b": 12, "gpu-3b": 16, "gpu-7b": 40}
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
    for check in (_python, _packages, _data, _memory, _disk, _device, _profiles):
        try:
            lines += check()
        except (ImportError, OSError, RuntimeError) as error:  # the latter from packages that are there but broken
            name = getattr(error, "name", None)
            fix = f"pip install {name}" if name else "pip install -r requirements.lock again"
            lines.append(Line(check.__name__.strip("_"), False, f"cannot tell: {error}", fix))
    return lines


def _python() -> list[Line]:
    return [Line("python", sys.version_info >= (3, 11, 5), platform.python_version(), "install Python 3.11.5 or newer")]


def _packages() -> list[Line]:
    from packaging.requirements import Requirement

    try:
        needs = [Requirement(text) for text in requires("rftkit") or []]
    except PackageNotFoundError:
        return [Line("rftkit", False, "not installed", "pip install --no-deps --no-build-isolation -e .")]
    lines = []
    for need in needs:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            seen = version(need.name)
            ok = need.specifier.contains(seen, prereleases=True)
        except PackageNotFoundError:
            seen, ok = "not installed", False
        lines.append(Line(need.name, ok, seen, f'pip install "{need}"'))
    return lines


def _data() -> list[Line]:
    models = sorted(path.parent.name for path in (DATA / "models").glob("*/model.safetensors"))
    fix = "install from a clone with pip install -e ."
    return [
        Line("bundled models", bool(models), ", ".join(models) or "none", fix),
        Line("notebooks", NOTEBOOKS.is_dir(), str(len(list(NOTEBOOKS.glob("*.ipynb")))), fix),
    ]


def _memory() -> list[Line]:
    free = _free_memory()
    return [Line("memory", free >= 4, f"{free:.1f} GiB free", "close other programs: the CPU study needs 4 GiB")]


def _disk() -> list[Line]:
    free = _free_disk()
    return [Line("disk", free >= 1, f"{free:.1f} GiB free here", "free 1 GiB, or give --out on another disk")]


def _free_memory() -> float:
    import psutil

    return psutil.virtual_memory().available / GIB


def _free_disk() -> float:
    return shutil.disk_usage(Path.cwd()).free / GIB


def _device() -> list[Line]:
    import torch

    lines = [Line("cpu", True, f"{os.cpu_count() or 1} cores, {torch.get_num_threads()} threads")]
    if not torch.cuda.is_available():
        return [*lines, Line("gpu", False, "none", "the bundled models need none; for gpu-2b use a machine with CUDA")]
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        lines.append(Line(f"gpu {index}", True, f"{device.name}, {device.total_memory / GIB:.0f} GiB"))
    return lines


def _profiles() -> list[Line]:
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    lines = []
    for name, disk in DISK.items():
        if name in MEMORY:
            here, memory, kind = _free_memory(), MEMORY[name], "memory"
        else:
            here = max((gpu.total_memory / GIB for gpu in gpus), default=0)
            memory, kind = _gpu_memory(name), "GPU memory"
        ok = here >= memory and _free_disk() >= disk
        seen = f"needs {memory:g} GiB {kind}, {disk} GiB disk"
        lines.append(Line(f"profile {name}", ok, seen, "see the lines above"))
    return lines


def _gpu_memory(profile: str) -> float:
    """GiB, to two decimals: the most that `rftkit estimate --profile PROFILE --device cuda` prints for a method."""
    from rftkit.memory.estimate import estimate
    from rftkit.run import asked_examples
    from rftkit.settings import METHODS, load_settings

    chosen = [load_settings(profile, method, device="cuda") for method in METHODS]
    return round(max(estimate(settings, asked_examples(settings)).memory["total"] for settings in chosen) / GIB, 2)


def as_text(lines: list[Line]) -> str:
    """The findings for people."""
    width = max(len(line.name) for line in lines)
    return "\n".join(_text(line, width) for line in lines)


def _text(line: Line, width: int) -> str:
    seen = f"{line.name:<{width}}  {line.seen}"
    return f"[ok] {seen}" if line.ok else f"[no] {seen}  -> {line.fix}"
