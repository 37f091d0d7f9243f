"""The bundled drawings and handwriting are whole, distinct and attributed."""

import hashlib
import json
import runpy

import numpy as np
import pytest
from PIL import Image

from rftkit.common.paths import DATA

MADE_BY = runpy.run_path(str(DATA / "make_assets.py"))
SIDE, STYLES = MADE_BY["SIDE"], MADE_BY["STYLES"]
EMOJI = DATA / "emoji"
CLASSES = json.loads((EMOJI / "classes.json").read_text())


@pytest.mark.parametrize("style", STYLES)
def test_every_class_is_drawn_in_every_style(style):
    assert {path.stem for path in (EMOJI / style).iterdir()} == {entry["slug"] for entry in CLASSES}
    for path in (EMOJI / style).iterdir():
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((SIDE, SIDE), "RGBA")


def test_no_two_drawings_are_the_same():
    files = [path for style in STYLES for path in (EMOJI / style).iterdir()]
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in files}) == len(files)


def test_there_are_enough_classes_in_label_order():
    labels = [entry["label"] for entry in CLASSES]
    assert len(labels) >= 96 and labels == sorted(set(labels))


def test_facts_name_no_label():
    labels = {entry["label"] for entry in CLASSES}
    assert not [(e["label"], fact) for e in CLASSES for fact in e["facts"] if labels & set(fact.split())]


def test_every_style_is_attributed():
    text = (EMOJI / "LICENSES.md").read_text()
    assert all(f"| {style} |" in text for style in STYLES)


def test_digits_are_whole():
    with np.load(DATA / "digits" / "digits.npz") as file:
        assert file["images"].shape == (1797, 8, 8) and file["images"].max() == 16
        assert np.bincount(file["labels"]).min() > 170
