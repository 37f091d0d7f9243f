"""Pictures as people have them: transparency, more than 8 bits, odd shapes and formats, all as a model sees them."""

import numpy as np
import pytest
from PIL import Image

from rftkit.evaluate import encode
from rftkit.models import limit_pixels, load_processor
from rftkit.tasks.example import Example
from rftkit.tasks.images import MAX_ASPECT, open_image, with_blanks
from rftkit.tasks.registry import bundled_sets, open_set

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def cut_out(mode="RGBA"):
    """A black square in the corner of nothing, whose colour is black as well."""
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 5, 5))
    return image.convert(mode)


def keyed(mode, colour, other):
    """A picture without alpha whose files name the colour that is transparent."""
    image = Image.new(mode, (10, 10), colour)
    image.paste(other, (0, 0, 5, 5))
    return image


@pytest.mark.parametrize(
    ("image", "name", "options"),
    [
        (cut_out(), "a.png", {}),
        (cut_out(), "a.webp", {"lossless": True}),
        (cut_out(), "a.gif", {}),
        (cut_out(), "a.tga", {}),
        (cut_out("LA"), "a.png", {}),
        (keyed("P", 0, 1), "a.png", {"transparency": 0}),
        (keyed("L", 7, 0), "a.png", {"transparency": 7}),
        (keyed("1", 1, 0), "a.png", {"transparency": 1}),
        (keyed("RGB", (9, 9, 9), BLACK), "a.png", {"transparency": (9, 9, 9)}),
        (cut_out(), "moves.png", {"save_all": True, "append_images": [Image.new("RGBA", (10, 10), "red")]}),
        (cut_out(), "moves.gif", {"save_all": True, "append_images": [Image.new("RGBA", (10, 10), "red")]}),
    ],
)
def test_what_is_transparent_is_white(tmp_path, image, name, options):
    if image.mode == "P":
        image.putpalette([255, 0, 0, *BLACK])
    image.save(tmp_path / name, **options)
    seen = open_image(tmp_path / name)
    assert (seen.mode, seen.getpixel((0, 0)), seen.getpixel((9, 9))) == ("RGB", BLACK, WHITE)


def test_half_transparent_red_on_white_is_pink():
    assert open_image(Image.new("RGBA", (1, 1), (255, 0, 0, 128))).getpixel((0, 0)) == (255, 127, 127)


RAMP = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ((RAMP * 257).astype(np.uint16), "a.png"),
        ((RAMP * 257).astype(np.uint16), "a.tif"),
        ((RAMP * 257).astype(">u2"), "a.tif"),
        ((RAMP * 257).astype(np.int32), "a.tif"),
        (RAMP.astype(np.int32), "a.tif"),  # a byte a value, stored in four
        (RAMP.astype(np.int32) * 10**6, "a.tif"),
        ((RAMP / 255).astype(np.float32), "a.tif"),
        (RAMP.astype(np.float32), "a.tif"),
        ((RAMP - 128).astype(np.float32), "a.tif"),
    ],
)
def test_more_than_eight_bits_a_value_are_scaled_to_eight(tmp_path, values, name):
    Image.fromarray(values).save(tmp_path / name)
    assert (np.asarray(open_image(tmp_path / name)) == RAMP[..., None]).all()


def test_values_that_are_no_numbers_are_black(tmp_path):
    Image.fromarray(np.array([[np.nan, np.inf, 0, 1]], np.float32)).save(tmp_path / "a.tif")
    assert np.asarray(open_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_inks_become_light(tmp_path, name):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / name)
    red, *others = open_image(tmp_path / name).getpixel((0, 0))
    assert red > 200 and max(others) < 60


@pytest.mark.parametrize("most", [None, 800, 153_664])
@pytest.mark.parametrize("size", [(9850, 50), (50, 9850), (7600, 38), (200, 1)])
def test_the_longest_pictures_that_are_read_are_taken_by_the_models_processor(size, most):
    assert max(size) <= MAX_ASPECT * min(size)
    processor = load_processor("nano-s")
    limit_pixels(processor, None, most)
    encode(processor, [Example("long", (Image.new("RGB", size),), "What is it?", "a line")], "no_thinking")


@pytest.mark.parametrize(
    ("least", "most", "limits"),
    [
        (None, None, (4096, 4096)),  # the model's own
        (1024, None, (1024, 4096)),
        (8192, None, (8192, 8192)),
        (None, 1024, (1024, 1024)),
        (None, 8192, (4096, 8192)),
        (512, 1024, (512, 1024)),
    ],
)
def test_limits_that_are_given_stand_above_the_models_own(least, most, limits):
    processor = load_processor("nano-s")
    limit_pixels(processor, least, most)
    size = processor.image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == limits


@pytest.mark.parametrize("name", bundled_sets())
def test_pictures_of_the_bundled_sets_are_never_scaled(nano, name):
    """They have the size that the bundled models take: what a model sees are their pixels."""
    data, processor = open_set(name), nano[1].image_processor
    for part in data.parts(data.usual_protocol):
        for example in data.examples("test", part, 4, 0):
            (image,) = example.images
            assert image.width * image.height == processor.size["longest_edge"]
            seen, raw = (processor([image], do_resize=scales, return_tensors="np") for scales in (True, False))
            assert (seen["pixel_values"] == raw["pixel_values"]).all()


def test_a_blank_picture_has_the_size_of_the_one_it_stands_for_and_nothing_else(tmp_path):
    lying = Image.new("RGB", (30, 20), "red")
    exif = lying.getexif()
    exif[0x0112] = 6  # a camera's, held upright
    lying.save(tmp_path / "lying.jpg", exif=exif)
    (blank,) = with_blanks([Example("item", (cut_out(), tmp_path / "lying.jpg"), "?", "red")])
    images = [open_image(image) for image in blank.images]
    assert [image.size for image in images] == [(10, 10), (20, 30)]
    assert all(image.getcolors() == [(image.width * image.height, (128, 128, 128))] for image in images)
    assert (blank.id, blank.question, blank.answer) == ("item", "?", "red")
