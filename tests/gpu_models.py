"""Folders as the hub has the models of the gpu profiles: the real files, names and vocabulary, two layers of random
weights. The facts are those of the checkpoints' own config files; the chat templates say the same in other words."""

import json

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

from rftkit.models import load_processor

VOCABULARY = 151936
FIRST_SPECIAL = 151643
SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
)
# What Qwen3 adds behind them: ordinary text, though each is one token.
NEWER = (
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|> "
    "<tool_response> </tool_response> <think> </think>"
)
IDS = {"vision_start_token_id": 151652, "vision_end_token_id": 151653, "image_token_id": 151655,
       "video_token_id": 151656}  # fmt: skip
TEXT = {"attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu",
        "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 128, "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "tie_word_embeddings": True, "use_cache": True, "vocab_size": VOCABULARY}  # fmt: skip
# The language model's settings stand at the top, and its positions under the name of 2024.
FLAT = TEXT | IDS | {
    "vision_token_id": 151654, "max_position_embeddings": 32768, "max_window_layers": 28, "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "sliding_window": 32768,
    "use_sliding_window": False, "torch_dtype": "bfloat16", "transformers_version": "4.41.2",
}  # fmt: skip
PATCHES = {"in_chans": 3, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2}
CONFIGS = {
    "qwen2_vl": FLAT | {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "vision_config": PATCHES | {"depth": 2, "embed_dim": 64, "hidden_size": 64, "mlp_ratio": 4, "num_heads": 2},
    },
    "qwen2_5_vl": FLAT | {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "vision_config": PATCHES | {
            "depth": 2, "fullatt_block_indexes": [1], "hidden_act": "silu", "hidden_size": 64,
            "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64, "tokens_per_second": 2, "window_size": 112,
        },
    },
    "qwen3_vl": IDS | {
        "architectures": ["Qwen3VLForConditionalGeneration"], "tie_word_embeddings": True,
        "transformers_version": "4.57.0.dev0",
        "text_config": TEXT | {
            "attention_bias": False, "dtype": "bfloat16", "head_dim": 16, "max_position_embeddings": 262144,
            "model_type": "qwen3_vl_text", "rope_theta": 5000000,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
        },
        "vision_config": {
            "deepstack_visual_indexes": [0, 1], "depth": 2, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 64,
            "in_channels": 3, "initializer_range": 0.02, "intermediate_size": 128, "model_type": "qwen3_vl",
            "num_heads": 2, "num_position_embeddings": 2304, "out_hidden_size": 64, "patch_size": 16,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
    },
}  # fmt: skip
GENERATION = {"bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643],
              "repetition_penalty": 1.0}  # fmt: skip
SAMPLING = {
    "qwen2_vl": {"temperature": 0.01, "top_p": 0.001, "top_k": 1, "transformers_version": "4.37.0"},
    "qwen2_5_vl": {"temperature": 0.000001, "transformers_version": "4.49.0"},
    "qwen3_vl": {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "transformers_version": "4.56.0"},
}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
OLDER = CLIP | {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
PICTURES = {
    "qwen2_vl": OLDER | {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"},
    "qwen2_5_vl": OLDER | {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"},
    "qwen3_vl": {
        "size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16, "temporal_patch_size": 2,
        "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "processor_class": "Qwen3VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessorFast",
    },
}  # fmt: skip
SYSTEM = ("{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
          "{% endif %}")  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' or 'image' in part or 'image_url' in part %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save(family, folder):
    """A model of a family in a folder as on the hub; returns the folder's name."""
    folder.mkdir(parents=True)
    config = {"model_type": family} | CONFIGS[family]
    torch.manual_seed(0)
    _write(folder, "config", config)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    end_soon(model, TEXT["eos_token_id"])
    # Two files and an index; the weights of the first two families get the names that they had in 2024.
    model.save_pretrained(folder, max_shard_size=VOCABULARY * 64 * 2)
    _write(folder, "config", config)
    _write(folder, "generation_config", GENERATION | SAMPLING[family])
    _write(folder, "preprocessor_config", PICTURES[family])
    _write_tokenizer(folder, TEMPLATE if family == "qwen3_vl" else SYSTEM + TEMPLATE, family == "qwen3_vl")
    return str(folder)


def _write(folder, name, content):
    (folder / f"{name}.json").write_text(json.dumps(content))


def _write_tokenizer(folder, template, newer):
    """The bundled tokenizer's words with ids as in Qwen's, and words that no text is cut into up to its size."""
    content = json.loads(load_processor("nano-s").tokenizer.backend_tokenizer.to_str())
    words = [word for word in content["model"]["vocab"] if not (word.startswith("<|") and word.endswith("|>"))]
    words += [f"<unused {number}>" for number in range(len(words), FIRST_SPECIAL)]
    special = SPECIAL.split()
    tokens = special + (NEWER.split() if newer else [])
    added = [
        {"id": FIRST_SPECIAL + place, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": text in special}
        for place, text in enumerate(tokens)
    ]  # fmt: skip
    merges = [" ".join(pair) for pair in content["model"]["merges"]]
    vocabulary = {word: number for number, word in enumerate(words)}
    content["model"] |= {"vocab": vocabulary, "merges": merges}
    _write(folder, "tokenizer", content | {"added_tokens": added})
    _write(folder, "vocab", vocabulary)
    (folder / "merges.txt").write_text("\n".join(merges))
    _write(folder, "chat_template", {"chat_template": template})
    _write(folder, "tokenizer_config", {
        "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "unk_token": None, "additional_special_tokens": special[1:],
        "added_tokens_decoder": {str(token.pop("id")): token for token in added}, "chat_template": template,
        "clean_up_tokenization_spaces": False, "errors": "replace", "model_max_length": 32768,
        "padding_side": "right", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
    })  # fmt: skip


def end_soon(model, end):
    """Give the end token about a third of the probability everywhere: completions of unequal length, none long.

    A first coordinate that dominates every embedding comes out of the last norm as the square root of the width; the
    end token's is as much larger as it takes to weigh half as much as all other tokens together.
    """
    weights = model.get_input_embeddings().weight.data
    weights[:, 0] = 1.0
    weights[end, 0] += float(np.log(VOCABULARY / 2)) / weights.shape[1] ** 0.5


def save_photos(folder, classes=("barrel", "beaver", "lotus", "wrench")):
    """Noise in the sizes of photographs, small and large, portrait and landscape: a folder a class."""
    rng, sizes = np.random.default_rng(0), [(64, 64), (500, 375), (375, 500), (640, 480)]
    for label in classes:
        for part, count in (("train", 12), ("test", 1)):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                width, height = sizes[number % len(sizes)]
                noise = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
                Image.fromarray(noise).resize((width, height)).save(folder / part / label / f"{number}.jpg")
    return str(folder)
