"""Measures an agent's start model and writes its model card: how often it wins, and how true its thoughts are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rftkit.common.statistics import proportion
from rftkit.gtr.measures import fixed_states, on_fixed_states
from rftkit.gtr.play import parts_of, play_out
from rftkit.gtr.run import start_policy
from rftkit.gtr.settings import TRAINABLE, load_settings
from rftkit.runs.folder import write_atomically

TEMPERATURES = (0.7, 0.2)  # the toy's, and the paper's
WON = {"numberline": (0.10, 0.60), "ezpoints": (0.10, 0.60), "points24": (0.01, 0.06)}  # data/gtr.yaml: requirements
LEAST_FORMED = 0.85  # of replies are valid JSON, and name a legal action
MEASURES = ("json", "legal", "facts", "thought", "plan", "tokens")


def agent_rows(name: str) -> list[dict]:
    """Success on fixed deals by environment, part and temperature, and the measures of replies to fixed states."""
    rows = []
    for dataset in TRAINABLE:
        settings = load_settings("nano", dataset=dataset, model=name)
        policy = start_policy(settings)
        for temperature in TEMPERATURES:
            at = replace(settings, temperature=temperature)
            thoughts, _ = on_fixed_states(policy, fixed_states(at), at)
            for part in parts_of(dataset):
                episodes, _ = play_out(policy, at, part)
                won = proportion(sum(row["success"] for row in episodes), len(episodes))
                solvable = sum(row["solvable"] for row in episodes)
                row = {"dataset": dataset, "part": part, "temperature": temperature, "solvable": solvable}
                rows.append(row | won | {measure: thoughts[measure] for measure in MEASURES})
    return rows


def unmet(rows: list[dict]) -> list[str]:
    """The requirements of a start model (`data/gtr.yaml`) that it does not meet, a line each."""
    lines = []
    for row in rows:
        if row["temperature"] != TEMPERATURES[0] or row["part"] == "test":
            continue
        least, most = WON[row["dataset"]]
        if not least <= row["accuracy"] <= most:
            lines.append(
                f"{row['dataset']}: won in {100 * row['accuracy']:.1f} %, not in {100 * least:g} to {100 * most:g}"
            )
        for measure in ("json", "legal"):
            if row[measure] < LEAST_FORMED:
                lines.append(f"{row['dataset']}: {measure} {100 * row[measure]:.1f} %, below {100 * LEAST_FORMED:g}")
    return lines


def write_agent_card(name: str, folder: Path, recipe: dict) -> Path:
    """Write `MODEL_CARD.md` and `zero_shot.json` into an agent's folder, from fresh measurements."""
    rows = agent_rows(name)
    write_atomically(folder / "zero_shot.json", json.dumps(rows, indent=1))
    write_atomically(folder / "MODEL_CARD.md", card_text(name, recipe, rows))
    return folder / "MODEL_CARD.md"


def card_text(name: str, recipe: dict, rows: list[dict]) -> str:
    """The model card as Markdown."""
    head = ("environment", "deals", "T", "won, %", "of", "solvable", *MEASURES)
    table = [head, ("---",) * len(head)]
    for row in rows:
        deals = row["dataset"], row["part"], f"{row['temperature']:g}"
        won = f"{100 * row['accuracy']:.1f}", str(row["n"]), str(row["solvable"])
        shares = (f"{100 * row[measure]:.1f}" for measure in MEASURES[:-1])
        table.append((*deals, *won, *shares, f"{row['tokens']:.1f}"))
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    missed = "\n".join(f"- {line}" for line in unmet(rows)) or "All are met."
    return f"""# {name}

A start model of GTR: an agent of {recipe["parameters"] / 1e6:.2f} M parameters that plays NumberLine, EZPoints and
Points24 from pictures. Made by `rftkit nano agent`, licence Apache-2.0, no outside data.

Recipe: `{json.dumps({key: value for key, value in recipe.items() if key != "parameters"})}`

It starts weak, as the paper's models after SFT do. [rftkit/nano/agent.py](../../../rftkit/nano/agent.py) says what it
was shown. The mixture stands in [gtr.yaml](../../gtr.yaml).

## How it plays
Fixed deals by plain rules. The shares behind them are of replies to fixed states: valid JSON, a legal action, true
fields, right thoughts, and right thoughts where the game can still be won.

{lines}

## Requirements
Those of `data/gtr.yaml`, at temperature {TEMPERATURES[0]:g}:

{missed}
"""
