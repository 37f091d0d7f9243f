"""What each command of `rftkit` does with its options; a command returns its exit status.

Imports stand inside the commands: torch and trl take seconds to load, and `--help` should not.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rftkit.runs.record import Run


def doctor(options) -> int:
    from rftkit.tools.doctor import as_json, as_text, diagnose

    lines = diagnose()
    print(json.dumps(as_json(lines), indent=1) if options.json else as_text(lines))
    return 0


def run(options) -> int:
    settings = _settings(options)
    from rftkit.common.distributed import is_main
    from rftkit.models import quieten
    from rftkit.run import execute
    from rftkit.runs.folder import read_results

    quieten()
    folder = execute(settings, options.out)
    if is_main():
        print(_outcome(read_results(folder)), folder, sep="\n")  # the folder alone and last, for scripts
    return 0


def _outcome(found: Run) -> str:
    parts = (f"{part} {100 * row.accuracy:.1f} % of {row.n}" for part, row in found.parts.items())
    return f"{found.mode}, {found.scoring}: {', '.join(parts)}"


def _settings(options):
    """The settings of `run` or `estimate`; checked before anything slow is loaded."""
    from rftkit.settings import load_settings

    names = ("task", "dataset", "eval_dataset", "protocol", "control", "model", "seed", "steps", "epochs",
             "learning_rate", "quantize", "scoring", "device", "report_to", "check_memory")  # fmt: skip
    return load_settings(options.profile, options.method, **{name: getattr(options, name, None) for name in names})


def estimate(options) -> int:
    settings = _settings(options)
    from rftkit.memory.estimate import as_text, estimate
    from rftkit.models import quieten
    from rftkit.run import asked_examples

    quieten()
    found = estimate(settings, asked_examples(settings))
    print(json.dumps(found, indent=1) if options.json else as_text(found))
    return 0


def evaluate(options) -> int:
    from rftkit.evaluate import evaluate_data
    from rftkit.models import quieten

    quieten()
    names = ("model", "adapter", "data", "mode", "scoring", "split", "limit", "batch", "max_tokens",
             "max_pixels", "min_pixels", "quantize", "device")  # fmt: skip
    report = evaluate_data(**{name: getattr(options, name) for name in names}, progress=not options.json)
    print(json.dumps(report, indent=1) if options.json else "\n".join(_line(row) for row in report["eval"].values()))
    return 0


def _line(row: dict) -> str:
    return (
        f"{row['split']:<6} {row['mode']} {row['scoring']}: {100 * row['accuracy']:.1f} % "
        f"[{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}] ({row['correct']} of {row['n']})"
    )


def study(options) -> int:
    from rftkit.study.batch import study

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs is ended too
    only = tuple(options.only.split(",")) if options.only else None
    models = tuple(options.models.split(",")) if options.models else None
    names = ("seeds", "out", "first_seed", "dataset", "dry_run", "jobs", "shard", "time_limit")
    return study(options.profile, only, models=models, **{name: getattr(options, name) for name in names})


def report(options) -> int:
    from rftkit.report.earlier import as_text, compare, read_baseline, write_junit
    from rftkit.report.pages import write_report

    # Before the report: the baseline may be the one that it writes over.
    before = read_baseline(options.against, options.tolerance, options.junit)
    text, path = write_report(options.runs, options.out, options.keep)
    print(f"{text}\n\nreport: {path} and {path.with_suffix('.html').name}")
    if before is None:
        return 0
    cases = compare(path.with_suffix(".json"), before, options.tolerance)
    if options.junit:
        write_junit(cases, options.junit)
    print(as_text(cases))
    return 1 if any(case.failure for case in cases) else 0


def bench(options) -> int:
    from rftkit.models import pick_device, quieten
    from rftkit.tools.bench.compare import Options, as_text, bench

    quieten()
    names = ("preset", "mode", "group", "pairs", "quantize")
    chosen = Options(**{name: getattr(options, name) for name in names}, device=options.device or pick_device())
    report = bench(chosen, progress=not options.json)
    print(json.dumps(report, indent=1) if options.json else as_text(report))
    return 0


def select(options) -> int:
    from rftkit.models import quieten
    from rftkit.study.select import select

    quieten()
    print(select(options.profile, options.dataset, options.out, options.control))
    return 0


def diagnose(options) -> int:
    from rftkit.models import quieten
    from rftkit.prompts import MODES
    from rftkit.tools.diagnose import as_text, diagnose

    quieten()
    names = ("limit", "batch", "max_tokens", "quantize", "device")
    modes = (options.mode,) if options.mode else tuple(MODES)
    found = diagnose(options.model, options.data, modes=modes, **{name: getattr(options, name) for name in names})
    print(json.dumps([vars(one) for one in found], indent=1) if options.json else as_text(found))
    return 0


def export(options) -> int:
    from rftkit.models import quieten
    from rftkit.runs.folder import read_settings
    from rftkit.tools.export import as_text, export

    quieten()
    agreement = export(options.run, options.to, check=options.check, device=options.device)
    print(as_text(agreement, read_settings(options.run)), options.to, sep="\n")
    return 0


def list_sets(options) -> int:
    from rftkit.tools.check_data import list_sets

    print(list_sets())
    return 0


def check_set(options) -> int:
    from rftkit.tools.check_data import check_set

    text, problems = check_set(options.name, options.root)
    print(text, f"{len(problems)} problems found", sep="\n")
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return 2 if problems else 0


def rescore(options) -> int:
    from rftkit.tools.rescore import rescore_file

    print(rescore_file(options.file, options.mode))
    return 0


def pretrain(options) -> int:
    from rftkit.nano.pretrain import STEPS, Recipe, pretrain

    given = {name: getattr(options, name) for name in ("start", *STEPS)}
    given["sets"] = tuple(options.sets.split(",")) if options.sets else None
    changes = {name: value for name, value in given.items() if value is not None}
    recipe = Recipe(size=options.size, seed=options.seed, vague=options.vague, bf16=options.bf16, **changes)
    print(pretrain(recipe, options.out))
    return 0


def card(options) -> int:
    from rftkit.nano.card import write_card

    print(write_card(options.model))
    return 0
