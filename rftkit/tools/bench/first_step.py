"""`rftkit bench --pictures`: does a run's start depend on how many pictures there are to train on? It should not."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from rftkit.common.errors import UserError
from rftkit.common.pool import pool
from rftkit.models import quieten
from rftkit.run import execute
from rftkit.settings import load_settings
from rftkit.tools.bench.trainers import resident_peak

SIZE = (640, 480)  # of a picture, as many photographs have: 0.9 MB when it is decoded
TESTED = 4
MOST = 10**6


def bench(pictures: Sequence[str], device: str, progress: bool = True) -> dict[str, Any]:
    """Seconds to the first step and peak memory, with each of these numbers of made pictures to train on."""
    wrong = [text for text in pictures if not (text.isdecimal() and 10 <= int(text) <= MOST)]
    if wrong:
        raise UserError(f"--pictures must be numbers from 10 to {MOST}, such as 100,1000,10000, not '{wrong[0]}'")
    rows = []
    for count in tqdm([int(text) for text in pictures], desc="pictures", disable=not progress):
        with tempfile.TemporaryDirectory() as folder, pool(1) as workers:
            make_pictures(Path(folder) / "made", count)
            rows.append({"pictures": count} | workers.submit(first_step, Path(folder), count, device).result())
    return {"device": device, "side": SIZE, "rows": rows}


def make_pictures(folder: Path, count: int) -> None:
    """A folder of JSONL files with so many pictures to train on, no two files alike."""
    folder.mkdir()
    content = BytesIO()
    Image.effect_noise((SIZE[0] // 8, SIZE[1] // 8), 60).convert("RGB").resize(SIZE).save(content, "JPEG")
    start, rest = content.getvalue()[:2], content.getvalue()[2:]
    for split, number in (("train", count), ("test", TESTED)):
        rows = []
        for place in range(number):
            comment = f"{split} {place}".encode()  # a JPEG may hold one: the files differ and need not be drawn
            marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            (folder / f"{split}-{place}.jpg").write_bytes(start + marker + rest)
            rows.append({"image": f"{split}-{place}.jpg", "question": "Which?", "answer": "a", "choices": ["a", "b"]})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def first_step(folder: Path, count: int, device: str) -> dict[str, float]:
    """What a run on these pictures needs in this process, one that has done nothing before."""
    quieten()
    began, seconds = time.perf_counter(), []
    settings = load_settings("smoke", "no_thinking_rl", dataset=str(folder / "made"), train_items=count, steps=1,
                             test_items=TESTED, pass_items=0, device=device)  # fmt: skip
    execute(settings, folder / "runs", lambda _: seconds.append(time.perf_counter() - began))
    return {"seconds": round(seconds[0], 2), "peak_bytes": resident_peak()}


def as_text(report: dict[str, Any]) -> str:
    """The report for people: a row a number of pictures."""
    table = pd.DataFrame(report["rows"])
    table["peak"] = (table.pop("peak_bytes") / 2**20).map("{:.0f} MiB".format)
    return (
        f"to the first step, made pictures of {SIZE[0]} x {SIZE[1]}, {report['device']}\n{table.to_string(index=False)}"
    )
