"""Renders `data/emoji` and `data/flags`, writes `data/digits`: for whoever makes them anew, not needed to use the kit.

pip install -e ".[assets]"
mkdir -p build/icons && cd build/icons
for package in noto@1.2.9 noto-v1@1.2.5 twemoji@1.2.5 fluent-emoji-flat@1.2.6 emojione@1.2.3 fxemoji@1.2.2 \\
               flag@1.2.12 flagpack@1.2.8 circle-flags@1.2.11; do
    mkdir ${package%@*} && npm pack @iconify-json/$package && tar xzf *.tgz -C ${package%@*} && rm *.tgz
done
cd ../.. && python data/make_assets.py --packages build/icons
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

DATA = Path(__file__).resolve().parent
SIDE = 72  # pixels
STYLES = ("noto", "fluent-emoji-flat", "twemoji", "emojione", "fxemoji", "noto-v1")
# Style of a flag: the package it is from, and what follows the country's code in an icon's name.
FLAG_STYLES = {"flag-4x3": ("flag", "-4x3"), "flag-1x1": ("flag", "-1x1"), "flagpack": ("flagpack", ""),
               "circle-flags": ("circle-flags", "")}  # fmt: skip


def icon(pack: dict, name: str) -> dict:
    """An icon of a pack by its name or alias."""
    while name not in pack["icons"]:
        name = pack["aliases"][name]["parent"]
    return pack["icons"][name]


def render(pack: dict, name: str) -> Image.Image:
    """An icon as an RGBA picture of SIDE x SIDE pixels."""
    import resvg_py

    found = icon(pack, name)
    size = {key: found.get(key, pack.get(key, default)) for key, default in
            (("left", 0), ("top", 0), ("width", 16), ("height", 16))}  # fmt: skip
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{size["left"]} {size["top"]} {size["width"]} {size["height"]}">{found["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    square = Image.new("RGBA", (SIDE, SIDE))  # some drawings are wide or high: centre them
    square.paste(drawing, ((SIDE - drawing.width) // 2, (SIDE - drawing.height) // 2))
    return square


def write_emoji(packages: Path) -> None:
    """Render every class of `data/emoji/classes.json` in every style."""
    classes = json.loads((DATA / "emoji" / "classes.json").read_text())
    for style in STYLES:
        pack = _pack(packages / style)
        folder = DATA / "emoji" / style
        folder.mkdir(exist_ok=True)
        for entry in classes:
            name = entry["fxemoji"] if style == "fxemoji" else entry["icon"]
            render(pack, name).save(folder / f"{entry['slug']}.png", optimize=True)


def write_flags(packages: Path) -> None:
    """Render every class of `data/flags/classes.json` in every style."""
    for style, (package, ending) in FLAG_STYLES.items():
        pack, folder = _pack(packages / package), DATA / "flags" / style
        folder.mkdir(exist_ok=True)
        for entry in json.loads((DATA / "flags" / "classes.json").read_text()):
            render(pack, entry["code"] + ending).save(folder / f"{entry['code']}.png", optimize=True)


def _pack(folder: Path) -> dict:
    (pack_file,) = folder.rglob("icons.json")
    return json.loads(pack_file.read_text())


def write_digits() -> None:
    """Write scikit-learn's copy of the handwritten digits, order kept."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    (DATA / "digits").mkdir(exist_ok=True)
    arrays = {"images": digits.images.astype(np.uint8), "labels": digits.target.astype(np.uint8)}
    np.savez_compressed(DATA / "digits" / "digits.npz", **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, metavar="DIR", help="the unpacked icon packages")
    packages = parser.parse_args().packages
    write_emoji(packages)
    write_flags(packages)
    write_digits()


if __name__ == "__main__":
    main()
