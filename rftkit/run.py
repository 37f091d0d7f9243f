"""One run: one method, dataset, model, seed and profile, from examples to `results.json`."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import set_seed

from rftkit.common import distributed as processes
from rftkit.common.adapters import record_base
from rftkit.common.errors import UserError, is_out_of_memory
from rftkit.common.statistics import harmonic_mean, proportion
from rftkit.evaluate import BaseAnswers, answer_rows, evaluated_modes, pass_at_samples, pass_batch
from rftkit.memory.peak_memory import advice, refuse_what_will_not_fit
from rftkit.models import limit_pixels, load, load_processor, pick_device, resolve
from rftkit.runs import folder as results
from rftkit.runs.check import check_run, tell_of_data, tell_of_no_reward
from rftkit.runs.fingerprint import fingerprint, sha256_examples, sha256_model
from rftkit.runs.log import RunLog, training_summary
from rftkit.settings import METHODS, Settings, completion_limit, load_settings, with_steps
from rftkit.sft import dpo_trainer, sft_trainer
from rftkit.tasks.example import Example, ExampleSet
from rftkit.tasks.images import with_blanks
from rftkit.trainer import CHECKPOINTS, grpo_trainer, last_checkpoint, train

gc.freeze()  # or each full collection goes through all that the libraries above have made


def test_splits(settings: Settings) -> dict[str, list[Example]]:
    """The test examples of a run by part."""
    load = _tests_once if settings.test_set.bundled else _tests
    return load(settings.test_set, settings.test_items, settings.test_seed, settings.protocol).copy()


def _tests(data: ExampleSet, items: int | None, seed: int, protocol: str) -> dict[str, list[Example]]:
    items = items or data.usual_items
    return {part: data.examples("test", part, items, seed, protocol) for part in data.parts(protocol)}


def _training(data: ExampleSet, protocol: str, shots: int, items: int, seed: int) -> list[Example]:
    return data.training(protocol, shots, items, seed)


# What was asked of the bundled sets last is kept: a study asks run after run. Files of other sets may change meanwhile.
_tests_once = lru_cache(maxsize=4)(_tests)
_training_once = lru_cache(maxsize=16)(_training)  # a set's of as many seeds


def training_examples(settings: Settings) -> list[Example]:
    """What a run is trained on; nothing if it does not train. Each seed draws anew unless `shots_seed` is given."""
    if METHODS[settings.method].trainer is None:
        return []
    seed = settings.seed if settings.shots_seed is None else settings.shots_seed
    load = _training_once if settings.train_set.bundled else _training
    examples = load(settings.train_set, settings.protocol, settings.shots, settings.train_items, seed)
    return with_blanks(examples) if settings.blank else examples.copy()


def asked_examples(settings: Settings) -> list[Example]:
    """What a run is trained on, or if that is nothing the first part of what it is tested on: for estimates."""
    return training_examples(settings) or next(iter(test_splits(settings).values()))


def folder_of(settings: Settings, out: Path) -> Path:
    """The run folder of these settings. Needs the data and the model's files, but loads no model."""
    return _identify(settings, out)[0]


def _identify(settings: Settings, out: Path) -> tuple[Path, Settings, dict[str, list[Example]], list[Example], str]:
    tests, shots = test_splits(settings), training_examples(settings)
    settings = with_steps(settings, len(shots))
    data_sha = sha256_examples([*shots, *(e for part in tests.values() for e in part)])
    mark = fingerprint(settings, sha256_model(resolve(settings.model)), data_sha)
    return results.run_folder(out, settings, mark), settings, tests, shots, data_sha


def execute(settings: Settings, out: Path, on_row: Callable[[list[dict]], None] | None = None) -> Path:
    """Do a run, or finish a killed one, or find it complete; return its folder.

    Args:
        out: where run folders are kept.
        on_row: called with the rows of `metrics.csv` after each training step, for live plots.
    """
    folder, settings, tests, shots, data_sha = _identify(settings, out)
    if not processes.from_main(results.is_complete, folder):
        load_processor(settings.model)  # a model that cannot be had is refused before anything is written
        with results.locked(folder) if processes.is_main() else nullcontext():
            # Another process may have made it meanwhile.
            if not processes.from_main(results.is_complete, folder):
                try:
                    _make(settings, folder, tests, shots, data_sha, on_row)
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    raise _out_of_memory(settings, folder, shots) from error
    return folder


def _out_of_memory(settings: Settings, folder: Path, shots: list[Example]) -> UserError:
    """What is kept of a run that ran out of memory, and what would need less."""
    checkpoint = last_checkpoint(folder / CHECKPOINTS)
    done = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
    lower = advice(settings, shots, evaluating=done >= settings.steps or not METHODS[settings.method].trainer)
    kept = f"the checkpoint of step {done} is kept, and the same command goes on from it" if done else "nothing is kept"
    return UserError(f"out of memory; {kept}. To need less, {lower}: that is another run, from its start")


def _make(settings: Settings, folder: Path, tests, shots, data_sha: str, on_row) -> None:
    began = time.perf_counter()
    check_run(settings, tests, shots)
    refuse_what_will_not_fit(settings, shots or next(iter(tests.values())))
    if processes.is_main():
        results.write_config(folder, settings)
        whole = tell_of_data(settings, tests, shots)
    device = settings.device or pick_device()
    model, processor = load(settings.model, quantize=settings.quantize, device=device)
    limit_pixels(processor, settings.min_pixels, settings.max_pixels)
    if METHODS[settings.method].trainer:
        model = _train(settings, model, processor, shots, folder, on_row)
    if not processes.is_main():
        return  # the others end here: evaluation is the main process's, and may take longer than a barrier waits
    content, rows = evaluate_run(settings, model, processor, tests)
    results.write_table(folder / results.PREDICTIONS, rows)
    content["tests_sha256"] = sha256_examples(example for part in tests.values() for example in part)
    content["test_items"] = {part: {"asked": len(tests[part]), "of": count} for part, count in whole.items()}
    content["training"] = training_summary(folder)
    content["seconds"] = round(time.perf_counter() - began, 1)  # of the process that finished the run
    results.write_results(folder, settings, content, data_sha)
    tell_of_no_reward(folder)


def with_seeds(profile: str, method: str, seeds: Sequence[int], **overrides: Any) -> list[Settings]:
    """A run's settings for each seed; of an untrained method, for which nothing is drawn, one for each base model.

    Only the first seed's run has an accuracy curve: it costs time and one is enough to look at.
    """
    every = [load_settings(profile, method, seed=seed, **overrides) for seed in seeds]
    every = [run if run.seed == seeds[0] else replace(run, eval_every=0) for run in every]
    if METHODS[method].trainer:
        return every
    models = [run.model for run in every]
    return [every[models.index(model)] for model in dict.fromkeys(models)]


def run_methods(
    profile: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    on_row: Callable[[list[dict]], None] | None = None,
    **overrides: Any,
) -> list[Path]:
    """The runs of a notebook: each method with each seed (`with_seeds`), and their folders.

    `overrides` are settings that stand above the profile's; None means not given.
    """
    folders, every = [], [run for method in methods for run in with_seeds(profile, method, seeds, **overrides)]
    for number, settings in enumerate(every, 1):
        print(f"run {number} of {len(every)}: {METHODS[settings.method].title}, seed {settings.seed}", flush=True)
        folders.append(execute(settings, Path(out), on_row))
    return folders


def _train(settings: Settings, model, processor, shots: list[Example], folder: Path, on_row):
    log = RunLog(
        folder,
        METHODS[settings.method].title,
        curve=_curve(settings, model, processor) if settings.eval_every and processes.is_main() else None,
        curve_every=settings.eval_every,
        on_row=on_row,
    )
    supervised = dpo_trainer if settings.rejected else sft_trainer
    make = grpo_trainer if METHODS[settings.method].trainer == "grpo" else supervised
    model.requires_grad_(not settings.lora_rank)  # LoRA brings weights of its own
    trainer = make(settings, model, processor, shots, log)
    try:
        trained = train(trainer, folder)
    finally:
        log.close()
    # All processes take part: where weights are sharded (FSDP, ZeRO-3) they are gathered. The main one writes.
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if processes.count() > 1 else None
    if processes.is_main():
        trained.save_pretrained(folder / ("adapter" if settings.lora_rank else "model"), state_dict=weights)
        if settings.lora_rank:
            record_base(folder / "adapter", settings.model, resolve(settings.model))
        else:
            processor.save_pretrained(folder / "model")
        if trainer.accelerator.distributed_type in ("FSDP", "DEEPSPEED"):  # this process holds only a part of it
            return load_run(settings, folder)[0]
    return trained.eval().requires_grad_(False)


def load_run(settings: Settings, folder: Path | None):
    """The trained model of a run folder, loaded whole, and its processor; without a folder the untrained one."""
    if folder is None or settings.lora_rank:
        adapter = None if folder is None else folder / "adapter"
        model, processor = load(settings.model, adapter=adapter, quantize=settings.quantize, device=settings.device)
    else:
        model, processor = load(str(folder / "model"), device=settings.device)
    limit_pixels(processor, settings.min_pixels, settings.max_pixels)
    return model, processor


def _curve(settings: Settings, model, processor) -> Callable[[int], list[dict]] | None:
    """Accuracy on held-out scenes at a step; if asked for, forward KL from the model as it is now, on the trained part.
    None, and a line about it, if nothing is held out.

    `val` of base classes selects steps, new classes are only looked at.
    """
    mode = METHODS[settings.method].mode
    data, asked = settings.train_set, (settings.val_items, settings.test_seed, settings.protocol)
    rules = list(dict.fromkeys(("strict", "lenient", data.rule)))
    try:
        parts = {part: data.examples("val", part, *asked) for part in data.trained_parts(settings.protocol)}
    except UserError as error:  # a set that comes without held-out items, or is too small for them, can be trained on
        print(f"no accuracy curve: {error}", file=sys.stderr)
        return None
    options = generation_options(settings, mode)
    trained = next(iter(parts))
    base = BaseAnswers(model, processor, parts[trained], mode, settings.seed, **options) if settings.eval_kl else None

    def points(step: int) -> list[dict]:
        found = []
        for half, examples in parts.items():
            rows = answer_rows(model, processor, examples, mode, rules=rules, **options)
            means = {rule: sum(row[rule] for row in rows) / len(rows) for rule in rules}
            row = {"step": step, "half": half, "mode": mode, "n": len(rows)}
            row |= {"kl": base.forward_kl()} if base and half == trained else {}
            found.append(row | means)
        return found

    return points


def generation_options(settings: Settings, mode: str) -> dict[str, Any]:
    """What `evaluate.generate` needs to know of a run's settings."""
    return {"max_tokens": completion_limit(settings, mode), "batch_size": settings.eval_batch}


def evaluate_run(
    settings: Settings, model, processor, tests: dict[str, list[Example]]
) -> tuple[dict[str, Any], list[dict]]:
    """The evaluation part of `results.json` and a row for each answer."""
    method = METHODS[settings.method]
    modes = evaluated_modes(method.mode, trained=method.trainer is not None)
    rules = list(dict.fromkeys(("strict", "lenient", settings.test_set.rule, settings.scoring)))
    set_seed(settings.seed)  # pass@8 samples: the same whether a run was resumed or not
    measures, answers = [], []
    for half, examples in tests.items():
        for mode in modes:
            options = generation_options(settings, mode)
            rows = answer_rows(model, processor, examples, mode, rules=rules, likelihood=mode == "no_thinking",
                               progress=f"evaluate {half} {mode}", **options)  # fmt: skip
            if settings.blank:
                unseen = answer_rows(model, processor, with_blanks(examples), mode, rules=[settings.scoring], **options)
                rows = [row | {"blank": other[settings.scoring]} for row, other in zip(rows, unseen, strict=True)]
            answers += [{"split": half} | row for row in rows]
            said = [name for name in (*rules, "format", "likelihood", "blank") if name in rows[0]]
            measures += [_measure(half, mode, name, [row[name] for row in rows]) for name in said]
            if settings.pass_items and (mode == method.mode or not method.trainer):
                options |= {"batch_size": pass_batch(settings.eval_batch), "temperature": settings.temperature}
                part = examples[: settings.pass_items]  # examples come class by class in turn
                passed = pass_at_samples(model, processor, part, mode, settings.scoring, **options)
                measures.append(_measure(half, mode, "pass@8", passed))
    return _summary(settings, measures, answers), answers


def _measure(split: str, mode: str, measure: str, correct: list[float]) -> dict[str, Any]:
    return {"split": split, "mode": mode, "measure": measure} | proportion(int(sum(correct)), len(correct))


def _summary(settings: Settings, measures: list[dict], answers: list[dict]) -> dict[str, Any]:
    mode = METHODS[settings.method].mode
    headline = {
        m["split"]: {key: m[key] for key in ("n", "correct", "accuracy", "ci_low", "ci_high")}
        for m in measures
        if m["mode"] == mode and m["measure"] == settings.scoring
    }
    own = [row for row in answers if row["mode"] == mode]
    together = [row["agrees"] for row in own if row["agrees"] is not None]
    h = harmonic_mean(headline["base"]["accuracy"], headline["new"]["accuracy"]) if "base" in headline else None
    return {
        "mode": mode,
        "eval": headline,
        "h": h,
        "measures": measures,
        "completion_length": sum(row["tokens"] for row in own) / len(own),
        "consistency": sum(together) / len(together) if together else None,
    }
