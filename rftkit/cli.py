"""The command line. Errors a user can cause are one line and exit status 2.

A command takes its flags by name and returns a text to print or its exit status. Imports stand inside: torch takes
seconds to load, and `--help` should not.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from rftkit.common.errors import UserError, as_user_error, is_out_of_memory
from rftkit.common.paths import OWN

# `rftkit.tools.rescore.KEYS`, told without loading what it needs.
PREDICTIONS = """Each prediction is an object with the completion (model_output, response, output or completion) and the
right answer (ground_truth, answer or label). It may have whether it was counted right (correct or is_correct: 0 or 1),
what was read in it (extracted_answer or model_answer) and the list of options (options or choices; the right answer may
be a letter of them): {"output": "It is a cat.", "answer": "cat", "correct": 1}."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


# Every flag, with one meaning in all commands; those of `run` and `estimate` are made from the settings.
FLAGS = {
    "--adapter": {"metavar": "DIR", "help": "a LoRA adapter on top"},
    "--against": {"type": Path, "metavar": "JSON", "help": "an earlier report.json: exit 1 if worse"},
    "--batch": {"type": int, "default": 64, "help": "items in memory at once"},
    "--bf16": {"action": "store_true", "help": "bf16 autocast: faster on CPUs with AMX"},
    "--check": {"type": int, "default": 64, "help": "test items a part whose answers are compared; 0: none"},
    "--control": {"help": "a control of data/claims.yaml"},
    "--data": {"help": "a bundled set, a folder, a JSONL file, hub:NAME or NAME@DIR"},
    "--dataset": {"help": "a bundled set"},
    "--device": {"help": "cpu or cuda"},
    "--dry-run": {"action": "store_true", "help": "print what would run, and about how long"},
    "--first-seed": {"type": int, "default": 0, "help": "the lowest seed: give each person of a class another"},
    "--group": {"type": int, "default": 8, "help": "completions a prompt"},
    "--jobs": {"type": int, "help": "processes at once, which share the cores (and have a GPU each)"},
    "--json": {"action": "store_true", "help": "print JSON, for programs"},
    "--keep": {"type": Path, "metavar": "DIR", "help": "keep these runs small in DIR; --runs DIR reads them"},
    "--max-pixels": {"type": int, "help": "pixels an image is scaled down to"},
    "--max-tokens": {"type": int, "help": "longest completion; 64 without thinking, 1024 with"},
    "--min-pixels": {"type": int, "help": "pixels an image is scaled up to"},
    "--mode": {"help": "how a model is told to respond: thinking, no_thinking, think_after_answer or adaptive"},
    "--model": {"help": "bundled name, folder or hub id"},
    "--models": {"type": _names, "help": "to start from, such as nano-s,my/model; the profile's if not given"},
    "--no-reasons": {"dest": "reasons", "action": "store_false", "help": "never show it a step of reasoning"},
    "--no-time": {"dest": "time", "action": "store_false", "help": "memory alone, without three real steps"},
    "--only": {"type": _names, "help": "numbers of notebooks, such as 03,04, or all; 01 to 04 if not given"},
    "--out": {"type": Path, "default": Path("runs"), "metavar": "DIR", "help": "where to write"},
    "--pairs": {"type": int, "default": 5, "help": "pairs of steps, one of each trainer"},
    "--pictures": {"type": _names, "help": "such as 100,1000,10000: a run's start with so many to train on"},
    "--preset": {"default": "nano-m", "help": "nano-s, nano-m, cpu-100m, or 2b, 7b on a GPU"},
    "--profile": {"default": "nano", "help": "nano, smoke, gpu-2b, ... or the path of a YAML file"},
    "--quantize": {"action": "store_true", "help": "load the language model in NF4 (QLoRA)"},
    "--ray": {"metavar": "ADDRESS", "help": "make runs on a Ray cluster: HOST:PORT of its head, auto, or local"},
    "--root": {"metavar": "DIR", "help": "the folder that a real set is in"},
    "--runs": {"type": Path, "nargs": "+", "default": [Path("runs")], "metavar": "DIR", "help": "several: pooled"},
    "--scoring": {"help": "strict, lenient, authors, choice_letter or math; the set's own if not given"},
    "--seed": {"type": int, "default": 0, "help": "of all that is drawn"},
    "--seeds": {"type": int, "help": "how many seeds"},
    "--sets": {"type": _names, "help": "bundled sets to teach, such as shapes,math; all if not given"},
    "--shard": {"metavar": "I/N", "help": "the i-th of n parts of the work, for n machines"},
    "--size": {"default": "s", "help": "s (under 2 M parameters) or m (under 8 M)"},
    "--split": {"help": "a part of a bundled set, such as base, new or all; its usual parts if not given"},
    "--start": {"metavar": "MODEL", "help": "teach it its manners alone: one made with --manner-steps 0"},
    "--sums": {"action": "store_true", "help": "let it recite sums that have nothing to do with pictures"},
    "--task": {"help": "what a JSONL set asks, if its lines do not say: classification, math, puzzle or spatial"},
    "--test-items": {"type": int, "help": "test items a part, a plain sample; all (1,000 of a drawn set) if not given"},
    "--time-limit": {"type": float, "metavar": "MINUTES", "help": "stop a run, or a notebook, after so long"},
    "--tolerance": {"type": float, "default": 0.02, "help": "how much worse is no regression, 0-1"},
    "--vague": {"type": float, "default": 0.5, "help": "share of answers that are not as asked, 0-1"},
    "model": {"metavar": "MODEL", "help": "bundled name, folder or hub id"},
    "name": {"metavar": "NAME", "help": "a bundled set, a folder, a JSONL file, or a real set: hub:NAME"},
    "path": {"type": Path, "metavar": "FILE", "help": "JSON: a list, {'results': a list}, or JSON lines"},
    "run": {"type": Path, "metavar": "RUN_DIR", "help": "a complete run"},
    "to": {"type": Path, "metavar": "OUT", "help": "the folder to make"},
}
FLAGS |= {f"--{stage}-steps": {"type": int} for stage in ("vision", "drill", "language", "manner")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `rftkit ...`; the exit status is 0, 1 (a notebook failed) or 2 (the user can fix it)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _refuse_empty(arguments)
        said = " ".join((*arguments, "")).replace("=", " ")
        own = next((name for name in OWN if f"--method {name} " in said), None)
        options = vars(_parser(*arguments[:1], own=own).parse_args(arguments))
        command = options.pop("command")
        if options.pop("quiet", False):
            resolve_name("rftkit.models:quieten")()
        result = (resolve_name(command) if isinstance(command, str) else command)(**options)
        if result is not None and not isinstance(result, int):
            print(result)
        return result if isinstance(result, int) else 0
    except Exception as error:
        known = as_user_error(error)
        if known is None:
            raise
        if os.environ.get("RANK", "0") == "0" or is_out_of_memory(error.__cause__ or error):  # of several processes one
            print(f"rftkit: {known}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rftkit: interrupted; start the same command again to go on", file=sys.stderr)
        return 130


def _refuse_empty(arguments: Sequence[str]) -> None:
    """UserError on an empty text: as a path it would be the folder one is in."""
    for before, argument in zip(("rftkit", *arguments), arguments, strict=False):
        option, equals, value = argument.partition("=")
        if not argument.strip() or (option.startswith("--") and equals and not value.strip()):
            raise UserError(f"empty text behind '{option.strip() or before}': name something, or leave it out")


def doctor(json: bool) -> str:
    from rftkit.tools.doctor import as_text, diagnose

    lines = diagnose()
    return dumps([vars(line) for line in lines], indent=1) if json else as_text(lines)


def run(out: Path, **given: Any) -> None:
    from rftkit.settings import load_settings

    settings = load_settings(**given)  # checked before anything slow is loaded
    from rftkit.common.distributed import is_main
    from rftkit.models import quieten
    from rftkit.run import execute
    from rftkit.runs.folder import read_results

    quieten()
    folder = execute(settings, out)
    if is_main():
        found = read_results(folder)
        parts = (f"{part} {100 * row.accuracy:.1f} % of {row.n}" for part, row in found.parts.items())
        print(f"{found.mode}, {found.scoring}: {', '.join(parts)}", folder, sep="\n")  # the folder for scripts


def estimate(json: bool, time: bool, **given: Any) -> str:
    from rftkit.settings import load_settings

    settings = load_settings(**given)
    from rftkit.models import quieten
    from rftkit.run import asked_examples
    from rftkit.tools.time_estimate import as_text, report

    quieten()
    found = report(settings, asked_examples(settings), with_time=time)
    return dumps(found, indent=1) if json else as_text(found)


def evaluate(json: bool, **options: Any) -> str:
    from rftkit.evaluate import evaluate_data

    report = evaluate_data(**options, progress=not json)
    lines = (
        f"{row['split']:<6} {row['mode']} {row['scoring']}: {100 * row['accuracy']:.1f} % "
        f"[{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}] ({row['correct']} of {row['n']})"
        for row in report["eval"].values()
    )
    return dumps(report, indent=1) if json else "\n".join(lines)


def study(**options: Any) -> int:
    from rftkit.study.batch import study

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs is ended too
    return study(**options)


def report(runs: list[Path], out: Path | None, against: Path | None, tolerance: float, keep: Path | None) -> int:
    from rftkit.report.compare_reports import read_baseline, worse
    from rftkit.report.pages import write_report

    # Before the report: the baseline may be the one that it writes over.
    before = read_baseline(against, tolerance)
    text, path = write_report(runs, out, keep)
    print(f"{text}\n\nreport: {path} and {path.with_suffix('.html').name}")
    if before is None:
        return 0
    lines = worse(path.with_suffix(".json"), before, tolerance)
    print(*lines, f"{len(before) - len(lines)} of {len(before)} numbers as good as in the baseline", sep="\n")
    return 1 if lines else 0


def bench(json: bool, device: str | None, pictures: tuple[str, ...] | None, **options: Any) -> str:
    from rftkit.models import pick_device
    from rftkit.tools.bench import compare, first_step

    what, options = (first_step, {"pictures": pictures}) if pictures else (compare, options)
    report = what.bench(**options, device=device or pick_device(), progress=not json)
    return dumps(report, indent=1) if json else what.as_text(report)


def diagnose(json: bool, mode: str | None, **options: Any) -> str:
    from rftkit.prompts import MODES
    from rftkit.tools.diagnose import as_text, diagnose

    found = diagnose(**options, modes=(mode,) if mode else tuple(MODES))
    return dumps([vars(one) for one in found], indent=1) if json else as_text(found)


def export(run: Path, to: Path, **options: Any) -> str:
    from rftkit.runs.folder import read_settings
    from rftkit.tools.export import as_text, export

    agreement = export(run, to, **options)
    return f"{as_text(agreement, read_settings(run))}\n{to}"


def check_set(name: str, root: str | None, task: str | None) -> int:
    from rftkit.tools.check_data import check_set

    text, problems = check_set(name, root, task)
    print(text, f"{len(problems)} problems found", sep="\n")
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return 2 if problems else 0


def _parser(asked: str = "", own: str | None = None) -> argparse.ArgumentParser:
    """The parser. `asked` is the command it is for: `run` and `estimate` have flags that take a moment to load, and the
    run of a method with flags of its `own` has others."""
    parser = argparse.ArgumentParser(prog="rftkit", description="When should a model think before it answers?")
    top = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(top, "doctor", doctor, "what this machine can run", "--json")
    one_run = _add(top, "run", run, "one run without a notebook; --method gtr and sophia have their own flags", "--out")
    before = _add(top, "estimate", estimate, "memory and time of a run, before it", "--no-time --json")
    if asked in ("run", "estimate"):
        _add_settings(one_run if asked == "run" else before, own if asked == "run" else None)
    how = "--test-items --batch --max-tokens --quantize --device --json"
    flags = f"--model --adapter --data --task --mode --scoring --split --max-pixels --min-pixels {how}"
    text = "a model or adapter on any dataset the kit can read"
    _add(top, "evaluate", evaluate, text, flags, required=("model", "data"), quiet=True, mode="no_thinking")
    flags = "--profile --only --seeds --first-seed --dataset --models --test-items --out --jobs --shard --time-limit"
    _add(top, "study", study, "notebooks x seeds through papermill, then the report", f"{flags} --ray --dry-run")
    _add(top, "report", report, "tables and figures of runs", "--runs --out --against --tolerance --keep", out=None)
    flags = "--preset --mode --group --pairs --pictures --quantize --device --json"
    _add(top, "bench", bench, "speed and memory beside stock TRL", flags, quiet=True, mode="no_thinking")
    text, flags = "choose steps and learning rate on held-out base items", "--profile --dataset --control --out"
    _add(top, "select", "rftkit.tools.select:select", text, flags, quiet=True, dataset="shapes")
    text, flags = "how an untrained model answers: exact, prose, wrong", f"model --data --task --mode {how}"
    _add(top, "diagnose", diagnose, text, flags, quiet=True, data="shapes", test_items=200)
    _add(top, "export", export, "a run's adapter merged into its base, in bf16", "run to --check --device", quiet=True)
    data = top.add_parser("data", help="sets of examples").add_subparsers(required=True, metavar="COMMAND")
    _add(data, "list", "rftkit.tools.check_data:list_sets", "the bundled sets, layouts for yours, the real ones")
    _add(data, "check", check_set, "counts, classes, a few items and every problem of a set", "name --root --task")
    text = "published predictions (JSON) by our rules: where do they differ?"
    _add(top, "rescore", "rftkit.tools.rescore:rescore_file", text, "path --mode").epilog = PREDICTIONS
    nano = top.add_parser("nano", help="make the bundled models").add_subparsers(required=True, metavar="COMMAND")
    steps = "--vision-steps --drill-steps --language-steps --manner-steps"
    flags = f"--size --seed --vague --start --sets --no-reasons --sums --bf16 {steps} --out"
    _add(nano, "pretrain", "rftkit.nano.pretrain:pretrain_model", "pre-train a bundled model", flags, required=("out",))
    text, flags = "pre-train an agent's start model (method gtr)", f"--seed --start --bf16 {steps} --out"
    _add(nano, "agent", "rftkit.nano.agent:pretrain_agent", text, flags, required=("out",))
    text = "teach a text reasoner that knows captions alone (method sophia)"
    _add(nano, "reasoner", "rftkit.nano.reasoner:teach_reasoner", text, "--seed --out", required=("out",))
    text = "measure a bundled model and write its model card"
    _add(nano, "card", "rftkit.nano.card:write_card", text).add_argument("--model", dest="name", default="nano-s")
    return parser


def _add(parsers, name: str, command: Any, text: str, flags: str = "", required: Sequence[str] = (), **here: Any):
    """A command (a function, or where one is loaded from) with some of FLAGS, and with what is usual `here`."""
    parser = parsers.add_parser(name, help=text, description=text)
    for flag in flags.split():
        action = parser.add_argument(flag, **FLAGS[flag])
        action.required = action.required or action.dest in required
    parser.set_defaults(command=command, **here)
    return parser


def _add_settings(command: argparse.ArgumentParser, own: str | None) -> None:
    """A flag for each setting. What is not given is None; texts become numbers where settings are checked."""
    from rftkit.common.validation import choices

    fields = resolve_name(f"rftkit.{own}.settings:FIELDS" if own else "rftkit.settings:FIELDS")
    for name, field in fields.items():
        action = argparse.BooleanOptionalAction if field.annotation is bool else None
        listed = f" ({', '.join(choices(field))})" if choices(field) else ""
        command.add_argument(f"--{name.replace('_', '-')}", action=action, help=f"{field.description}{listed}")
    command.add_argument("--no-memory-check", dest="check_memory", action="store_false", help="as --no-check-memory")
    command.set_defaults(profile=fields["profile"].default, method=fields["method"].default, check_memory=None)
    if own:
        command.set_defaults(command=f"rftkit.{own}.run:run_{own}", quiet=True)


if __name__ == "__main__":
    sys.exit(main())
