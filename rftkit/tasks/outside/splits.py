"""Which pictures are trained on, held out and tested on: by their content, so that no picture is in two splits.

Content is the same in a folder, in a parquet file and in what `save_to_disk` wrote; names are not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path

Items = dict[str, dict[str, list[Path]]]  # split -> label -> pictures

HELD_OUT = 10  # of a table every tenth training picture is kept for choosing steps and learning rate
ENDS = 2**16  # bytes: of a longer file its length and both ends tell it from others


def content(picture: Path | bytes) -> str:
    """What a picture is known by, whatever it is called. OSError if its file cannot be read."""
    with BytesIO(picture) if isinstance(picture, bytes) else picture.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(0)
        ends = file.read(ENDS)
        file.seek(max(0, length - ENDS))
        ends += file.read(ENDS)
    return hashlib.sha256(f"{length} ".encode() + ends).hexdigest()


def held_out(rows: Iterable[Sequence[str]]) -> list[bool]:
    """For each row of a table whether it is kept for choosing.

    A row comes as its keys: the content of its pictures, and its group. Rows that share one, directly or through other
    rows, stay together. If by chance none or all of ten rows or more are kept, the fewest that stay together are.
    """
    above: dict[str, str] = {}  # a key -> a lower one of the same rows

    def lowest(key: str) -> str:
        while above.setdefault(key, key) != key:
            above[key] = above[above[key]]
            key = above[key]
        return key

    firsts = []  # None: of a row that cannot be read
    for keys in rows:
        ends = sorted({lowest(key) for key in keys})
        above.update(dict.fromkeys(ends, ends[0] if ends else ""))
        firsts.append(ends[0] if ends else None)
    clusters = [None if key is None else lowest(key) for key in firsts]
    sizes = Counter(cluster for cluster in clusters if cluster is not None)
    kept = {cluster for cluster in sizes if is_held_out(cluster)}
    if len(kept) in (0, len(sizes)):
        enough = len(clusters) >= HELD_OUT and len(sizes) > 1
        kept = {min(sizes, key=lambda key: (sizes[key], key))} if enough else set()
    return [cluster in kept for cluster in clusters]


def is_held_out(key: str) -> bool:
    """Whether what has this key is kept for choosing: a tenth of all keys."""
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT == 0


def by_chance(count: int) -> dict[str, int]:
    """How many of a class's different pictures are for what if nobody says: about half to train, a fifth, the rest."""
    test = max(1, 3 * count // 10) if count > 1 else 0
    val = max(1, count // 5) if count > 3 else 0
    return {"test": test, "val": val, "train": count - test - val}


def a_fifth(count: int) -> dict[str, int]:
    """How many of a class's different training pictures are held out: two at least are left to train on."""
    val = max(1, count // 5) if count > 2 else 0
    return {"val": val, "train": count - val}


def by_content(classes: dict[str, list[Path]], share: Callable[[int], dict[str, int]]) -> Items:
    """The pictures of each class in splits, in the order of their content: no content is in two, of no two classes."""
    placed: dict[str, str] = {}
    items: Items = {split: {} for split in share(1)}
    for label, paths in classes.items():
        same: dict[str, list[Path]] = {}
        for path in paths:
            same.setdefault(content(path), []).append(path)
        room = share(len(same))
        for key in same.keys() & placed.keys():
            room[placed[key]] -= 1
        for key in sorted(same):
            if key not in placed:
                placed[key] = next((split for split in room if room[split] > 0), "train")
                room[placed[key]] -= 1
            items[placed[key]].setdefault(label, []).extend(same[key])
    return items
