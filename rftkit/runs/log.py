"""What happens beside training: the step log, sampled completions, the accuracy curve, a clear stop on NaN."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm
from transformers import TrainerCallback

from rftkit.common.errors import Diverged, UserError
from rftkit.prompts import completion_text
from rftkit.runs.folder import CURVE, METRICS, write_atomically, write_table

# TRL's name of a metric -> ours. `frac_reward_zero_std` is the share of groups whose completions all earned the
# same: their advantages are zero and they teach nothing. Near 1, the task is too hard, too easy or decided already.
COLUMNS = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_std",
    "rewards/accuracy_reward/mean": "accuracy_reward",
    "rewards/format_reward/mean": "format_reward",
    "frac_reward_zero_std": "frac_reward_zero_std",
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "clipped_ratio",
    "entropy": "entropy",
    "kl": "kl",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "num_tokens": "tokens",
}
ROLLOUTS_LOGGED = 16  # of each logged step
COMPLETIONS = "completions.parquet"


class RunLog(TrainerCallback):
    """Writes `metrics.csv` (a row a step), `completions.parquet` and `curve.csv` of a run folder.

    Tables are rewritten whole and atomically at each checkpoint; a resumed run drops what came after its checkpoint.

    Args:
        folder: the run folder.
        title: shown at the progress bar.
        curve: called every `curve_every` steps, returns rows for `curve.csv`; its time does not count as training.
        on_row: called with all rows so far after each step, for live plots.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        curve: Callable[[int], list[dict]] | None = None,
        curve_every: int = 0,
        on_row: Callable[[list[dict]], None] | None = None,
    ) -> None:
        self.folder, self.title, self.on_row = folder, title, on_row
        self.curve, self.curve_every = curve, curve_every
        self.bar = None
        self.trainer = None  # set by the trainer's maker; a GRPO trainer has rollouts to sample
        self.rows: list[dict] = []
        self.rollouts: list[dict] = []
        self.points: list[dict] = []
        self.tokens_before = 0  # of a killed run: TRL's SFT counter starts anew in the run that goes on

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        done = state.global_step
        self.rows = [row for row in _read(self.folder / METRICS) if row["step"] <= done]
        self.rollouts = [row for row in _read(self.folder / COMPLETIONS) if row["step"] <= done]
        self.points = [row for row in _read(self.folder / CURVE) if row["step"] <= done]
        self.bar = tqdm(total=state.max_steps, initial=done, desc=self.title, leave=True)
        if self.curve and not self.points:
            self.points += self.curve(0)
        self.clock = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return  # another process writes, or it is the summary at the end
        row = {"step": state.global_step}
        row |= {ours: logs[theirs] for theirs, ours in COLUMNS.items() if logs.get(theirs) is not None}
        if "tokens" in row:
            if self.rows and row["tokens"] + self.tokens_before < self.rows[-1].get("tokens", 0):
                self.tokens_before = self.rows[-1]["tokens"]
            row["tokens"] += self.tokens_before
        row["step_seconds"] = time.perf_counter() - self.clock
        if hasattr(self.trainer, "take_generate_seconds"):
            row["generate_seconds"] = self.trainer.take_generate_seconds()
            self._keep_rollouts(state.global_step)
        self.rows.append(row)
        self._stop_on_nan(row)
        self.bar.update(1)
        shown = {key: f"{row[key]:.3g}" for key in ("loss", "reward") if key in row}
        self.bar.set_postfix(shown)
        if self.on_row:
            self.on_row(self.rows)
        if self.curve and self.curve_every and state.global_step % self.curve_every == 0:
            self.points += self.curve(state.global_step)
        if control.should_save:  # before the checkpoint: rows after it are dropped when a killed run goes on
            self.write()
        self.clock = time.perf_counter()

    def on_save(self, args, state, control, **kwargs):
        self.clock = time.perf_counter()  # saving is not training

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.write()

    def close(self) -> None:
        """End the bar, so that what is said next has a line of its own; also after an error."""
        if self.bar is not None:
            self.bar.close()

    def write(self) -> None:
        """Write the three tables, each atomically."""
        for name, rows in ((METRICS, self.rows), (CURVE, self.points)):
            if rows:
                write_atomically(self.folder / name, pd.DataFrame(rows).to_csv(index=False))
        if self.rollouts:
            write_table(self.folder / COMPLETIONS, self.rollouts)

    def _keep_rollouts(self, step: int) -> None:
        logs = self.trainer._logs
        for place in range(min(ROLLOUTS_LOGGED, len(logs["completion"]))):
            row = {"step": step, "prompt": completion_text(logs["prompt"][place])}
            row["completion"] = completion_text(logs["completion"][place])
            row |= {name: values[place] for name, values in logs["rewards"].items()}
            self.rollouts.append(row | {"advantage": logs["advantages"][place]})

    def _stop_on_nan(self, row: dict) -> None:
        for name in ("loss", "grad_norm"):
            if not math.isfinite(row.get(name, 0.0)):
                raise Diverged(
                    f"training stopped: {name} is {row[name]} at step {row['step']}; lower the learning rate "
                    f"({row['learning_rate']:g}) or train in fp32"
                )


def _read(path: Path) -> list[dict]:
    return read_log(path).to_dict("records") if path.exists() else []


def read_log(path: Path) -> pd.DataFrame:
    """A table of those a `RunLog` writes; UserError if it was changed since."""
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, float_precision="round_trip")
        if pd.api.types.is_integer_dtype(table["step"]):
            return table
    except (OSError, ValueError, LookupError):  # pandas' and pyarrow's are of these
        pass
    raise UserError(f"'{path}' is not what a run writes: remove the folder to make the run anew")


def training_summary(folder: Path) -> dict[str, float] | None:
    """Seconds, steps and tokens of training out of `metrics.csv`; None if nothing was trained."""
    if not (folder / METRICS).exists():
        return None
    rows = read_log(folder / METRICS)
    seconds, generate = rows["step_seconds"].sum(), rows.get("generate_seconds", pd.Series([0.0])).sum()
    return {
        "seconds": round(float(seconds), 3),
        "steps": len(rows),
        "generate_seconds": round(float(generate), 3),
        "update_seconds": round(float(seconds - generate), 3),
        "tokens": int(rows["tokens"].iloc[-1]) if "tokens" in rows else None,
    }
