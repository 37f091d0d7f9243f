"""Data files that cannot be read, each with the words in which that is said."""

import json
import random

from PIL import Image

ROW = {"image": "cat.png", "question": "What is it?", "answer": "cat", "choices": ["cat", "dog"]}


def write_images(folder):
    """One good picture and many bad ones."""
    noise = Image.frombytes("RGB", (64, 48), random.Random(0).randbytes(64 * 48 * 3))
    noise.save(folder / "cat.png")
    noise.save(folder / "cat.jpg")
    for whole, half in (("cat.png", "half.png"), ("cat.jpg", "half.jpg")):
        content = (folder / whole).read_bytes()
        (folder / half).write_bytes(content[: len(content) // 2])
    sizes = {"wide": (30_000, 300), "large": (6400, 6410), "larger": (10_000, 10_000), "bomb": (15_000, 13_000)}
    for name, size in (sizes | {"long": (1005, 5)}).items():
        Image.new("1", size).save(folder / f"{name}.png")  # one bit a pixel: small files
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "header.png").write_bytes((folder / "cat.png").read_bytes()[:8])
    (folder.parent / "outside.png").write_bytes((folder / "cat.png").read_bytes())
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (folder / "loop.png").symlink_to("loop.png")


# What is wrong with the second line: values that replace those of ROW.
BAD_VALUES = [
    ({"image": "no.png"}, "there is no image 'no.png'"),
    ({"image": "."}, "there is no image '.'"),
    ({"image": "no\nsuch.png"}, "there is no image 'no\\nsuch.png'"),
    ({"image": "../outside.png"}, "points outside the data folder"),
    ({"image": "/etc/hostname"}, "points outside the data folder"),
    ({"image": "a/../../outside.png"}, "points outside the data folder"),
    ({"image": "loop.png"}, "there is no image 'loop.png'"),
    ({"image": "cat\0.png"}, "there is no image 'cat\\x00.png'"),
    ({"image": "c" * 5000}, "is not the name of a file"),
    ({"image": ["cat.png", "no.png"]}, "there is no image 'no.png'"),
    ({"image": []}, "'image' is an empty list"),
    ({"image": [["cat.png"]]}, "'image' must be a path"),
    ({"image": None}, "'image' must be a path"),
    ({"image": ""}, "'image' must be a path"),
    ({"image": "text.png"}, "cannot read image 'text.png': it is in no format that Pillow reads"),
    ({"image": "empty.png"}, "cannot read image 'empty.png'"),
    ({"image": "header.png"}, "cannot read image 'header.png'"),
    ({"image": "wide.png"}, "30000 x 300 pixels"),
    ({"image": "large.png"}, "6400 x 6410 pixels; at most 40 megapixels"),
    ({"image": "larger.png"}, "10000 x 10000 pixels"),
    ({"image": "bomb.png"}, "image 'bomb.png' is far too large; at most 40 megapixels"),
    ({"image": "long.png"}, "1005 x 5 pixels"),
    ({"answer": "horse"}, "answer 'horse' is not among the choices ['cat', 'dog']"),
    ({"answer": "Cat"}, "answer 'Cat' is not among the choices"),
    ({"answer": "c\nt"}, "answer 'c\\nt' is not among the choices"),
    ({"answer": "c" * 5000}, "is not among the choices"),
    ({"answer": " "}, "'answer' must be a text that is not empty"),
    ({"answer": 3}, "'answer' must be a text that is not empty; write \"3\", not 3"),
    ({"answer": None}, "'answer' must be a text that is not empty; it is null: give it, or leave the row out"),
    ({"task": "math"}, "task 'math' where the set's is 'classification'"),
    ({"task": "maths"}, "task 'maths' where the set's is 'classification' (there are classification, math, "),
    ({"question": ""}, "'question' must be a text that is not empty"),
    ({"question": "\ud800"}, "not valid JSON"),
    ({"question": "What <|image_pad|> is it?"}, "'<|image_pad|>' is a control token"),
    ({"choices": ["cat", "<|im_end|>"]}, "'<|im_end|>' is a control token"),
    ({"unit": 3}, "'unit' must be a text such as cm, not 3"),
    ({"precision": "two"}, "'precision' must be a number of decimals such as 2, not 'two'"),
    ({"precision": 0.01}, "'precision' must be a number of decimals such as 2, not 0.01"),
    ({"choices": "cat, dog"}, "'choices' must be a list of texts"),
    ({"choices": {"cat": 1}}, "'choices' must be a list of texts"),
    ({"choices": ["cat", 3]}, "'choices' must be a list of texts"),
    ({"choices": ["cow", ""]}, "answer 'cat' is not among the choices ['cow']"),
]

# Second lines that are wrong as they stand.
BAD_LINES = [
    (json.dumps({"image": "cat.png", "question": "What is it?"}), "column 'answer' is missing"),
    (json.dumps({"img": "cat.png", "question": "What is it?", "answer": "cat"}), "column 'image' is missing"),
    ("{}", "column 'image' is missing"),
    ("cat.png,cat", "not valid JSON"),
    ('{"image": "cat.png"', "not valid JSON"),
    ('["cat.png", "What is it?", "cat"]', "not a JSON object"),
    ("3", "not a JSON object"),
    ("[" * 100_000, "not valid JSON"),
    ('{"image": ' + "1" * 10_000 + "}", "not valid JSON"),
]

# Whole files that are wrong.
BAD_FILES = [
    (b"", "holds no examples"),
    (b"\n \n", "holds no examples"),
    (bytes(range(256)), "is not UTF-8 text"),
    (json.dumps(ROW).encode("utf-16"), "is not UTF-8 text"),
    (json.dumps([ROW, ROW]).encode(), "is one JSON list: write an example a line, such as {"),
    (json.dumps([ROW, ROW], indent=1).encode(), "is one JSON list: write an example a line, such as {"),
    (json.dumps({"data": [ROW]}, indent=1).encode(), "is one JSON object over several lines: write an example a line"),
    (b"image,question,answer\ncat.png,What?,cat\n", "is not valid JSON, perhaps a table such as CSV: write"),
    (b"\0" * 100, "not valid JSON"),
]


def contents():
    """Everything above: the content of data.jsonl, the place that is named, what is said."""
    lines = [(json.dumps(ROW | values), said) for values, said in BAD_VALUES] + BAD_LINES
    good = json.dumps(ROW)
    found = [(f"{good}\n{line}\n".encode(), "data.jsonl line 2: ", said) for line, said in lines]
    return found + [(content, "data.jsonl", said) for content, said in BAD_FILES]
