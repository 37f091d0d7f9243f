"""Data from disk: what is read, and one line for whatever cannot be."""

import json
import warnings
from pathlib import Path

import bad_data
import pytest
from PIL import Image

from rftkit.common.errors import UserError
from rftkit.evaluate import encode
from rftkit.prompts import conversation
from rftkit.tasks.example import Example
from rftkit.tasks.images import open_image
from rftkit.tasks.outside.jsonl import Jsonl
from rftkit.tasks.outside.rows import check_texts, placed

ROW = bad_data.ROW


def read(path):
    """The examples of a JSONL file."""
    return Jsonl(path).examples("test", "test", None)


def write(pictures, *rows, encoding="utf-8", end="\n"):
    path = pictures / "data.jsonl"
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode(encoding))
    return path


def test_a_row_becomes_an_example(pictures):
    (example,) = read(write(pictures, ROW))
    assert example.images == (pictures / "cat.png",)
    assert (example.question, example.answer, example.choices) == ("What is it?", "cat", ("cat", "dog"))
    assert (example.id, example.group) == ("data-1", "data-1")
    assert (example.task, example.dataset, example.split) == ("classification", "data", "test")


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ({"id": "photo 7"}, "id", "photo 7"),
        ({"id": 7}, "id", "7"),
        ({"id": None}, "id", "data-1"),
        ({"id": 7}, "group", "7"),
        ({"group": "drawing"}, "group", "drawing"),
        ({"group": None}, "group", "data-1"),
        ({"choices": None}, "choices", None),
        ({"licence": "CC0"}, "answer", "cat"),  # other columns are passed over
        ({"question": "What\u2028is it?"}, "question", "What\u2028is it?"),  # no end of line in JSON
        ({"answer": "кіт", "choices": ["кіт"]}, "answer", "кіт"),
    ],
)
def test_optional_and_odd_values(pictures, values, name, expected):
    (example,) = read(write(pictures, ROW | values))
    assert getattr(example, name) == expected


@pytest.mark.parametrize(
    ("values", "question", "unit", "precision"),
    [
        ({"unit": "cm"}, "How long? Answer in cm.", "cm", None),
        ({"unit": "$", "precision": 2.0}, "How long? Answer in $. Round to 2 decimals.", "$", 2),
        ({"precision": 1}, "How long? Round to 1 decimal.", "", 1),
        ({"unit": "cm", "question": "How many cm?"}, "How many cm?", "cm", None),  # said already
        ({"unit": "m", "question": "How many cm?"}, "How many cm? Answer in m.", "m", None),
        ({"precision": 1, "question": "Rounded to the nearest tenth, how long?"}, None, "", 1),
        ({"unit": None, "precision": None}, "How long?", "", None),
        ({"unit": "cm", "precision": 1, "choices": ["3", "4"]}, "How long?", "", None),  # they have both in them
    ],
)
def test_the_question_says_the_unit_and_the_precision_of_a_row(pictures, values, question, unit, precision):
    row = {"image": "cat.png", "question": "How long?", "answer": "3"} | values
    (example,) = read(write(pictures, row))
    assert (example.question, example.unit, example.precision) == (question or row["question"], unit, precision)


def test_choices_may_be_missing(pictures):
    (example,) = read(write(pictures, {key: ROW[key] for key in ("image", "question", "answer")}))
    assert example.choices is None


@pytest.mark.parametrize("images", [["cat.png"], ["cat.png", "cat.jpg"], ["cat.png"] * 3])
def test_a_row_may_have_several_images(pictures, images):
    (example,) = read(write(pictures, ROW | {"image": images}))
    assert [path.name for path in example.images] == images


def test_links_are_followed_wherever_they_lead(pictures):
    (example,) = read(write(pictures, ROW | {"image": "link.png"}))
    assert example.images == (pictures / "link.png",) and open_image(example.images[0]).size == (64, 48)


@pytest.mark.parametrize(
    ("choices", "kept"),
    [(["cat", "", "dog", " "], ("cat", "dog")), ([], None), (["", ""], None), (None, None)],
)
def test_empty_texts_are_no_choices(pictures, choices, kept):
    assert read(write(pictures, ROW | {"choices": choices}))[0].choices == kept


A, B, C = Path("a"), Path("b"), Path("c")
PLACED = [  # a question as a benchmark writes it, its pictures; as it is asked, and in which order
    ("Which?\n<image1>", (A,), "Which?", (A,)),
    ("<image>\nHow many?", (A,), "How many?", (A,)),
    ("As shown in <image1>, what is x?", (A,), "As shown in, what is x?", (A,)),
    ("Is <|image_1|> or <image 2> larger?", (A,), "Is or larger?", (A,)),  # one picture with both in it
    ("Is <image1> or <image2> larger?", (A, B), "Is <image> or <image> larger?", (A, B)),
    ("Is <image 2> or <image 1> larger?", (A, B), "Is <image> or <image> larger?", (B, A)),
    ("Is <image2> like the others? <image3>", (A, B, C), "Is <image> like the others? <image>", (A, B, C)),
    ("<image1> or <image2>? In <image1> x is 3.", (A, B), "<image> or <image>? In image 1 x is 3.", (A, B)),
    ("First <image>, then <image>.", (A, B), "First <image>, then <image>.", (A, B)),
    ("Before, and after: <image>", (A, B), "Before, and after: <image>", (A, B)),
    ("<image1> or <image4>?", (A, B), "or?", (A, B)),  # they do not fit
    ("<image> or <image> or <image>?", (A, B), "or or?", (A, B)),
    ("Is 3 < image?", (A, B), "Is 3 < image?", (A, B)),
]


@pytest.mark.parametrize(("question", "images", "asked", "order"), PLACED)
def test_place_holders_leave_the_question_or_are_where_the_pictures_stand(question, images, asked, order):
    assert placed(question, images) == (asked, order)


@pytest.mark.parametrize(
    ("question", "count", "parts"),
    [
        ("What?", 1, ["", "What?"]),
        ("What?", 2, ["", "", "What?"]),
        ("<image> or <image>?", 2, ["", " or ", "", "?"]),
        ("Is <image> new?", 2, ["", "Is ", "", " new?"]),  # the other one stands before the text
        ("What?", 0, ["What?"]),
    ],
)
def test_pictures_stand_in_their_places(nano, question, count, parts):
    example = Example("", (Image.new("RGB", (56, 56)),) * count, question, "a", task="math")
    (turn,) = conversation(example, "no_thinking")
    said = [part.get("text", "") for part in turn["content"]]
    said[-1] = said[-1].partition("\n")[0]
    assert said == parts and [part["type"] for part in turn["content"]].count("image") == count
    ids = encode(nano[1], [example], "no_thinking")["input_ids"]
    assert (ids == nano[1].image_token_id).sum() == count * 16  # tokens of a picture


@pytest.mark.parametrize(
    ("encoding", "end"), [("utf-8", "\n"), ("utf-8", "\r\n"), ("utf-8-sig", "\r\n"), ("utf-8", "\n\n")]
)
def test_files_of_any_editor_are_read(pictures, encoding, end):
    assert len(read(write(pictures, ROW, ROW, encoding=encoding, end=end))) == 2


def test_lines_are_counted_with_the_empty_ones(pictures):
    first, second = read(write(pictures, ROW, ROW, end="\n\n"))
    assert (first.id, second.id) == ("data-1", "data-3")


@pytest.mark.parametrize(("content", "place", "said"), bad_data.contents())
def test_bad_data_are_one_line_that_says_where_and_what(pictures, content, place, said):
    path = pictures / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as error, warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning of Pillow's would be a second line
        read(path)
    message = str(error.value)
    assert place in message and said in message
    assert "\n" not in message and len(message) < 500


@pytest.mark.parametrize(("name", "said"), [("", "Is a directory"), ("gone.jsonl", "No such file or directory")])
def test_folders_and_missing_files_are_one_line(pictures, name, said):
    with pytest.raises(UserError, match=f"^cannot read '.*': {said}$"):
        read(pictures / name)


@pytest.mark.parametrize("name", ["cat.png", "cat.jpg"])
def test_images_open_in_rgb(pictures, name):
    image = open_image(pictures / name)
    assert (image.mode, image.size) == ("RGB", (64, 48))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_images_of_every_mode_become_rgb(mode):
    assert open_image(Image.new(mode, (8, 8))).mode == "RGB"


@pytest.mark.parametrize("name", ["half.png", "half.jpg"])
def test_a_truncated_image_names_its_item_when_it_is_opened(pictures, name):
    (example,) = read(write(pictures, ROW | {"image": name}))  # the header is whole
    with pytest.raises(UserError) as error:
        open_image(example.images[0], item=example.id)
    assert f"data-1: cannot read image '{name}'" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.png", "there is no image"),
        ("text.png", "cannot read image 'text.png'"),
        ("large.png", "6400 x 6410 pixels"),
        ("bomb.png", "image 'bomb.png' is far too large"),
    ],
)
def test_images_are_checked_when_they_are_opened_too(pictures, name, said):
    with pytest.raises(UserError) as error:
        open_image(pictures / name, item="photo 7")
    assert str(error.value).startswith("photo 7: ") and said in str(error.value)


@pytest.mark.parametrize(("name", "said"), [("text.png", "in no format that"), ("bomb.png", "is far too large")])
def test_images_stored_in_rows_are_named_by_their_item(pictures, name, said):
    with pytest.raises(UserError, match=f"^row 7: .*image 'stored in the row'.* {said}") as error:
        open_image((pictures / name).read_bytes(), item="row 7")
    assert "0x" not in str(error.value)


def test_choices_with_letters_end_at_z():
    texts = [str(number) for number in range(27)]
    assert check_texts("Which?", "0", texts[:26], "row", "puzzle")[2] == tuple(texts[:26])
    assert len(check_texts("Which?", "0", texts, "row")[2]) == 27  # classes have no letters
    with pytest.raises(UserError, match="^row: there are 27 choices and 26 letters to name them$"):
        check_texts("Which?", "0", texts, "row", "puzzle")


def test_no_damage_to_a_picture_raises_anything_else(pictures):
    content = (pictures / "cat.png").read_bytes()
    path = Path(pictures / "damaged.png")
    for place in range(0, 200):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            assert open_image(path).mode == "RGB"
        except UserError as error:
            assert "\n" not in str(error)


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    Image.new("RGB", (20, 10)).save(tmp_path / "held.jpg", exif=exif)
    assert open_image(tmp_path / "held.jpg").size == (10, 20)
