"""What the processor makes once is what it would make row by row."""

from unittest.mock import patch

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import Qwen2VLProcessor

from rftkit.prompts import conversation

PICTURES = st.sampled_from([(0,), (1,), (0, 2), (1, 1, 0), ()])


@given(st.lists(st.tuples(PICTURES, st.integers(0, 1)), min_size=1, max_size=7))
def test_equal_rows_are_made_once_and_repeated(nano, shapes, rows):
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
    with patch.object(Qwen2VLProcessor, "__call__", autospec=True, side_effect=Qwen2VLProcessor.__call__) as stock:
        found = processor(text=texts, images=images, **options)
    assert len(stock.call_args.kwargs["text"]) == len(set(rows))
    apart = [[picture.copy() for picture in row] for row in images]  # equal pictures, but not the same ones
    expected = processor(text=texts, images=apart, **options)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
