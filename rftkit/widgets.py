"""How completions are judged: as a table, and as a playground on top of it."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets
import pandas as pd

from rftkit.prompts import MODES
from rftkit.rewards import RULES, reward_functions, score
from rftkit.tasks import Example


def judge(completions: Sequence[str], example: Example, mode: str, rule: str = "strict") -> pd.DataFrame:
    """A row a completion: the parsed answer, each reward of the mode, and their sum."""
    table = pd.DataFrame({"completion": list(completions)})
    table["parsed"] = [score(text, example, mode, rule).parsed for text in completions]
    given = {"answer": [example.answer] * len(completions), "choices": [example.choices] * len(completions)}
    for reward in reward_functions(mode, rule):
        table[reward.__name__] = reward(completions, **given)
    table["reward"] = table.filter(like="_reward").sum(axis=1)
    return table


def playground(example: Example, completion: str) -> ipywidgets.VBox:
    """Type a completion of an example, choose mode and rule, and see how it is judged."""
    wide = ipywidgets.Layout(width="95%")
    text = ipywidgets.Textarea(completion, description="completion", layout=wide)
    modes = ipywidgets.Dropdown(options=list(MODES), value="thinking", description="mode")
    rules = ipywidgets.Dropdown(options=list(RULES), value="strict", description="rule")
    shown = ipywidgets.HTML()

    def update(_=None) -> None:
        shown.value = judge([text.value], example, modes.value, rules.value).drop(columns="completion").to_html()

    for control in (text, modes, rules):
        control.observe(update, "value")
    update()
    return ipywidgets.VBox([text, ipywidgets.HBox([modes, rules]), shown])
