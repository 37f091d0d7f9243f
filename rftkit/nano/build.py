"""Builds an untrained bundled model: a real Qwen2-VL in miniature, with tokenizer, processor and chat template."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from rftkit.models import IMAGE_TOKEN, ImageTextProcessor
from rftkit.nano.sentences import scene_vocabulary, vocabulary
from rftkit.prompts import MODES
from rftkit.tasks.registry import DRAWN
from rftkit.tasks.worlds import SIDE, worlds

PATCH = 8  # pixels; 2 x 2 patches make one image token, so a picture is 16 tokens
MERGE = 2
IMAGE_TOKENS = (SIDE // PATCH // MERGE) ** 2
SIZES = {
    # width and depth of the language model, depth and MLP ratio of the vision tower (same width)
    "s": {"hidden": 128, "layers": 4, "vision_layers": 4, "mlp_ratio": 2},
    "m": {"hidden": 256, "layers": 5, "vision_layers": 4, "mlp_ratio": 2},
}
LIKENESS, COPY = 0.8, 0.3  # how sharply attention looks at what is alike at first, and how much it copies
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", IMAGE_TOKEN,
           "<|video_pad|>"]  # fmt: skip
# Qwen2-VL's template without its default system message. Content may be a string or a list of blocks.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for block in message['content'] %}{% if block['type'] == 'image' %}"
    f"<|vision_start|>{IMAGE_TOKEN}<|vision_end|>"
    "{% elif 'text' in block %}{{ block['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_processor(texts: Sequence[str] | None = None, single: Sequence[str] | None = None) -> ImageTextProcessor:
    """Byte-level BPE: any text can be encoded and decoded unchanged.

    Args:
        texts: what it is trained on; if not given all bundled worlds.
        single: texts that are one token each, though ordinary text; if not given the modes' tags.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2100,
        min_frequency=1,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    if texts is None:
        texts = [text for world in worlds().values() for text in vocabulary(world)]
        texts += [text for task in DRAWN.values() for text in scene_vocabulary(task)]
    tokenizer.train_from_iterator([*texts, "user\n assistant\n"], trainer)
    if single is None:
        tags = sorted({tag for mode in MODES.values() for tag in mode.tags})
        single = [text for tag in tags for text in (f"<{tag}>", f"</{tag}>")]
    # Single tokens, but ordinary text: they stay when special tokens are skipped.
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in single])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=1,
        min_pixels=SIDE * SIDE,
        max_pixels=SIDE * SIDE,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return ImageTextProcessor(images, fast, chat_template=CHAT_TEMPLATE)


def build_model(size: str, processor: ImageTextProcessor) -> Qwen2VLForConditionalGeneration:
    """A randomly initialised Qwen2-VL of a bundled size, fp32."""
    shape, tokenizer = SIZES[size], processor.tokenizer
    hidden, heads = shape["hidden"], 4
    half = hidden // heads // 2  # rotary frequencies of a head
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 8) * 8,
            "hidden_size": hidden,
            "intermediate_size": 5 * hidden // 2,
            "num_hidden_layers": shape["layers"],
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                # Time, height and width in turn, from high to low frequencies, as in Qwen3-VL. In three blocks, as in
                # Qwen2-VL, the width would get frequencies too low to tell the four columns of a picture apart.
                "mrope_section": [1] * half,
            },
            "bos_token_id": None,
            **ends,
        },
        vision_config={
            "depth": shape["vision_layers"],
            "embed_dim": hidden,
            "hidden_size": hidden,
            "num_heads": heads,
            "mlp_ratio": shape["mlp_ratio"],
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 1,
        },
        **picture_tokens(tokenizer),
        tie_word_embeddings=True,
    )
    model = Qwen2VLForConditionalGeneration(config)
    _start_as_look_up(model)
    model.generation_config = GenerationConfig(**ends)
    return model


def picture_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """The token ids by which a Qwen2-VL finds its pictures, as its config names them."""
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start",
             "vision_end_token_id": "vision_end"}  # fmt: skip
    return {key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}


@torch.no_grad()
def _start_as_look_up(model: Qwen2VLForConditionalGeneration) -> None:
    """Let the language model's attention start by looking at what is alike, and copying it.

    Keys are made as queries are, and the output undoes what values are made by: mimetic initialisation (Trockman and
    Kolter 2023, arXiv 2305.09828). To find such look-ups by chance takes most of a short pre-training.
    """
    for layer in model.model.language_model.layers:
        of = layer.self_attn
        alike, copied = (torch.nn.init.orthogonal_(torch.empty_like(of.q_proj.weight)) for _ in range(2))
        of.q_proj.weight.copy_(LIKENESS * alike)
        of.k_proj.weight.copy_(LIKENESS * alike)
        of.v_proj.weight.copy_(COPY**0.5 * copied)
        of.o_proj.weight.copy_(COPY**0.5 * copied.T)
