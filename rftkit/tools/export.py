"""`rftkit export`: a run's adapter merged into the unquantised base, as a folder that plain transformers loads."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path

import psutil
import torch
import yaml
from transformers import AutoModelForImageTextToText

from rftkit.common.errors import UserError, within
from rftkit.evaluate import generate
from rftkit.models import limit_pixels, load, load_processor, pick_device
from rftkit.run import generation_options, test_splits
from rftkit.runs import folder as results
from rftkit.runs.results import Run
from rftkit.settings import METHODS, Settings
from rftkit.tasks.example import Example
from rftkit.tasks.images import check_pictures
from rftkit.tasks.registry import short_name

LEAST_AGREEMENT = 0.95  # with the run's own answers


@dataclass(frozen=True)
class Agreement:
    """How many of `n` greedy answers of the exported model are those of the adapter on the unquantised base, both in
    fp32, and those the run itself wrote down (`None`: it has no such answers)."""

    n: int
    adapter: int
    run: int | None


def export(run: Path, out: Path, *, check: int = 64, device: str | None = None) -> Agreement | None:
    """Merge a complete run's adapter into its base in bf16 and write a model folder.

    The base is read anew and never quantised: merging into 4-bit weights rounds the adapter away.
    Each merged weight is added up in fp32 and rounded to bf16 once.

    Args:
        run: a run folder with `results.json` and an adapter.
        out: the folder to make; it must not exist.
        check: test items a part whose answers are compared; 0: none. In fp32: twice the memory of the model.
        device: where they are computed; picked if None.
    """
    settings = results.read_settings(run)
    if not results.is_complete(run):
        raise UserError(f"the run in '{run}' is not complete: start the same rftkit run again to finish it")
    if METHODS[settings.method].trainer is None:
        raise UserError(f"the run in '{run}' trained nothing: there is no adapter to export")
    if not (run / "adapter" / "adapter_config.json").is_file():
        raise UserError(f"'{run}' has no adapter: a run of all weights (lora_rank 0) left a whole model in its 'model'")
    found = results.read_results(run)
    if out.exists() or out.is_symlink():
        raise UserError(f"'{out}' exists: name a folder that does not")
    if out.resolve().is_relative_to(run.resolve()):
        raise UserError(f"'{out}' lies in the run folder: name one outside")
    within("--check", check, 0, 10**6)
    tests = {part: examples[:check] for part, examples in test_splits(settings).items()} if check else {}
    check_pictures((example for part in tests.values() for example in part), whole=True)
    temporary = _partial(out)
    try:
        _merge(settings, run / "adapter", temporary)
        agreement = _compare(settings, run, temporary, tests, device or pick_device()) if check else None
        results.write_atomically(temporary / "README.md", model_card(settings, found, agreement))
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return agreement


def _partial(out: Path) -> Path:
    """An empty folder beside `out`, named by this process; those of exports that were killed are removed."""
    for left in out.parent.glob(f".{escape(out.name)}.*.partial"):
        number = left.name.removesuffix(".partial").rpartition(".")[2]
        # In a container processes get the same numbers again.
        if number.isdecimal() and (int(number) == os.getpid() or not psutil.pid_exists(int(number))):
            shutil.rmtree(left, ignore_errors=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    return partial


def _merge(settings: Settings, adapter: Path, folder: Path) -> None:
    """Write the merged model, and its processor in the form that plain transformers and other tools read."""
    model, processor = load(settings.model, adapter=str(adapter), device="cpu", dtype=torch.bfloat16)
    model.merge_and_unload().save_pretrained(folder)
    # As on the hub: picture settings and template beside the tokenizer, and no class of ours named anywhere: which
    # processor belongs to a model, transformers knows by the model's type.
    processor.tokenizer._set_processor_class(None)
    processor.tokenizer.init_kwargs.pop("processor_class", None)
    limit_pixels(processor, settings.min_pixels, settings.max_pixels)
    processor.image_processor.save_pretrained(folder)
    processor.tokenizer.chat_template = processor.chat_template or processor.tokenizer.chat_template
    processor.tokenizer.save_pretrained(folder)


def _compare(settings: Settings, run: Path, merged: Path, tests: dict[str, list[Example]], device: str) -> Agreement:
    examples = [example for part in tests.values() for example in part]
    mode = METHODS[settings.method].mode

    def answers(model, processor) -> list[str]:
        said = generate(model.eval(), processor, examples, mode, **generation_options(settings, mode))
        return [answer.texts[0] for answer in said]

    # One model in memory at a time.
    base, processor = load(settings.model, adapter=str(run / "adapter"), device=device, dtype=torch.float32)
    limit_pixels(processor, settings.min_pixels, settings.max_pixels)
    adapter = answers(base, processor)
    del base
    plain = AutoModelForImageTextToText.from_pretrained(merged, dtype=torch.float32, device_map=device)
    ours = answers(plain, load_processor(str(merged)))
    same = sum(a == b for a, b in zip(ours, adapter, strict=True))
    as_run = None
    if (run / results.PREDICTIONS).is_file():
        written = results.read_predictions(run)
        own = written[written["mode"] == mode].set_index(["split", "id"])["completion"]
        ids = [(part, example.id) for part, examples in tests.items() for example in examples]
        as_run = int((own.reindex(ids) == ours).sum())
    return Agreement(len(ours), same, as_run)


def as_text(agreement: Agreement | None, settings: Settings) -> str:
    """What was compared, for people: a line each."""
    if agreement is None:
        return "answers were not compared (--check 0)"
    n = agreement.n
    same = f"{agreement.adapter} of {n} ({agreement.adapter / n:.1%})"
    lines = [f"same greedy answers as the adapter on the unquantised base, in fp32: {same}"]
    if agreement.run is not None:
        share = agreement.run / n
        kind = "the NF4 run" if settings.quantize else "the run"
        lines.append(f"same greedy answers as {kind} wrote down: {agreement.run} of {n} ({share:.1%})")
        if share < LEAST_AGREEMENT:
            lines.append(f"below {LEAST_AGREEMENT:.0%}: evaluate the exported model again before you quote the run")
    return "\n".join(lines)


def model_card(settings: Settings, found: Run, agreement: Agreement | None) -> str:
    """A README with what was trained on what, how, from which seed, and what came out."""
    base = Path(settings.model).name if Path(settings.model).is_absolute() else settings.model
    dataset = results.data_title(settings.dataset, settings.eval_dataset)
    tags = ["rftkit", settings.method]
    head = {"library_name": "transformers", "pipeline_tag": "image-text-to-text", "base_model": base, "tags": tags}
    facts = {name: getattr(found, name) for name in ("data_sha256", "config_sha256", "git_revision", "versions")}
    tested = settings.eval_dataset and short_name(settings.eval_dataset)
    config = asdict(settings) | {"model": base, "dataset": short_name(settings.dataset), "eval_dataset": tested}
    rows = "\n".join(
        f"| {part} | {row.n} | {row.accuracy:.3f} | {row.ci_low:.3f} to {row.ci_high:.3f} |"
        for part, row in found.parts.items()
    )
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---

# {base}, {METHODS[settings.method].title}, {dataset}

LoRA of rank {settings.lora_rank}, trained on the {"NF4" if settings.quantize else "unquantised"} base and merged into
the bf16 one. It answers in the mode `{METHODS[settings.method].mode}`: the suffix of its prompts stands in
`rftkit/prompts.py` of the kit.

Accuracy of the run (greedy, rule `{settings.scoring}`, 0-1, 95 % Wilson interval), as trained, before merging:

| part | items | accuracy | interval |
| --- | --- | --- | --- |
{rows}

{as_text(agreement, settings)}

```yaml
{yaml.safe_dump(config | facts, sort_keys=False)}```
"""
