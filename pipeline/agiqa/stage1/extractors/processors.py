"""A model's own processor: tokenizer, Pillow image processor and chat template. Stage 1.

transformers' AutoProcessor takes whatever image backend is installed, and refuses the families
whose class has a video half where torchvision is absent. Here the parts are put together one by
one: always the Pillow image processor, and an idle video half, for nothing here is a video.
"""

from collections.abc import Mapping
from typing import Any

from agiqa.core.errors import AgiqaError, one_line
from agiqa.stage1.extractors.loading import ModelFolder, load_config, load_image_processor
from agiqa.stage1.extractors.remote_code import json_mapping

CLASS_NAMED_IN = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
LLAVA_LIKE = ("aya_vision", "llava")  # whose visual tokens follow from the configuration
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def load_processor(folder: ModelFolder, trust_remote_code: bool = False) -> Any:
    """Load the folder's own `ProcessorMixin`, its image processor the Pillow version.

    Raises:
        AgiqaError: the processor's class is unknown, or a part of it is absent or damaged.
    """
    if trust_remote_code:  # it brings its own processor, whatever backend that has
        from transformers import AutoProcessor

        try:
            return AutoProcessor.from_pretrained(folder.path, trust_remote_code=True)
        except Exception as error:  # its code may raise anything
            raise AgiqaError(
                f"Model '{folder.name}': its own processor does not load ({one_line(error)})."
            ) from error
    kind, settings = _class_and_settings(folder)
    parts = [load_part(folder, name) for name in kind.get_attributes()]
    try:
        if settings is None:
            settings = kind.get_processor_dict(folder.path)[0]
        return _construct(kind, parts, settings)
    except (ValueError, TypeError, AttributeError, OSError, ImportError) as error:
        raise AgiqaError(
            f"Model '{folder.name}': its {kind.__name__} cannot be put together: "
            f"{one_line(error)}. Copy the model's processor and tokenizer files again."
        ) from error


def names_processor(folder: ModelFolder) -> bool:
    """Tell whether the folder says which processor is its own; nano's does not."""
    return any(tree.get("processor_class") for tree in _trees(folder))


def _trees(folder: ModelFolder) -> list[Mapping[str, Any]]:
    """Read those of the files that may name the processor's class that are there."""
    files = [folder.path / name for name in CLASS_NAMED_IN]
    return [json_mapping(file) for file in files if file.exists()]


class IdleVideoHalf(dict[str, object]):
    """Stands where a processor wants a video processor, which needs torchvision; never called.

    It has no settings that could change a vector; a dict, for the processor writes it as JSON.
    """

    model_input_names: tuple[str, ...] = ()
    num_frames = fps = None  # SmolVLM's chat template looks at them


def _class_and_settings(folder: ModelFolder) -> tuple[Any, dict[str, Any] | None]:
    """Find the processor's class, and its settings where no file of the folder has them."""
    from transformers import LlavaProcessor, __version__
    from transformers.models.auto.processing_auto import (
        PROCESSOR_MAPPING,
        processor_class_from_name,
    )

    trees = _trees(folder)
    name = next((tree["processor_class"] for tree in trees if tree.get("processor_class")), None)
    if name is not None:
        kind = processor_class_from_name(name)
    else:
        config = load_config(folder)
        if config.model_type in LLAVA_LIKE:
            tower, strategy = config.vision_config, config.vision_feature_select_strategy
            return LlavaProcessor, {  # for a folder without its own, such as nano's
                "patch_size": tower.patch_size * getattr(config, "downsample_factor", 1),
                "vision_feature_select_strategy": strategy,
                "num_additional_image_tokens": int(strategy == "default"),  # class token, dropped
            }
        name = f"for {config.model_type}"
        kind = PROCESSOR_MAPPING.get(type(config), None)
    if kind is None:
        remote = any("AutoProcessor" in tree.get("auto_map", {}) for tree in trees)
        raise AgiqaError(
            f"Model '{folder.name}': transformers {__version__} has no processor {name}; "
            + ("it needs remote code." if remote else "is it an image-text model?")
        )
    return kind, None


def load_part(folder: ModelFolder, name: str) -> Any:
    """Load a part: image_processor, tokenizer, feature_extractor or video_processor.

    Raises:
        AgiqaError: it is absent, damaged, or of a kind that stage 1 cannot serve.
    """
    import transformers

    if name == "video_processor":
        return IdleVideoHalf()
    if name == "image_processor":
        return load_image_processor(folder)
    loaders: Mapping[str, tuple[Any, str]] = {
        "tokenizer": (transformers.AutoTokenizer, "tokenizer.json"),
        "feature_extractor": (transformers.AutoFeatureExtractor, "preprocessor_config.json"),
    }
    words = name.replace("_", " ")
    if name == "tokenizer" and not any((folder.path / file).is_file() for file in TOKENIZERS):
        raise AgiqaError(  # transformers would make one up
            f"Model '{folder.name}' has no tokenizer: expected one of {', '.join(TOKENIZERS)} in "
            f"{folder.path}; copy it there."
        )
    if name not in loaders:
        raise AgiqaError(f"Model '{folder.name}' wants a {words}, which stage 1 cannot serve.")
    auto, file = loaders[name]
    try:
        return auto.from_pretrained(folder.path)
    except Exception as error:  # of any library that takes part
        raise AgiqaError(
            f"Model '{folder.name}' has no usable {words} ({file}): {one_line(error)}"
        ) from error


def _construct(kind: Any, parts: list[Any], settings: dict[str, Any]) -> Any:
    """Call `kind.from_args_and_dict` with an idle video half and without SmolVLM's num2words."""
    import importlib

    def takes_idle_half(self: Any, name: str, part: Any) -> Any:
        proper = kind.check_argument_for_proper_class
        return IdleVideoHalf if isinstance(part, IdleVideoHalf) else proper(self, name, part)

    lenient = type(kind.__name__, (kind,), {"check_argument_for_proper_class": takes_idle_half})
    module = importlib.import_module(kind.__module__)
    is_missing = getattr(module, "num2words", str) is None
    if is_missing:
        module.num2words = str  # type: ignore[attr-defined]
    try:
        processor = lenient.from_args_and_dict(parts, settings)  # type: ignore[attr-defined]
    finally:
        if is_missing:
            module.num2words = None  # type: ignore[attr-defined]
    processor.__class__ = kind  # so that it can be pickled
    return processor
