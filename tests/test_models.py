"""What the processor makes once is what it would make each time; which models are refused."""

import json
import shutil
from unittest.mock import patch

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import Qwen2VLProcessor

from rftkit.common.errors import UserError
from rftkit.common.paths import BUNDLED
from rftkit.common.processor import ImageTextProcessor
from rftkit.memory.model_sizes import shape_named
from rftkit.models import load
from rftkit.prompts import conversation

PICTURES = st.sampled_from([(0,), (1,), (0, 2), (1, 1, 0), ()])


@given(st.lists(st.tuples(PICTURES, st.integers(0, 1)), min_size=1, max_size=7))
def test_pictures_seen_before_are_as_if_prepared_anew(nano, shapes, rows):
    assume(any(own for own, _ in rows))
    _, processor = nano
    pictures = [example.images[0].convert("RGB") for example in shapes[:3]]
    pictures[1] = pictures[1].resize((40, 64))
    modes = ("thinking", "no_thinking")
    texts = [processor.apply_chat_template(conversation(shapes[0], modes[m])) for _, m in rows]
    texts = [
        text.replace(processor.image_token, processor.image_token * len(own))
        for text, (own, _) in zip(texts, rows, strict=True)
    ]
    images = [[pictures[place] for place in own] for own, _ in rows]
    options = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
    found = processor(text=texts, images=images, **options)
    with patch.object(ImageTextProcessor, "_process_images", Qwen2VLProcessor._process_images):
        expected = processor(text=texts, images=images, **options)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_picture_seen_before_is_not_prepared_again(nano, shapes):
    _, processor = nano
    text = processor.apply_chat_template(conversation(shapes[0], "no_thinking"))
    options = {"text": [text], "images": [[shapes[0].images[0].convert("RGB")]], "return_tensors": "pt"}
    processor(**options)
    kind = type(processor.image_processor)
    with patch.object(kind, "preprocess", side_effect=AssertionError("prepared again")):
        processor(**options)


@pytest.mark.parametrize(("changes", "words"), [
    ({"model_type": "qwen3_vl_moe"}, "is of the family qwen3_vl_moe: choose one of qwen2_vl, qwen2_5_vl, qwen3_vl"),
    ({"model_type": "qwen3_5"}, "is of the family qwen3_5: choose one of"),
    ({"text_config": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}}, "a sliding window"),
])  # fmt: skip
def test_a_model_of_another_kind_is_refused_before_its_weights_are_read(tmp_path, changes, words):
    folder = shutil.copytree(BUNDLED / "nano-s", tmp_path / "other", ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"] | changes.pop("text_config", {})
    del text["layer_types"]
    (folder / "config.json").write_text(json.dumps(config | {"text_config": text} | changes))
    for read in (load, shape_named):
        with pytest.raises(UserError, match=words):
            read(str(folder))
