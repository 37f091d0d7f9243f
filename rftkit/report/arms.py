"""What a report says of a method beside the study's (GTR, SOPHIA)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from pandas import DataFrame

from rftkit.analysis.arms import Method
from rftkit.analysis.claims import Comparison
from rftkit.report.tables import DECIDED, points, table_of
from rftkit.runs.arms import ArmRun


@dataclass(frozen=True, eq=False)
class ArmsPage:
    """A method's part of a report.

    Args:
        name: of the method.
        rows: one an arm, which `table` shows.
        verdicts: the table of its decided comparisons.
        figures: of the runs and their rows, by title.
    """

    name: str
    method: Method
    heading: str
    legend: str
    rows: Callable[[Sequence[ArmRun]], list[Any]]
    table: Callable[[Sequence[Any]], DataFrame]
    verdicts: Callable[[list[Comparison]], DataFrame]
    figures: dict[str, Callable[[Sequence[ArmRun], list[Any]], Figure]]


def decided_table(rows: Sequence[Comparison], place: dict[str, Callable[[Comparison], str]]) -> DataFrame:
    """Decided comparisons of arms (`analysis.arms.verdict_rows`); `place` has the columns that say where."""

    def beside(row: Comparison) -> str:
        return "; ".join(f"{part} {points(cell)}" for part, cell in row.beside.items())

    return table_of(rows, {"claim": lambda row: row.claim} | place | DECIDED | {"parts, uncorrected": beside})
