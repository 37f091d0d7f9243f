"""`rftkit report --against`: is anything worse than in an earlier report? For nightly runs."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter

from rftkit.common.errors import UserError
from rftkit.runs.results import Share


def read_baseline(baseline: Path | None, tolerance: float) -> dict[str, float] | None:
    """The accuracies of an earlier `report.json`; None if there is nothing to compare with. Checks both options."""
    if not 0 <= tolerance <= 1:
        raise UserError(f"--tolerance is a share between 0 and 1, not {tolerance:g}")
    if baseline is None:
        return None
    if not baseline.is_file():
        raise UserError(f"no baseline '{baseline}': give the report.json of an earlier report")
    try:
        numbers = TypeAdapter(dict[str, Share]).validate_json(baseline.read_bytes(), strict=True)
    except ValueError:
        numbers = {}
    if not numbers or not all(map(str.isprintable, numbers)):
        raise UserError(f"'{baseline}' is no report.json: it must map names to accuracies")
    return numbers


def worse(report: Path, before: dict[str, float], tolerance: float) -> list[str]:
    """A line for each accuracy of a baseline that is missing in a `report.json` now, or lower by more.

    Args:
        tolerance: how much lower an accuracy may be, 0-1.
    """
    now, lines = json.loads(report.read_text()), []
    for name, value in before.items():
        if name not in now:
            lines.append(f"worse: {name}: no runs of it any more")
        elif value - now[name] > tolerance + 1e-9:
            lines.append(f"worse: {name}: {100 * value:.1f} % before, {100 * now[name]:.1f} % now")
    return lines
