"""What the notebooks share: four rollouts by hand, GRPO's arithmetic small enough to read, runs shown, self-checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets
import pandas as pd
import torch
from IPython.display import Markdown, clear_output, display
from matplotlib.figure import Figure
from torch.nn.functional import pad
from transformers import set_seed

from rftkit.analysis.methods import method_rows, title_of
from rftkit.common.errors import said
from rftkit.common.paths import LOGS, NOTEBOOKS
from rftkit.evaluate import answer_rows, encode, generate
from rftkit.models import pick_device, quieten
from rftkit.prompts import MODES
from rftkit.report.curves import LivePlot, read_metrics, run_curves, training_figure, with_titles
from rftkit.report.figures import accuracy_figure
from rftkit.report.samples import examples_figure, visible
from rftkit.report.tables import LEGEND, markdown, methods_table
from rftkit.rewards import RULES, reward_functions, score
from rftkit.run import execute, folder_of, generation_options, load_run, run_methods, test_splits
from rftkit.runs.changed import as_set
from rftkit.runs.collect import Methods
from rftkit.runs.fingerprint import versions
from rftkit.runs.folder import METRICS, is_complete, read_results, read_settings
from rftkit.runs.log import COMPLETIONS
from rftkit.runs.results import Run
from rftkit.settings import METHODS, Settings, load_settings
from rftkit.sft import Collator, sft_rows
from rftkit.tasks.example import Example
from rftkit.tasks.late import open_late
from rftkit.tasks.registry import open_set, short_name

# A group of completions of `fixed_example`, an arrow: right, right but not as asked, wrong, vague prose.
STRAIGHT, VAGUE = "it has straight sides", "The picture shows an angular thing."
ROLLOUTS = {
    "thinking": [
        f"<think> {STRAIGHT} </think> <answer> arrow </answer>",
        f"<think> {STRAIGHT} <answer> arrow </answer>",
        "<think> it has six corners </think> <answer> bolt </answer>",
        f"<think> {STRAIGHT} </think> {VAGUE}",
    ],
    "adaptive": [
        "<answer> arrow </answer>",
        f"<think> {STRAIGHT} <answer> arrow </answer>",
        "<think> it has six corners </think> <answer> bolt </answer>",
        VAGUE,
    ],
    "no_thinking": ["arrow", "The picture shows an arrow.", "bolt", VAGUE],
    "think_after_answer": [
        f"<answer> arrow </answer> <reason> {STRAIGHT} </reason>",
        f"<answer> arrow </answer> <reason> {STRAIGHT}",
        "<answer> bolt </answer> <reason> it has six corners </reason>",
        f"{VAGUE} <reason> {STRAIGHT} </reason>",
    ],
}


def fixed_example() -> Example:
    """The example of the hand-written rollouts."""
    return open_set("shapes").examples("test", "base", 1)[0]


def group_advantage(rewards: torch.Tensor) -> torch.Tensor:
    """Advantages [G] of a group's rewards [G]: how far each is above the group's mean, in standard deviations."""
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)


def grpo_loss(log_probs: torch.Tensor, mask: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """GRPO's loss, on-policy: the mean over completions of the mean over each one's tokens.

    log_probs and mask are [G, T], advantages [G].
    """
    ratio = torch.exp(log_probs - log_probs.detach())  # 1, but its gradient is that of log_probs
    per_token = -ratio * advantages[:, None] * mask  # [G, T]
    return (per_token.sum(1) / mask.sum(1)).mean()


def completion_log_probs(model, processor, example: Example, mode: str, completions: Sequence[str]):
    """Log-probs [G, T] of the tokens of G completions, each with its end token, and their mask [G, T]."""
    inputs = encode(processor, [example] * len(completions), mode).to(model.device)
    texts = [text + processor.tokenizer.eos_token for text in completions]
    answer = processor.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").to(model.device)
    for name in ("input_ids", "attention_mask"):
        inputs[name] = torch.cat([inputs[name], answer[name]], 1)
    length = answer["input_ids"].shape[1]
    inputs["mm_token_type_ids"] = pad(inputs["mm_token_type_ids"], (0, length))
    logits = model(**inputs, logits_to_keep=length + 1).logits[:, :-1].float()  # [G, T, V]
    return logits.log_softmax(-1).gather(2, answer["input_ids"][..., None])[..., 0], answer["attention_mask"]


def loss_tokens(processor, example: Example, method: str) -> list[int]:
    """The tokens that carry the loss of `sft` or `sft_all` when it is trained on an example."""
    row = sft_rows([example], METHODS[method].mode)[0]
    collate = open_late(Collator(processor, completion_only_loss=method == "sft"), [example])
    labels = collate([row])["labels"][0]
    return labels[labels != -100].tolist()


def token_texts(processor, ids: Sequence[int]) -> list[str]:
    """The text of each token, blanks made visible."""
    return [visible(processor.tokenizer.decode([token])) for token in ids]


def readable(table: pd.DataFrame) -> Markdown:
    """A table from the left: completions as code, what cannot be seen in them made visible; two digits a number."""

    def cell(column: str, value: Any) -> str:
        if column in ("completion", "parsed", "token") and isinstance(value, str):
            return f"`{visible(value).replace('`', chr(39)).replace('|', chr(92) + '|')}`"
        if isinstance(value, Real) and not isinstance(value, Integral):
            return "" if pd.isna(value) else f"{value:.2f}"
        return "" if value is None else str(value)

    return Markdown(markdown(pd.DataFrame({name: [cell(name, v) for v in table[name]] for name in table})))


def check(statement: str, holds: Callable[[], bool]) -> None:
    """Print whether a statement about an exercise's solution holds, and what it raised if it could not run."""
    try:
        passed, raised = bool(holds()), ""
    except Exception as error:  # whatever half a solution raises
        unsolved = "NoneType" in str(error)  # as exercises are given out
        passed, raised = False, "" if unsolved else f"\n       {type(error).__name__}: {said(error)}"
    print(f"[{'pass' if passed else 'fail'}] {statement}{raised}")


def solution(notebook: str, exercise: int) -> SimpleNamespace:
    """What the solution of an exercise defines, so that its check need not show it: `times == solution("04", 3).times`.

    For solutions that stand by themselves: they know none of the notebook's own names.
    """
    (path,) = (NOTEBOOKS / "solutions").glob(f"{notebook}_*.ipynb")
    cells = json.loads(path.read_text())["cells"]
    (task,) = [n for n, cell in enumerate(cells) if "".join(cell["source"]).startswith(f"**{exercise}.**")]
    names: dict[str, Any] = {}
    exec("".join(cells[task + 1]["source"]), names)
    return SimpleNamespace(**names)


def set_up(seed: int) -> str:
    """Seed everything, quieten the libraries, and return a line about what runs here."""
    set_seed(seed)
    quieten()
    return f"seed {seed}, device {pick_device()}, " + ", ".join(f"{name} {v}" for name, v in versions().items())


def run_live(
    profile: str, methods: Sequence[str], seeds: Sequence[int], out: Path, columns: Sequence[str], **overrides: Any
) -> list[Path]:
    """`run_methods` with a plot that follows the training; what stays are the curves of all."""
    folders = run_methods(profile, methods, seeds, out, LivePlot(columns), **overrides)
    clear_output(wait=True)
    display(run_curves(folders, columns))
    return folders


def repeat(settings: Settings, out: Path, **changes: Any) -> Run | None:
    """A run with these settings but for the changes, made or found; None while one of them is None."""
    if None in changes.values():
        return None
    return read_results(execute(replace(settings, **changes), out))


def sample(settings: Settings, example: Example, temperature: float, count: int = 8) -> list[str]:
    """Completions of an example that the untrained model draws in the settings' mode, always the same."""
    set_seed(settings.seed)
    network, processor = load_run(settings, None)
    mode = METHODS[settings.method].mode
    options = generation_options(settings, mode) | {"samples": count, "temperature": temperature}
    return generate(network, processor, [example], mode, **options)[0].texts


def finished(profile: str, methods: Sequence[str], seeds: Sequence[int], out: Path, **overrides: Any) -> Methods:
    """The complete runs by method, whichever notebook made them."""
    found = {}
    for method in methods:
        folders = [folder_of(load_settings(profile, method, seed=seed, **overrides), out) for seed in seeds]
        found[method] = [as_set(read_results(folder)) for folder in folders if is_complete(folder)]
    return found


def show_results(results: Methods) -> None:
    """Show the table of methods that ran, and its figure with intervals."""
    rows = method_rows(results)
    display(Markdown(f"{markdown(methods_table(rows))}\n\n{LEGEND}"), accuracy_figure(rows))


def samples_figure(settings: Settings, run: Path | None = None) -> Figure:
    """The first three test pictures of each part with the untrained model's greedy completions; a run's behind them."""
    examples, before = _greedy(settings, None)
    if run is None:
        return examples_figure(examples, before)
    both = zip(before, _greedy(settings, run)[1], strict=True)
    return examples_figure(examples, [(f"before: {visible(one)}", f"after: {visible(two)}") for one, two in both])


@lru_cache(maxsize=4)  # those before are shown twice
def _greedy(settings: Settings, run: Path | None) -> tuple[list[Example], list[str]]:
    examples = [example for part in test_splits(settings).values() for example in part[:3]]
    mode, (network, processor) = METHODS[settings.method].mode, load_run(settings, run)
    rows = answer_rows(network, processor, examples, mode, **generation_options(settings, mode))
    return examples, [row["completion"] for row in rows]


def show_groups(run: Path) -> None:
    """Show one group of completions from the first logged step of a run, and one from the last: what each earned."""
    sampled = pd.read_parquet(run / COMPLETIONS)
    for step in (sampled["step"].min(), sampled["step"].max()):
        group = sampled[sampled["step"] == step].head(read_settings(run).num_generations)
        display(Markdown(f"Step {step}"), readable(group.drop(columns=["step", "prompt"])))


def beside_archived(folders: Sequence[Path], columns: Sequence[str]) -> None:
    """Show runs beside the archived one of their method and set (nano-s, seed 0): accuracy in per cent, and curves."""
    runs = [as_set(read_results(folder)) for folder in folders]
    logs = {run.method: LOGS / f"{short_name(run.dataset)}-{run.method}" for run in runs}
    archived = {method: read_results(log) for method, log in logs.items() if is_complete(log)}
    if missing := [log.name for method, log in logs.items() if method not in archived]:
        print(f"no archived run of {', '.join(missing)}")
    if not archived:
        return
    accuracies = []
    for run in runs:
        for part, found in run.parts.items() if run.method in archived else ():
            before = archived[run.method].parts[part]
            row = {"run": title_of(run.label), "seed": run.seed, "part": part}
            accuracies.append(row | {"here": 100 * found.accuracy, "archived": 100 * before.accuracy})
    own, theirs = (with_titles(of, METRICS) for of in (folders, [logs[method] for method in archived]))
    tables = {f"{title}, here": read_metrics(run) for title, run in own.items()}
    tables |= {f"{title}, archived": read_metrics(run) for title, run in theirs.items()}
    display(readable(pd.DataFrame(accuracies)), training_figure(tables, columns))


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
