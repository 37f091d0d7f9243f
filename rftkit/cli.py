"""The command line. Errors a user can cause are one line and exit status 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rftkit import commands
from rftkit.common.errors import UserError, as_user_error, is_out_of_memory

# `rftkit.tools.rescore.KEYS`, told without loading what it needs.
PREDICTIONS = """Each prediction is an object with the completion (model_output, response, output or completion) and the
right answer (ground_truth, answer or label), and perhaps whether it was counted right (correct or is_correct: 0 or 1),
what was read in it (extracted_answer or model_answer) and the list of options (options or choices; the right answer may
then be a letter), such as {"output": "It is a cat.", "answer": "cat", "correct": 1}."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `rftkit ...`; the exit status is 0, 1 (a notebook failed) or 2 (the user can mend it)."""
    try:
        _refuse_empty(sys.argv[1:] if arguments is None else arguments)
        options = _parser().parse_args(arguments)
        return options.command(options) or 0
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rftkit", description="When should a model think before it answers?")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor = _command(parsers, "doctor", commands.doctor, "what this machine can run")
    doctor.add_argument("--json", action="store_true")
    _add_run(parsers)
    _add_evaluate(parsers)
    _add_study(parsers)
    report = _command(parsers, "report", commands.report, "tables and figures from run folders, beside the paper's")
    report.add_argument("--runs", type=Path, nargs="+", default=[Path("runs")], metavar="DIR", help="several: pooled")
    report.add_argument("--out", type=Path, metavar="DIR", help="where the report goes; beside the runs if not given")
    report.add_argument("--against", type=Path, metavar="JSON", help="an earlier report.json: exit 1 if worse")
    report.add_argument("--tolerance", type=float, default=0.02, help="how much worse is no regression, 0-1")
    report.add_argument("--keep", type=Path, metavar="DIR", help="keep these runs small in DIR; --runs DIR reads them")
    report.add_argument("--junit", type=Path, metavar="XML", help="with --against: the comparison as JUnit XML")
    _add_bench(parsers)
    select = _command(parsers, "select", commands.select, "choose steps and learning rate on held-out base items")
    select.add_argument("--profile", default="nano")
    select.add_argument("--dataset", default="shapes")
    select.add_argument("--control", help="a control of data/claims.yaml")
    select.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR")
    diagnose = _command(parsers, "diagnose", commands.diagnose, "how an untrained model answers: exact, prose, wrong")
    diagnose.add_argument("model", metavar="MODEL", help="bundled name, folder or hub id")
    diagnose.add_argument("--data", default="shapes", help="a bundled set, a folder of photographs or a JSONL file")
    diagnose.add_argument("--mode", help="one mode; all of them if not given")
    diagnose.add_argument("--limit", type=int, default=200, help="at most this many items a part")
    diagnose.add_argument("--batch", type=int, default=64, help="items in memory at once")
    diagnose.add_argument("--max-tokens", type=int, help="longest completion; 64 without thinking, 1024 with")
    diagnose.add_argument("--quantize", action="store_true", help="load the language model in NF4")
    diagnose.add_argument("--device", help="cpu or cuda")
    diagnose.add_argument("--json", action="store_true")
    export = _command(parsers, "export", commands.export, "a run's adapter merged into the unquantised base, in bf16")
    export.add_argument("run", type=Path, metavar="RUN_DIR", help="a complete run")
    export.add_argument("to", type=Path, metavar="OUT", help="the folder to make")
    export.add_argument("--check", type=int, default=64, help="test items a part whose answers are compared; 0: none")
    export.add_argument("--device", help="cpu or cuda: where answers are compared, in fp32")
    _add_data(parsers)
    rescore = _command(
        parsers, "rescore", commands.rescore, "published predictions (JSON) by our rules: where do they differ?"
    )
    rescore.epilog = PREDICTIONS
    rescore.add_argument("file", type=Path, metavar="FILE", help="JSON: a list, {'results': a list}, or JSON lines")
    rescore.add_argument("--mode", help="how the model was told to respond; guessed from its tags if not given")
    _add_nano(parsers)
    return parser


def _command(parsers, name: str, function, text: str) -> argparse.ArgumentParser:
    command = parsers.add_parser(name, help=text, description=text)
    command.set_defaults(command=function)
    return command


def _add_run(parsers) -> None:
    run = _command(parsers, "run", commands.run, "one run without a notebook")
    estimate = _command(parsers, "estimate", commands.estimate, "memory and time of a run, before it")
    for command in (run, estimate):
        command.add_argument("--profile", default="nano", help="nano, smoke, gpu-2b, ... or the path of a YAML file")
        command.add_argument("--task")
        command.add_argument("--dataset", help="a bundled set, a folder, or a real set: hub:NAME or NAME@DIR")
        command.add_argument("--eval-dataset", metavar="DATASET", help="another set of the same task to test on")
        command.add_argument("--protocol", help="base_to_new, new_to_base, few_shot or open_set")
        command.add_argument("--method", default="no_thinking_rl")
        command.add_argument("--control", help="a control of data/claims.yaml, such as random_reward")
        command.add_argument("--model", help="bundled name, folder or hub id")
        command.add_argument("--seed", type=int)
        command.add_argument("--steps", type=int, help="optimizer steps")
        command.add_argument("--epochs", type=int, help="passes over the training examples, in place of steps")
        command.add_argument("--learning-rate", type=float)
        command.add_argument("--quantize", action=argparse.BooleanOptionalAction, help="NF4 base model (QLoRA)")
        command.add_argument("--scoring", help="rule of the reward: strict, lenient, authors, choice_letter or math")
        command.add_argument("--device", help="cpu or cuda")
    run.add_argument("--no-memory-check", dest="check_memory", action="store_false", default=None,
                     help="start even if the estimated memory is more than what is free")  # fmt: skip
    run.add_argument("--report-to", help="a tracker: wandb, trackio, tensorboard or mlflow; none if not given")
    run.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR")
    estimate.add_argument("--json", action="store_true")
    estimate.add_argument("--no-time", dest="time", action="store_false", help="memory alone, without three real steps")


def _add_evaluate(parsers) -> None:
    evaluate = _command(parsers, "evaluate", commands.evaluate, "a model or adapter on any dataset the kit can read")
    evaluate.add_argument("--model", required=True, help="bundled name, folder or hub id")
    evaluate.add_argument("--adapter", metavar="DIR", help="a LoRA adapter on top")
    evaluate.add_argument("--data", required=True, help="a bundled set, a folder, a JSONL file, hub:NAME or NAME@DIR")
    evaluate.add_argument("--mode", default="no_thinking")
    evaluate.add_argument(
        "--scoring", help="strict, lenient, authors, choice_letter or math; the set's own if not given"
    )
    evaluate.add_argument(
        "--split", help="a part of a bundled set, such as base, new or all; its usual parts if not given"
    )
    evaluate.add_argument("--limit", type=int, help="at most this many items a split")
    evaluate.add_argument("--batch", type=int, default=64, help="items in memory at once")
    evaluate.add_argument("--max-tokens", type=int, help="longest completion; 64 without thinking, 1024 with")
    evaluate.add_argument("--max-pixels", type=int, help="pixels an image is scaled down to")
    evaluate.add_argument("--min-pixels", type=int, help="pixels an image is scaled up to")
    evaluate.add_argument("--quantize", action="store_true", help="load the language model in NF4")
    evaluate.add_argument("--device", help="cpu or cuda")
    evaluate.add_argument("--json", action="store_true")


def _add_study(parsers) -> None:
    study = _command(parsers, "study", commands.study, "notebooks x seeds through papermill, then the report")
    study.add_argument("--profile", default="nano")
    study.add_argument("--only", help="numbers of notebooks, such as 03,04, or all; 01 to 04 if not given")
    study.add_argument("--seeds", type=int, help="how many seeds")
    study.add_argument("--first-seed", type=int, default=0, help="the lowest seed: give each person of a class another")
    study.add_argument("--dataset", help="a bundled set")
    study.add_argument("--models", help="models to start from, such as nano-s,my/model; the profile's if not given")
    study.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR")
    study.add_argument("--jobs", type=int, help="processes at once, which share the cores (and have a GPU each)")
    study.add_argument("--shard", metavar="I/N", help="the i-th of n parts of the work, for n machines")
    study.add_argument("--time-limit", type=float, metavar="MINUTES", help="stop a notebook after so long")
    study.add_argument("--dry-run", action="store_true", help="print what would run, and about how long")


def _add_bench(parsers) -> None:
    bench = _command(parsers, "bench", commands.bench, "speed and memory beside stock TRL: same work, one process")
    bench.add_argument("--preset", default="nano-m", help="nano-s, nano-m, cpu-100m, or 2b, 7b on a GPU")
    bench.add_argument("--mode", default="no_thinking", help="completions of 8 tokens without thinking, 64 with")
    bench.add_argument("--group", type=int, default=8, help="completions a prompt")
    bench.add_argument("--pairs", type=int, default=5, help="pairs of steps, one of each trainer")
    bench.add_argument("--quantize", action="store_true", help="NF4 base model (QLoRA)")
    bench.add_argument("--device", help="cpu or cuda")
    bench.add_argument("--json", action="store_true")


def _add_data(parsers) -> None:
    data = parsers.add_parser("data", help="sets of examples").add_subparsers(required=True, metavar="COMMAND")
    _command(data, "list", commands.list_sets, "the bundled sets, how yours may be laid out, the real ones")
    check = _command(data, "check", commands.check_set, "counts, classes, a few items and every problem of a set")
    check.add_argument("name", metavar="NAME", help="a bundled set, a folder, a JSONL file, or a real set: hub:NAME")
    check.add_argument("--root", metavar="DIR", help="the folder that a real set is in")


def _add_nano(parsers) -> None:
    nano = parsers.add_parser("nano", help="make the bundled models").add_subparsers(required=True, metavar="COMMAND")
    pretrain = _command(nano, "pretrain", commands.pretrain, "pre-train a bundled model")
    pretrain.add_argument("--size", default="s", help="s (under 2 M parameters) or m (under 8 M)")
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--vague", type=float, default=0.5, help="share of answers that are not as asked, 0-1")
    pretrain.add_argument("--start", metavar="MODEL", help="teach it its manners alone: one made with --manner-steps 0")
    pretrain.add_argument("--sets", help="bundled sets to teach, such as shapes,math; all if not given")
    pretrain.add_argument("--bf16", action="store_true", help="bf16 autocast: faster on CPUs with AMX")
    pretrain.add_argument("--vision-steps", type=int)
    pretrain.add_argument("--drill-steps", type=int)
    pretrain.add_argument("--language-steps", type=int)
    pretrain.add_argument("--manner-steps", type=int)
    pretrain.add_argument("--out", type=Path, required=True, metavar="DIR")
    card = _command(nano, "card", commands.card, "measure a bundled model and write its model card")
    card.add_argument("--model", default="nano-s")
