"""The processor of every model here: pictures and texts as tensors, each made once."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import ClassVar

import numpy as np
from transformers import AutoProcessor, BatchFeature, ProcessorMixin, Qwen2VLConfig, Qwen2VLProcessor
from transformers.image_utils import make_flat_list_of_images

# TRL finds the image positions of a prompt by this literal token; under another name it trains on text positions.
IMAGE_TOKEN = "<|image_pad|>"
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # of the models that rftkit reads pictures with
CACHE_BYTES = 256 * 2**20  # of prepared images kept
CACHE_TEXTS = 10_000  # rendered conversations kept


class ImageTextProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor without its video part, which needs torchvision; for bundled and hub checkpoints alike.

    Those of Qwen2.5-VL and Qwen3-VL treat pictures in the same way; sizes of patches are in a checkpoint's files.

    What it made of pictures and conversations is kept for the next processor too: each run of a notebook has its own.
    """

    _prepared: ClassVar[OrderedDict[bytes, BatchFeature]] = OrderedDict()
    _held: ClassVar[int] = 0  # bytes in it
    _rendered: ClassVar[dict[str, str]] = {}

    def __init__(self, image_processor, tokenizer, chat_template=None, **kwargs):
        self.image_token, self.video_token = IMAGE_TOKEN, "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def _process_images(self, images, **kwargs):
        """As in transformers, but an image seen lately is not prepared again.

        GRPO meets the same few pictures in every step, twice in each, and evaluation meets them in every mode.
        """
        kwargs.pop("return_tensors", None)
        options = repr([self.image_processor.to_json_string(), sorted(kwargs.items(), key=str)]).encode()
        features = [self._prepare(image, options, kwargs) for image in make_flat_list_of_images(images)]
        together = {name: np.concatenate([one[name] for one in features]) for name in features[0]}
        return together, [self.replace_image_token(together, index) for index in range(len(features))]

    def _prepare(self, image, options: bytes, kwargs) -> BatchFeature:
        pixels = np.asarray(image)
        key = hashlib.sha256(options + repr((pixels.shape, pixels.dtype)).encode() + pixels.tobytes()).digest()
        if key not in self._prepared:
            self._prepared[key] = self.image_processor([image], return_tensors="np", **kwargs)
            ImageTextProcessor._held += self._prepared[key]["pixel_values"].nbytes
        self._prepared.move_to_end(key)
        found = self._prepared[key]
        while self._held > CACHE_BYTES:
            ImageTextProcessor._held -= self._prepared.popitem(last=False)[1]["pixel_values"].nbytes
        return found

    def create_mm_token_type_ids(self, input_ids: list) -> list[list[int]]:
        """As in transformers, for pictures alone: 1 where a token stands for a part of one, else 0."""
        return [(np.asarray(row) == self.image_token_id).astype(int).tolist() for row in input_ids]

    def apply_chat_template(self, conversation, chat_template=None, **kwargs):
        """As in transformers; the text of a conversation rendered before is looked up."""
        if chat_template is not None or kwargs.get("tokenize") or isinstance(conversation[0], list):
            return super().apply_chat_template(conversation, chat_template, **kwargs)
        key = json.dumps([self.chat_template, conversation, kwargs], default=lambda thing: type(thing).__name__)
        if key not in self._rendered:
            if len(self._rendered) >= CACHE_TEXTS:
                self._rendered.clear()
            self._rendered[key] = super().apply_chat_template(conversation, **kwargs)
        return self._rendered[key]


# Without this, AutoProcessor silently returns a bare tokenizer for a folder saved with the class above.
AutoProcessor.register(Qwen2VLConfig, ImageTextProcessor, exist_ok=True)
