"""Models that are known to serve as the semantic extractor, for `agiqa extractors` to list.

Facts from the models' configurations and pages on the hub; parameters are counted with the
language head. The list limits nothing: `semantic.model` takes any model of these kinds.
"""

from dataclasses import dataclass

LMM, MPLUG_OWL2, DUAL = "image_text_to_text", "mplug_owl2", "dual_encoder"
UP_TO = True
APACHE, GEMMA = "Apache-2.0", "Gemma terms"
GATED = "gated"  # until one accepts its terms on the hub
GATED_PLAIN = f"{GATED}, no chat template"


@dataclass(frozen=True)
class Known:
    """A model, what it costs and what its vectors are like."""

    model: str  # nano, or a hub id, for semantic.model
    kind: str  # image_text_to_text, mplug_owl2 or dual_encoder
    billions: float  # parameters
    licence: str  # of the weights
    width: int  # of a vector
    tokens: int  # an image of 1024 x 1024 becomes, with the processor's own settings
    dynamic: bool = False  # whether smaller or narrower images become fewer
    note: str = ""


KNOWN_MODELS = (
    Known("nano", LMM, 0.22, "Apache-2.0, MIT", 576, 49, note="any machine"),
    Known("MAGAer13/mplug-owl2-llama2-7b", MPLUG_OWL2, 8.2, APACHE, 4096, 65, note="of the paper"),
    Known("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", LMM, 0.26, APACHE, 576, 1088, UP_TO),
    Known("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", LMM, 0.51, APACHE, 960, 1088, UP_TO),
    Known("HuggingFaceTB/SmolVLM2-2.2B-Instruct", LMM, 2.25, APACHE, 2048, 1377, UP_TO),
    Known("Qwen/Qwen3-VL-2B-Instruct", LMM, 2.13, APACHE, 2048, 1024, UP_TO),
    Known("Qwen/Qwen3-VL-4B-Instruct", LMM, 4.44, APACHE, 2560, 1024, UP_TO),
    Known("Qwen/Qwen3-VL-8B-Instruct", LMM, 8.77, APACHE, 4096, 1024, UP_TO),
    Known("Qwen/Qwen2.5-VL-3B-Instruct", LMM, 3.75, "Qwen Research", 2048, 1369, UP_TO),
    Known("Qwen/Qwen2.5-VL-7B-Instruct", LMM, 8.29, APACHE, 3584, 1369, UP_TO),
    Known("OpenGVLab/InternVL3-8B-hf", LMM, 7.94, "Qwen", 3584, 2560, UP_TO),
    Known("llava-hf/llava-1.5-7b-hf", LMM, 7.06, "Llama 2", 4096, 576),
    Known("llava-hf/llava-onevision-qwen2-7b-ov-hf", LMM, 8.03, APACHE, 3584, 7371, UP_TO),
    Known("google/gemma-3-4b-it", LMM, 4.3, GEMMA, 2560, 256, note=GATED),
    Known("google/gemma-3-12b-it", LMM, 12.19, GEMMA, 3840, 256, note=GATED),
    Known("google/paligemma2-3b-mix-448", LMM, 3.03, GEMMA, 2304, 1024, note=GATED_PLAIN),
    Known("openai/clip-vit-large-patch14", DUAL, 0.43, "MIT", 768, 256),
    Known("google/siglip2-base-patch16-224", DUAL, 0.38, APACHE, 768, 196),
    Known("google/siglip2-so400m-patch14-384", DUAL, 1.14, APACHE, 1152, 729),
)
