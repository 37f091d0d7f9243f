"""`rftkit report --against`: is anything worse than in an earlier report? For nightly runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from rftkit.common.errors import UserError
from rftkit.runs.folder import write_atomically


@dataclass(frozen=True)
class Case:
    """One number of a baseline, and what is wrong with it now; an empty `failure` means nothing is."""

    name: str
    failure: str


def read_baseline(baseline: Path | None, tolerance: float, junit: Path | None) -> dict[str, float] | None:
    """The accuracies of an earlier `report.json`; None if there is nothing to compare with. Checks all options."""
    if not 0 <= tolerance <= 1:
        raise UserError(f"--tolerance is a share between 0 and 1, not {tolerance:g}")
    if baseline is None and junit is not None:
        raise UserError("--junit writes a comparison: give --against too")
    if baseline and junit and baseline.resolve() == junit.resolve():
        raise UserError("--junit would replace the baseline: give it a name of its own")
    return None if baseline is None else _read(baseline)


def compare(report: Path, before: dict[str, float], tolerance: float) -> list[Case]:
    """A case for each accuracy of a baseline: it fails if it is missing in a `report.json` now, or lower by more.

    Args:
        tolerance: how much lower an accuracy may be, 0-1.
    """
    now = json.loads(report.read_text())
    return [Case(name, _failure(now.get(name), value, tolerance)) for name, value in before.items()]


def _failure(now: float | None, before: float, tolerance: float) -> str:
    if now is None:
        return "no runs of it any more"
    return f"{100 * before:.1f} % before, {100 * now:.1f} % now" if before - now > tolerance + 1e-9 else ""


def _read(baseline: Path) -> dict[str, float]:
    if not baseline.is_file():
        raise UserError(f"no baseline '{baseline}': give the report.json of an earlier report")
    try:
        content = json.loads(baseline.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{baseline}' is not valid JSON: {error}") from error
    numbers = content if isinstance(content, dict) else {}
    shares = all(type(number) in (int, float) and 0 <= number <= 1 for number in numbers.values())  # NaN is none
    if not numbers or not shares or not all(map(str.isprintable, numbers)):
        raise UserError(f"'{baseline}' is no report.json: it must map names to accuracies")
    return content


def as_text(cases: list[Case]) -> str:
    """Each failing case on a line, and how many there are."""
    failing = [case for case in cases if case.failure]
    lines = [f"worse: {case.name}: {case.failure}" for case in failing]
    return "\n".join([*lines, f"{len(cases) - len(failing)} of {len(cases)} numbers as good as in the baseline"])


def write_junit(cases: list[Case], path: Path) -> None:
    """The cases as JUnit XML."""
    failures = str(sum(bool(case.failure) for case in cases))
    suite = ElementTree.Element("testsuite", name="rftkit report", tests=str(len(cases)), failures=failures)
    for case in cases:
        place, _, name = case.name.partition("/")
        element = ElementTree.SubElement(suite, "testcase", classname=place, name=name)
        if case.failure:
            ElementTree.SubElement(element, "failure", message=case.failure)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, ElementTree.tostring(suite, encoding="unicode"))
