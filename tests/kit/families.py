"""Tiny random models of every family that stage 1 knows, each with its real processor.

Every builder saves configuration, weights, tokenizer, image processor and chat template into a
folder, laid out as the family's checkpoints are, and gives the folder back. One token a byte and
the family's special tokens; two layers; images of 28 to 64 pixels; no torchvision needed.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Chat templates in the form of the families' own: where texts and images go, and what is around.
EACH = "{% for part in message['content'] %}"
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    + EACH
    + "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INTERNVL_CHAT = QWEN_CHAT.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")
IMAGES_FIRST = (  # LLaVA's and LLaVA-OneVision's give all images before the text
    EACH
    + "{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    + EACH
    + "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
)
LLAVA_CHAT = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    + IMAGES_FIRST
    + " {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
ONEVISION_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    + IMAGES_FIRST
    + "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLVLM_CHAT = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    + EACH
    + "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    + EACH
    + "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def tokenizer(
    special: Sequence[str],
    named: dict[str, str] | None = None,
    bos: str = "",
    eos: str = "</s>",
    more: Sequence[str] = (),
) -> Any:
    """One token a byte and `more`, then the special tokens; `named` ones become attributes.

    With `bos` every text opens with it.
    """
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *more]
    bytewise = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        bos_token=bos or None,
        eos_token=eos,
        pad_token="<pad>",
        additional_special_tokens=list(special),
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
        **({"extra_special_tokens": named} if named else {}),
    )
    if bos:
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, made.bos_token_id)]
        )
    return made


def qwen2_5_vl(folder: Path) -> Path:
    """Window attention in the first block; 28 px a visual token."""
    return _qwen(
        folder,
        "Qwen2_5_VL",
        vision={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        text=LANGUAGE | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        image={"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2},
        size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16},
    )


def qwen3_vl(folder: Path) -> Path:
    """DeepStack from the first vision block into the first decoder layer; 32 px a token."""
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [2, 3, 3],
        "mrope_interleaved": True,
    }
    return _qwen(
        folder,
        "Qwen3VL",
        vision={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        text=LANGUAGE | {"head_dim": 16, "rope_parameters": rope},
        image={"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2},
        size={"shortest_edge": 32 * 32, "longest_edge": 32 * 32 * 16},
    )


def qwen3_5(folder: Path) -> Path:
    """Linear attention in the first layer, full in the second; three to one in Qwen3.5."""
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
        "mrope_section": [2, 3, 3],
        "mrope_interleaved": True,
    }
    linear = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
    }
    return _qwen(
        folder,
        "Qwen3_5",
        vision={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
        },
        text=LANGUAGE | linear | {"head_dim": 16, "rope_parameters": rope},
        image={"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2},
        size={"shortest_edge": 32 * 32, "longest_edge": 32 * 32 * 16},
        processor="Qwen3VL",
    )


def _qwen(
    folder: Path,
    family: str,
    vision: dict[str, Any],
    text: dict[str, Any],
    image: dict[str, Any],
    size: dict[str, int],
    processor: str = "",
) -> Path:
    import transformers

    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words = tokenizer(["<|im_start|>", "<|im_end|>", *marks], eos="<|endoftext|>")
    ids = dict(zip(marks, words.convert_tokens_to_ids(marks), strict=True))
    config = getattr(transformers, f"{family}Config")(
        vision_config=vision,
        text_config=text | _ends(words),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    images = transformers.Qwen2VLImageProcessorPil(size=size, **image)
    return _save(folder, config, words, images, f"{processor or family}Processor", QWEN_CHAT)


def internvl(folder: Path) -> Path:
    """Tiles of 32 px, 4 tokens each; the checkpoint does not crop, though its class would."""
    import transformers

    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(["<|im_start|>", "<|im_end|>"], named, eos="<|endoftext|>")
    config = transformers.InternVLConfig(
        vision_config=VISION | {"image_size": [32, 32], "patch_size": [8, 8]},
        text_config={"model_type": "qwen2"} | LANGUAGE | _ends(words),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=True,
    )
    images = transformers.GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=False, min_patches=1, max_patches=4
    )
    settings = {"image_seq_length": 4}
    return _save(folder, config, words, images, "InternVLProcessor", INTERNVL_CHAT, settings)


def llava(folder: Path) -> Path:
    """CLIP tower of 32 px, 16 visual tokens, BOS."""
    import transformers

    words = tokenizer(["<image>"], bos="<s>")
    config = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 32, "patch_size": 8}
        | VISION,
        text_config={"model_type": "llama"} | LANGUAGE | _ends(words),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    images = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    settings = {
        "patch_size": 8,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    return _save(folder, config, words, images, "LlavaProcessor", LLAVA_CHAT, settings)


def llava_onevision(folder: Path) -> Path:
    """SigLIP tower of 32 px, the whole image and up to four tiles of 16 tokens."""
    import transformers

    words = tokenizer(["<|im_start|>", "<|im_end|>", "<image>", "<video>"], eos="<|endoftext|>")
    grid = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = transformers.LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": 32,
            "patch_size": 8,
            "vision_use_head": False,
        }
        | VISION,
        text_config={"model_type": "qwen2"} | LANGUAGE | _ends(words),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    images = transformers.LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    settings = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    return _save(folder, config, words, images, "LlavaOnevisionProcessor", ONEVISION_CHAT, settings)


def smolvlm(folder: Path) -> Path:
    """Tiles of 32 px, 4 tokens each, after a resize to a longest edge of 64 px."""
    import transformers

    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    }
    words = tokenizer(["<|im_start|>", *_rows_and_columns()], named)
    images = transformers.SmolVLMImageProcessorPil(**_idefics_image())
    config = transformers.SmolVLMConfig(**_idefics_config(words))
    settings = {"image_seq_len": 4}
    return _save(folder, config, words, images, "SmolVLMProcessor", SMOLVLM_CHAT, settings)


def idefics3(folder: Path) -> Path:
    """As SmolVLM, by the older class."""
    import transformers

    marks = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    words = tokenizer(["<|im_start|>", *marks, *_rows_and_columns()], bos="<|begin_of_text|>")
    images = transformers.Idefics3ImageProcessorPil(**_idefics_image())
    config = transformers.Idefics3Config(**_idefics_config(words))
    settings = {"image_seq_len": 4}
    return _save(folder, config, words, images, "Idefics3Processor", SMOLVLM_CHAT, settings)


def _rows_and_columns() -> list[str]:
    return [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]


def _idefics_image() -> dict[str, Any]:
    return {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}


def _idefics_config(words: Any) -> dict[str, Any]:
    ends = _ends(words)
    return {
        "vision_config": VISION | {"image_size": 32, "patch_size": 8},
        "text_config": {"model_type": "llama"} | LANGUAGE | ends,
        "image_token_id": words.convert_tokens_to_ids("<image>"),
        "scale_factor": 2,
        "pad_token_id": ends["pad_token_id"],
    }


def gemma3(folder: Path) -> Path:
    """One layer with a sliding window of 8, one without; 4 visual tokens; BOS in the template."""
    import transformers

    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    words = tokenizer(["<start_of_turn>", "<end_of_turn>"], named, bos="<bos>", eos="<eos>")
    ids = {name: words.convert_tokens_to_ids(token) for name, token in named.items()}
    config = transformers.Gemma3Config(
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": 32,
            "patch_size": 8,
            "vision_use_head": False,
        }
        | VISION,
        text_config=LANGUAGE
        | {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        }
        | _ends(words),
        mm_tokens_per_image=4,
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
        image_token_index=ids["image_token"],
    )
    images = transformers.Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    settings = {"image_seq_length": 4}
    return _save(folder, config, words, images, "Gemma3Processor", GEMMA_CHAT, settings)


def paligemma(folder: Path) -> Path:
    """SigLIP tower of 32 px, 16 visual tokens, no chat template."""
    import transformers

    words = tokenizer([], {"image_token": "<image>"}, bos="<bos>", eos="<eos>")
    images = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    ends = _ends(words)
    ends["vocab_size"] += 1024 + 128  # places and segments, which its processor adds
    config = transformers.PaliGemmaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": 32,
            "patch_size": 8,
            "vision_use_head": False,
        }
        | VISION,
        text_config={"model_type": "gemma", "head_dim": 16} | LANGUAGE | ends,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    return _save(folder, config, words, images, "PaliGemmaProcessor", "")


def clip(folder: Path) -> Path:
    """32 px, projections of width 12, texts up to 40 bytes."""
    import transformers

    words = tokenizer([], bos="<|startoftext|>", eos="<|endoftext|>")
    from tokenizers import processors

    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        pair="<|startoftext|> $A $B <|endoftext|>",
        special_tokens=[
            ("<|startoftext|>", words.bos_token_id),
            ("<|endoftext|>", words.eos_token_id),
        ],
    )
    words.model_max_length = 40
    text = VISION | {"max_position_embeddings": 40}
    config = transformers.CLIPConfig(
        vision_config=VISION | {"image_size": 32, "patch_size": 8},
        text_config=text | _ends(words),
        projection_dim=12,
    )
    images = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    return _save(folder, config, words, images, "CLIPProcessor", "")


def siglip2(folder: Path) -> Path:
    """Fixed 32 px, model type siglip, as most SigLIP 2 checkpoints are; texts padded to 64."""
    import transformers

    words = tokenizer([], bos="<bos>", eos="<eos>")
    words.model_max_length = 64
    text = VISION | {"max_position_embeddings": 64, "projection_size": 16}
    config = transformers.SiglipConfig(
        vision_config=VISION | {"image_size": 32, "patch_size": 8},
        text_config=text | _ends(words),
    )
    images = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return _save(folder, config, words, images, "SiglipProcessor", "")


def siglip2_naflex(folder: Path) -> Path:
    """Images in up to 16 patches of 8 px, by their own aspect ratio."""
    import transformers

    words = tokenizer([], bos="<bos>", eos="<eos>", more=["<unk>", "▁"])  # its class asks for them
    words.model_max_length = 64
    text = VISION | {"max_position_embeddings": 64, "projection_size": 16}
    config = transformers.Siglip2Config(
        vision_config=VISION | {"num_patches": 16, "patch_size": 8},
        text_config=text | _ends(words),
    )
    images = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    return _save(folder, config, words, images, "Siglip2Processor", "")


LMMS: dict[str, Callable[[Path], Path]] = {
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_5": qwen3_5,
    "internvl": internvl,
    "llava": llava,
    "llava_onevision": llava_onevision,
    "smolvlm": smolvlm,
    "idefics3": idefics3,
    "gemma3": gemma3,
    "paligemma": paligemma,
}
DUAL_ENCODERS: dict[str, Callable[[Path], Path]] = {
    "clip": clip,
    "siglip2": siglip2,
    "siglip2_naflex": siglip2_naflex,
}


def _ends(words: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }


def _save(
    folder: Path,
    config: Any,
    words: Any,
    images: Any,
    processor_class: str,
    chat: str,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    import torch
    import transformers

    torch.manual_seed(seed)
    dual = hasattr(config, "text_config") and processor_class in (
        "CLIPProcessor",
        "SiglipProcessor",
        "Siglip2Processor",
    )
    auto = transformers.AutoModel if dual else transformers.AutoModelForImageTextToText
    model = auto.from_config(config).eval()
    for parameter in model.parameters():  # zeros and 0.02 would hide what goes wrong
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    images.save_pretrained(folder)
    tree = {"processor_class": processor_class} | (settings or {})
    (folder / "processor_config.json").write_text(json.dumps(tree), encoding="utf-8")
    if chat:
        (folder / "chat_template.jinja").write_text(chat, encoding="utf-8")
    return folder
