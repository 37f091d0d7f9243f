"""The matrix of gains: trained on one set, tested on all."""

import pytest

from rftkit.evaluate import evaluate_data
from rftkit.plots import matrix_figure
from rftkit.run import execute
from rftkit.settings import load_settings
from rftkit.transfer import gains, paper_gains


def test_gains_are_accuracy_after_minus_before(tmp_path):
    folder = execute(load_settings("smoke", "no_thinking_rl", learning_rate=3e-3, pass_items=0), tmp_path)
    table = gains([folder], ["shapes", "digits"], items=12)
    assert list(table.index) == ["shapes"] and list(table.columns) == ["shapes", "digits"]
    expected = [
        sum(part["accuracy"] for part in evaluate_data("nano-s", "digits", adapter=adapter, limit=12,
            max_tokens=12, progress=False)["eval"].values()) / 2
        for adapter in (str(folder / "adapter"), None)
    ]  # fmt: skip
    assert table.loc["shapes", "digits"] == pytest.approx(expected[0] - expected[1])
    assert matrix_figure({"ours": 100 * table}, "points").axes


@pytest.mark.parametrize("method", ["cls_rl", "no_thinking_rl"])
def test_the_papers_matrix_is_eleven_by_eleven(method):
    assert paper_gains(method).shape == (11, 11)
