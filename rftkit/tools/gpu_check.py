"""`make gpu-check`: what this kit only estimates of GPUs, measured on the one at hand, in at most eight minutes.

Three steps of the profile `gpu-2b` and the bench of `2b`, on random weights of the real shape: nothing is downloaded.
Each part has its peak memory beside the estimate's, and a process of its own, which is ended when the time is over.
What was measured is written after each part. `--rehearse` runs the same lines on a CPU with a small model, to see that
they run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rftkit.common.errors import UserError, said
from rftkit.common.paths import DATA, ROOT
from rftkit.common.pool import in_time
from rftkit.memory.peak_memory import estimate
from rftkit.models import quieten
from rftkit.run import execute, training_examples
from rftkit.runs.fingerprint import git_revision, versions
from rftkit.runs.folder import write_atomically
from rftkit.settings import Settings, load_settings, settings_of
from rftkit.tools.bench.compare import bench, prompts
from rftkit.tools.bench.trainers import PRESETS, TOKENS, Options, resident_peak, save_model

MINUTES = 8.0
MARGIN = 15.0  # seconds of these, to load the libraries and to end a part
STEPS = 3


@dataclass(frozen=True)
class Size:
    """How large the check is: a bench preset and the model whose shape it has, and what of `gpu-2b` is changed."""

    device: str
    preset: str
    model: str
    group: int
    pairs: int
    changes: dict[str, Any] = field(default_factory=dict)


REAL = Size("cuda", "2b", "Qwen/Qwen2-VL-2B-Instruct", group=8, pairs=2)
REHEARSAL = Size("cpu", "nano-s", "nano-s", group=2, pairs=1, changes={
    "prompts_per_step": 2, "num_generations": 2, "micro_batch": 4, "max_answer_tokens": 4, "max_pixels": 4096,
    "min_pixels": 4096})  # fmt: skip


def three_steps(size: Size) -> dict[str, Any]:
    """Seconds of the profile's steps (the first warms up), and the peak memory of the whole short run."""
    quieten()
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_model(size.preset, Path(temporary) / "model")
        # The bundled tokenizer knows few of the real words: what is said is nonsense, and as long as it may be.
        given = {"model": folder, "steps": STEPS, "test_items": 2, "pass_items": 0, "device": size.device}
        settings = load_settings("gpu-2b", "no_thinking_rl", **given | size.changes)
        needed = estimate(settings, training_examples(settings)).memory
        marks: list[float] = []
        if size.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        execute(settings, Path(temporary) / "runs", on_row=lambda rows: marks.append(time.perf_counter()))
        peak = torch.cuda.max_memory_allocated() if size.device == "cuda" else resident_peak()
    steps = [round(after - before, 3) for before, after in zip(marks, marks[1:], strict=False)]
    return {"profile": "gpu-2b", "step_s": steps, "peak_bytes": peak, "estimated": needed}


def one_bench(size: Size, mode: str, quantize: bool) -> dict[str, Any]:
    """What `rftkit bench --json` prints, with the estimate for our trainer's step."""
    quieten()
    given = {"preset": size.preset, "mode": mode, "group": size.group, "quantize": quantize, "device": size.device}
    options = Options(**given, pairs=size.pairs)
    report = bench(**given, pairs=size.pairs, progress=False)
    return report | {"estimated": estimate(bench_settings(size, options), prompts(options, 1)).memory}


def bench_settings(size: Size, options: Options) -> Settings:
    """The bench's step as settings of a run, for the estimate. That counts AdamW's moments, the bench has SGD."""
    prompts_per_step, tokens = PRESETS[options.preset].prompts, TOKENS[options.mode]
    return settings_of({
        "method": "no_thinking_rl" if options.mode == "no_thinking" else "cls_rl", "model": size.model,
        "prompts_per_step": prompts_per_step, "num_generations": options.group, "quantize": options.quantize,
        "micro_batch": prompts_per_step * options.group, "max_answer_tokens": tokens, "max_completion_tokens": tokens,
        "eval_batch": 1, "pass_items": 0, "device": options.device})  # fmt: skip


def parts_of(size: Size) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured by its name, the most wanted first."""
    found = {f"{STEPS} steps of gpu-2b": partial(three_steps, size)}
    for quantize in (False, True):
        for mode in ("no_thinking", "thinking"):
            name = f"bench {size.preset}, {mode}, {'NF4' if quantize else 'unquantised'}"
            found[name] = partial(one_bench, size, mode, quantize)
    return found


def check(out: Path, size: Size = REAL, minutes: float = MINUTES) -> dict[str, Any]:
    """Measure part after part until the minutes are over, and write to `out` what there is after each."""
    if size.device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no GPU that torch can use (see rftkit doctor): --rehearse runs this on a CPU")
    out.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    name = torch.cuda.get_device_name() if size.device == "cuda" else "cpu"
    report = {"device": name, "git_revision": git_revision(), "versions": versions(), "parts": {}, "left_out": {}}
    for part, measure in parts_of(size).items():
        left = began + 60 * minutes - MARGIN - time.perf_counter()  # seconds
        if left <= 0:
            report["left_out"][part] = "no time left"
        else:
            try:
                report["parts"][part] = in_time(left, measure)
            except TimeoutError:
                report["left_out"][part] = f"stopped: the {minutes:g} minutes were over"
            except Exception as error:  # of bitsandbytes, CUDA, the memory: the other parts may still run
                report["left_out"][part] = said(error)
        report["seconds"] = round(time.perf_counter() - began, 1)
        write_atomically(out, json.dumps(report, indent=1) + "\n")
        print(f"{report['seconds']:.0f} s: {as_text(part, report)}", flush=True)
    return report


def as_text(part: str, report: dict[str, Any]) -> str:
    """A part's measured memory and time beside the estimate, or why there are none."""
    if part in report["left_out"]:
        return f"{part}: not measured: {report['left_out'][part]}"
    found = report["parts"][part]
    ours = found.get("ours", found)
    estimated = (found["estimated"]["total"] - found["estimated"]["reserve"]) / 2**30
    seconds = ours["step_s"][-1] if isinstance(ours["step_s"], list) else ours["step_s"]
    return f"{part}: {seconds:.2f} s a step, peak {ours['peak_bytes'] / 2**30:.2f} GiB, estimated {estimated:.2f} GiB"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if each part was measured, 1 if one was not, 2 if there is nothing to measure on."""
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with a small model")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="that it takes at most: a part is stopped then")
    parser.add_argument("--out", type=Path, metavar="JSON", help="where to write; data/benchmarks/gpu-check.json")
    given = parser.parse_args(arguments)
    real, rehearsed = DATA / "benchmarks" / "gpu-check.json", ROOT / "build" / "gpu-rehearsal.json"
    size, usual = (REHEARSAL, rehearsed) if given.rehearse else (REAL, real)
    try:
        report = check(given.out or usual, size, given.minutes)
    except UserError as error:
        print(f"rftkit: {error}", file=sys.stderr)
        return 2
    return 1 if report["left_out"] else 0


if __name__ == "__main__":
    sys.exit(main())
