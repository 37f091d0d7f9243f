"""Models of random weights, as small as those of TRL's own tests, made here: no hub, half a second a run."""

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2}  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.content if m.content is string else m.content[0].text }}{% endfor %}"
)
TEXT_MODELS = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
    "llama": (LlamaForCausalLM, LlamaConfig),
    "mistral": (MistralForCausalLM, MistralConfig),
}


def tiny(family, processor, **options):
    """(model, what it reads with) of a family; `options` are those of the language model's config."""
    tokenizer = processor.tokenizer
    text = TEXT | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id,
                   "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None} | options  # fmt: skip
    torch.manual_seed(0)
    if family in TEXT_MODELS:
        kind, config = TEXT_MODELS[family]
        model, reads = kind(config(**text, **({"head_dim": 8} if family == "qwen3" else {}))), tokenizer
    else:
        model, reads = _with_eyes(family, processor, text), processor
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model, reads


def _with_eyes(family, processor, text):
    tokenizer, pictures = processor.tokenizer, processor.image_processor
    words = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    special = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}|>") for name, word in words.items()}
    patches = {"patch_size": pictures.patch_size, "temporal_patch_size": pictures.temporal_patch_size,
               "spatial_merge_size": pictures.merge_size, "depth": 2, "num_heads": 2}  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    text = text | {"rope_parameters": rope | text.get("rope_parameters", {})}
    if family == "qwen2_vl":
        vision = patches | {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
        return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **special))
    vision = patches | {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32}
    if family == "qwen3_vl":
        text["head_dim"] = 8
        text["rope_parameters"]["mrope_interleaved"] = True
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **special))
    vision |= {"fullatt_block_indexes": [1], "window_size": 2 * pictures.patch_size * pictures.merge_size}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **special))
