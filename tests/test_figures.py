"""Figures can be read: nothing overlaps or leaves its frame, and what differs does so without colours too."""

import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from rftkit.analysis.claims import Comparison, read_rows
from rftkit.analysis.methods import MethodRow, method_rows
from rftkit.common.paths import LOGS
from rftkit.report.curves import TITLES, archived_logs, curve_figure, mean_curves, read_curve, training_figure
from rftkit.report.figures import accuracy_figure, bar_figure, claims_figure
from rftkit.report.samples import examples_figure, visible
from rftkit.report.tables import long_methods_table, methods_table
from rftkit.runs.collect import load_runs
from rftkit.runs.log import COLUMNS

LONG = "<think> it has straight sides and it has ten corners </think> The picture shows a star."


def drawn(figure):
    """A figure as it is saved; a warning (of its layout, of a letter that its font lacks) is an error."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.draw()
    return canvas.get_renderer()


def boxes(figure):
    """Of each text that is no number at an axis, its box in pixels."""
    renderer = drawn(figure)
    numbers = [text for axes in figure.axes for side in (axes.xaxis, axes.yaxis) for text in side.findobj(Text)]
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in numbers]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("star", "star"), (" star ", "␣star␣"), ("a\n\nb", "a↵↵b"), ("  ", "␣␣"), ("", "∅"), ("a\tb", "a⇥b"), ("\n", "↵")],
)
def test_what_cannot_be_seen_is_made_visible(text, shown):
    assert visible(text) == shown


def test_texts_below_pictures_do_not_overlap(shapes):
    texts = [(f"before: {LONG}", f"after: {LONG}"), "\n" * 12, "", " ", LONG * 3, "star"]
    figure = examples_figure([*shapes[:6], *shapes[:6]], texts * 2)
    frame = figure.bbox
    found = boxes(figure)
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 + 1 and frame.y0 <= box.y0 for _, box in found)
    for place, (text, box) in enumerate(found):
        assert not [other for other, beside in found[place + 1 :] if box.overlaps(beside)], text
    assert [text for text, _ in found if "↵" in text] == ["↵" * 12] * 2


def test_a_figure_of_examples_is_as_high_as_its_texts_and_pictures_stay_as_they_are(shapes):
    none, short, long = (examples_figure(shapes[:6], texts) for texts in (None, ["star"] * 6, [LONG * 2] * 6))
    assert none.get_figheight() < short.get_figheight() < long.get_figheight()
    sizes = [figure.axes[0].get_window_extent().height for figure in (none, short, long)]
    assert np.allclose(sizes, sizes[0])


def test_a_run_has_one_colour_and_columns_plain_titles():
    tables = {name: pd.DataFrame({"step": [1, 2], "reward": [0.0, 1.0], "entropy": [1.0, 0.5]}) for name in "ab"}
    figure = training_figure(tables, ["reward", "entropy"])
    drawn(figure)
    for axes, title in zip(figure.axes, ("reward of a completion", "entropy, nats a token"), strict=True):
        colours = [line.get_color() for line in axes.get_lines()]  # of each run the steps, and their mean
        assert colours[0] == colours[1] != colours[2] == colours[3]
        assert (axes.get_title(), axes.get_xlabel()) == (title, "optimizer step")
    assert set(TITLES) >= set(COLUMNS.values()) - {"learning_rate", "tokens"}


def test_base_and_new_differ_without_colours():
    figure = curve_figure({"run": read_curve(LOGS / "shapes-sft")})
    base, new = figure.axes[0].get_lines()
    assert base.get_marker() != new.get_marker() and base.get_linestyle() != new.get_linestyle()
    drawn(figure)


def test_claims_stand_inside_their_frame_beside_the_papers():
    rows = [
        Comparison(claim=claim, measure="h", difference=difference, verdict=verdict, paper=paper)
        for claim, difference, verdict, paper in (
            ("no-thinking RL beats SFT on all tokens", (0.6, 0.5, 0.99), "same direction", {"H": 0.25}),
            ("thinking after the answer beats thinking before", (-0.9, -1.0, -0.8), "No-Thinking-RL ahead", {}),
        )
    ]
    figure = claims_figure(rows)
    (axes,), renderer = figure.axes, drawn(figure)
    frame = axes.get_window_extent(renderer)
    ends = [segment.vertices[:, 0].max() for bars in axes.collections for segment in bars.get_paths()]
    for text, end in zip(axes.texts, ends, strict=True):
        box = text.get_window_extent(renderer)
        assert frame.x0 < box.x0 and box.x1 < frame.x1 and axes.transData.transform((end, 0))[0] < box.x0
    (theirs,) = [line for line in axes.get_lines() if line.get_label().startswith("paper")]
    assert theirs.get_xydata().tolist() == [[25, 0]] and theirs.get_marker() not in "os"
    figures = map(claims_figure, read_rows(LOGS / "sets" / "report-sets.json").values())
    assert [drawn(figure) for figure in figures]


def test_completions_beside_bars_begin_at_the_left_and_end_before_them():
    figure = bar_figure([LONG, "star", "a\nb"], [0.1, -0.1, 0.2], "change")
    renderer = drawn(figure)
    (axes,) = figure.axes
    labels = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
    assert np.ptp([box.x0 for box in labels]) < 1 and max(box.x1 for box in labels) < axes.bbox.x0
    assert axes.get_yticklabels()[2].get_text() == "a↵b"


def row_of(parts, paper, rules=("strict", "lenient")):
    accuracy = {rule: {part: (0.5, 0.4, 0.6) for part in (*parts, "h")} for rule in rules}
    shares = dict.fromkeys(parts, 0.5)
    return MethodRow("sft", "SFT", [("nano-s", 0)], accuracy, shares, shares, 3.0, 10.0, paper, 11, {})


@pytest.mark.parametrize(
    ("parts", "paper"),
    [
        (["base", "new"], {"base": 60.0, "new": 70.0, "H": 65.0}),
        (["level 1", "level 2", "level 3"], {"MathVista": 40.0, "MATH-Vision": 10.0}),
        (["all"], {}),
    ],
)
def test_a_result_table_has_at_most_eight_columns(parts, paper):
    rows = [row_of(parts, paper)]
    table, long = methods_table(rows), long_methods_table(rows)
    assert len(table.columns) <= 8 and not [name for name in table.columns if "lenient" in name]
    assert not table.map(lambda cell: "[" in cell).any(axis=None) and f"lenient {parts[0]}" in long.columns
    assert long[f"strict {parts[0]}"][0] == "50.0 [40.0, 60.0]"


def test_archived_runs_are_drawn_without_a_warning():
    drawn(accuracy_figure(method_rows(next(iter(load_runs(LOGS / "swapped").values())))))
    logs = archived_logs("math")
    assert list(mean_curves(logs, "math").columns)[:2] == ["CLS-RL (thinking)", "No-Thinking-RL"]
    assert archived_logs("nosuch") == {}
