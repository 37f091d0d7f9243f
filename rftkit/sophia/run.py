"""One SOPHIA run, from a start model to `sophia.json`: captions, reasonings, rewards, selection, update, evaluation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rftkit.common.chat_server import ChatServer
from rftkit.common.errors import UserError
from rftkit.models import load
from rftkit.run import execute as execute_run
from rftkit.run import load_run, test_splits
from rftkit.runs.beside import fingerprint, make_once, outcome, read_found
from rftkit.runs.fingerprint import git_revision, versions
from rftkit.runs.folder import PREDICTIONS, copy_atomically, is_complete, result_file, write_atomically, write_table
from rftkit.runs.log import RunLog, training_summary
from rftkit.sophia import stages
from rftkit.sophia.captions import PROMPTS, USUAL, Item, drawn_task, items
from rftkit.sophia.examine import AFTER, BEFORE, caption_means, examine, seen_rows
from rftkit.sophia.local import LocalModel
from rftkit.sophia.reasoners import Guarded, Reasoner, Server
from rftkit.sophia.rule import Rule
from rftkit.sophia.selection import select
from rftkit.sophia.settings import SophiaSettings, load_settings
from rftkit.sophia.update import Row, caption_row, in_order, trajectory, update_trainer
from rftkit.tasks.example import Example
from rftkit.tasks.registry import open_set
from rftkit.trainer import train

CAPTIONS, REASONINGS, REWARDS, SELECTED, SEEN = (
    f"{name}.parquet" for name in ("captions", "reasonings", "rewards", "selected", "seen")
)
COUNTS, MARK = "reasoner.json", "stages.sha256"
# What decides nothing of the stages before selection, so that runs that differ in it alone have these in common.
LATER = ("profile", "arm", "select", "alpha", "keep", "prepend_caption", "caption_share", "ratio_cap", "steps", "batch",
         "micro_batch", "learning_rate", "lora_rank", "grpo_steps", "grpo_rate", "test_items", "device")  # fmt: skip


def run_sophia(out: Path, **given: Any) -> str:
    """Do a run, or finish a killed one, or find it complete; its accuracy in words, and its folder."""
    settings = load_settings(**given)
    return outcome(settings, execute(settings, out), settings.mode.replace("_", " "))


def execute(settings: SophiaSettings, out: Path) -> Path:
    """As `run_sophia`; the folder alone."""
    return make_once(settings, out, _make)


def run_arms(profile: str, arms: Sequence[str], seeds: Sequence[int], out: Path, dataset: str = "math") -> list[Path]:
    """Runs of arms of `sophia` in `data/claims.yaml` on a set, made or found; their folders."""
    every = [load_settings(profile, dataset=dataset, arm=arm, seed=seed) for arm in arms for seed in seeds]
    folders = []
    for number, settings in enumerate(every, 1):
        print(f"run {number} of {len(every)}: {settings.dataset}, {settings.arm}, seed {settings.seed}", flush=True)
        folders.append(execute(settings, out))
    return folders


def _make(settings: SophiaSettings, folder: Path) -> None:
    """Captions before, training; then the same examination of whatever was trained."""
    began, run = time.perf_counter(), settings.as_run()
    tests = test_splits(run)
    model, processor = load(settings.model, device=settings.device)
    seen_by = partial(seen_rows, dataset=settings.dataset, prompt=settings.caption_prompt)
    before = seen_by(model, processor)
    learn = _instead if settings.instead else _go_on if settings.grpo_steps else _learn
    model, processor, found = learn(settings, folder, model, processor)
    found |= examine(run, model, processor, tests, folder / PREDICTIONS, settings.mode)
    after = seen_by(model, processor)
    write_table(folder / SEEN, [{"when": when} | row for when, of in ((BEFORE, before), (AFTER, after)) for row in of])
    found["captions"] = {BEFORE: caption_means(before), AFTER: caption_means(after)}
    head = {name: getattr(settings, name) for name in ("profile", "method", "arm", "dataset", "model", "seed", "mode")}
    about = {"scoring": run.scoring, "seconds": round(time.perf_counter() - began, 1)}
    about |= {"versions": versions(), "git_revision": git_revision()}
    write_atomically(folder / result_file(settings.method), json.dumps(head | found | about, indent=1))


def _instead(settings: SophiaSettings, folder: Path, model, processor) -> tuple[Any, Any, dict[str, Any]]:
    """The model after the kit's own run, its processor, and how it was trained."""
    if settings.instead == "zero_shot":
        return model, processor, {}
    run = settings.as_instead()
    done = execute_run(run, folder / settings.instead)
    return *load_run(run, done), {"training": training_summary(done)}


def _go_on(settings: SophiaSettings, folder: Path, *_) -> tuple[Any, Any, dict[str, Any]]:
    """The model after GRPO from where the same run without it ends, which is made or found beside this one."""
    out = folder.parents[len(Path(settings.profile).parts)]
    arm = "sophia" if settings.arm == "grpo" else settings.arm
    first = execute(replace(settings, arm=arm, grpo_steps=0), out)
    told = read_found(first, settings.method)
    grpo = settings.as_grpo(str(first / "model"))
    done = execute_run(grpo, folder / "grpo")
    found = {name: told[name] for name in ("flow", "rows", "training")} | {"grpo": training_summary(done)}
    return *load_run(grpo, done), found


def _learn(settings: SophiaSettings, folder: Path, model, processor) -> tuple[Any, Any, dict[str, Any]]:
    """The updated model, its processor, what it was updated on and how."""
    run, drawn = settings.as_run(), settings.dataset in USUAL
    shots = open_set(settings.dataset).training(run.protocol, run.shots, settings.train_items, settings.seed)
    own = items(drawn_task(settings.dataset), "shots", "all", len(shots), settings.seed) if drawn else []
    rows, seen, flow = learnt_rows(settings, folder, model, processor, shots, own)
    order = in_order(len(rows), len(seen), settings.caption_share, settings.steps, settings.batch, settings.seed)
    model.requires_grad_(not settings.lora_rank).model.visual.requires_grad_(False)  # the paper: language alone
    log = RunLog(folder, "SOPHIA")
    trainer = update_trainer(run, model, processor, [*rows, *seen], order, log, settings.ratio_cap)
    try:
        trained = train(trainer, folder).eval().requires_grad_(False)
    finally:
        log.close()
    if settings.lora_rank:
        trained.save_pretrained(folder / "adapter")
        trained = trained.merge_and_unload()
    trained.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return trained, processor, {"flow": flow, "rows": len(rows), "training": training_summary(folder)}


def learnt_rows(
    settings: SophiaSettings, folder: Path, model, processor, shots: Sequence[Example], own: Sequence[Item]
) -> tuple[list[Row], list[Row], dict[str, Any] | None]:
    """The trajectories that are learnt from, captions to mix in, and how the rewards flowed (of drawn sets)."""
    if settings.oracle:
        texts = (f"<think> {', '.join(e.steps)} </think> <answer> {e.answer} </answer>" for e in shots)
        return [trajectory(example, text) for example, text in zip(shots, texts, strict=True)], [], None
    take_stages(settings, folder)
    prompt = settings.caption_prompt
    if settings.captioner == "true":
        said = stages.true_captions(folder / CAPTIONS, own, prompt)
    else:
        speaker = load(settings.captioner, device=settings.device) if settings.captioner else (model, processor)
        said = stages.sample_captions(folder / CAPTIONS, *speaker, shots, prompt, settings.captions, settings.seed,
                                      max_tokens=settings.max_tokens)  # fmt: skip
    reasoner, spent = reasoner_of(settings, folder)
    thought = stages.sample_reasonings(folder / REASONINGS, said, shots, prompt, reasoner, settings.reasonings,
                                       settings.seed)  # fmt: skip
    faults = stages.fault_counts(thought)
    if faults["failed"] + faults["flooded"] == faults["asked"]:
        (folder / REASONINGS).unlink()
        why = f" ({reasoner.why})" if reasoner.why else ""
        raise UserError(f"the reasoner gave nothing{why}: start the same command again when it does")
    if not (folder / COUNTS).is_file():
        write_atomically(folder / COUNTS, json.dumps(faults | spent(), indent=1))
    rule = open_set(settings.dataset).rule
    rewards = stages.reward(folder / REWARDS, thought, shots, rule, processor.tokenizer)
    kept = select(rewards, settings.selection, settings.seed)
    if kept.empty:
        told = ", ".join(f"{name} {count}" for name, count in faults.items())
        raise UserError(
            f"nothing was selected, so there is nothing to learn ({told}, right {rewards['right'].sum()}): "
            f"lower alpha, or ask for more pictures"
        )
    write_table(folder / SELECTED, kept.to_dict("records"))
    words = said.set_index(["item", "k"])["caption"]
    rows, seen = [], []
    for row in kept.itertuples():
        caption, example = words[row.item, row.k], shots[row.item]
        rows.append(trajectory(example, row.text, caption if settings.prepend_caption else None, log_mu(settings)))
        seen.append(caption_row(example, PROMPTS.get(prompt, prompt), caption))
    told = stages.flow(rewards, kept, said, own, prompt) if own else None
    return rows, seen if settings.caption_share else [], told


def take_stages(settings: SophiaSettings, folder: Path) -> None:
    """Captions, reasonings and rewards of a complete run beside this one that differs in LATER alone, if there is one:
    an ablation makes nothing, and pays for nothing, that is there already."""
    own, tables = fingerprint(settings, LATER), (REWARDS, REASONINGS, CAPTIONS)
    write_atomically(folder / MARK, own)
    for path in sorted(folder.parent.glob(f"*/{MARK}")):
        there = path.parent
        whole = is_complete(there) and all((there / name).is_file() for name in tables)
        if path.read_bytes() == own.encode() and whole and not (folder / CAPTIONS).is_file():
            for name in tables:
                stages.read_stage(there / name)  # the line about a truncated one names it where it can be removed
            for name in tables:  # captions last: with them all are there
                copy_atomically(there / name, folder / name)


def log_mu(settings: SophiaSettings) -> float:
    """The log-probability of a reasoning of the exact rule: it has one thought a caption, unless it slips."""
    return math.log(max(1e-9, 1 - settings.copy_slip - settings.step_slip))


def reasoner_of(settings: SophiaSettings, folder: Path) -> tuple[Guarded, Callable[[], dict[str, float]]]:
    """The reasoner, its failures bounded, and a function that tells what a server was asked by this process."""
    client, seconds = None, 0.9 * settings.reasoner_seconds  # the rest is for those that cannot stop by themselves
    if settings.reasoner == "rule":
        inner: Reasoner = Rule(settings.copy_slip, settings.step_slip)
    elif settings.reasoner == "local":
        inner = LocalModel.named(settings.reasoner_model, settings.device, settings.reasoner_tokens, seconds)
    else:
        record = Path(settings.record) if settings.record else folder / "replies.jsonl"
        prices = settings.prompt_price, settings.completion_price
        client = ChatServer(settings.server, settings.reasoner_model, record=record, prices=prices)
        inner = Server(client, settings.reasoner_tokens, seconds=seconds)

    def spent() -> dict[str, float]:
        return {f"server_{name}": count for name, count in client.counts().items()} if client else {}

    return Guarded(inner, settings.reasoner_seconds), spent
