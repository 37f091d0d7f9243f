"""The playground of notebook 00: type a completion, see what the reward sees."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import pandas as pd

from rftkit.prompts import MODES
from rftkit.rewards import RULES, score
from rftkit.tasks import Example


def judged(example: Example, mode: str, completions: Sequence[str], rule: str = "strict") -> pd.DataFrame:
    """Parsed answer, format and accuracy of completions, as a table: the playground without widgets."""
    scores = [score(text, example, mode, rule) for text in completions]
    columns = {"parsed": [s.parsed for s in scores], "format": [s.format for s in scores]}
    return pd.DataFrame({"completion": completions, **columns, "accuracy": [s.accuracy for s in scores]})


def playground(example: Example, text: str = "<think> it has points </think> <answer> star </answer>") -> widgets.VBox:
    """A text field, a mode and a rule; the judgement follows every key."""
    field = widgets.Textarea(text, description="completion", layout=widgets.Layout(width="60em", height="4em"))
    mode = widgets.Dropdown(options=list(MODES), description="mode")
    rule = widgets.Dropdown(options=list(RULES), description="rule")
    shown = widgets.HTML()

    def update(_=None) -> None:
        shown.value = judged(example, mode.value, [field.value], rule.value).to_html(index=False)

    for control in (field, mode, rule):
        control.observe(update, "value")
    update()
    return widgets.VBox([widgets.HTML(f"right answer: <b>{example.answer}</b>"), field, mode, rule, shown])
