"""Find, identify and load models: `nano`, a local transformers folder, or a hub id.

The Pillow image processors are asked for by name, because transformers otherwise takes whatever
is installed and the vectors change with the environment. Its AutoProcessor does so, too, and
refuses the families whose class has a video half where torchvision is absent. Here a model's own
processor is put together of its parts: tokenizer, Pillow image processor, chat template, and an
idle video half, for nothing here is a video.
"""

import importlib.util
import logging
import math
import pickle
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError, one_line, printable
from agiqa.core.memory import keep_freed_memory
from agiqa.core.params import Semantic
from agiqa.core.processes import device
from agiqa.core.weight_files import read_header, require_weights
from agiqa.data.images import fit_for_square
from agiqa.stage1.extractors.contract import refused
from agiqa.stage1.extractors.identity import WEIGHTS, ModelFolder, refuse_adapter
from agiqa.stage1.extractors.remote_code import (
    json_mapping,
    no_questions,
    read_config,
    require_own_parts,
    trust,
)
from agiqa.stage1.nano.assemble import ensure_nano

log = logging.getLogger(__name__)

FREE_NUMBERS = 1 << 26  # that weights may lack of what config.json describes: 256 MiB
CLASS_NAMED_IN = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
LLAVA_LIKE = ("aya_vision", "llava")  # whose visual tokens follow from the configuration
TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model",
)  # fmt: skip


class MissingModelError(AgiqaError):
    """A model that is neither here nor on the hub, or the hub is out of reach."""


def find_model(name: str, revision: str = "") -> ModelFolder:
    """Resolve `nano` (assembled on first use), a folder, or a hub id (downloaded once).

    Raises:
        MissingModelError: neither, or the hub cannot be reached and has no local copy.
        AgiqaError: the folder holds an adapter (LoRA).
    """
    if name == "nano":
        return ModelFolder(name, ensure_nano())
    folder = Path(name)
    if folder.is_dir():
        return _own(ModelFolder(folder.name, folder))
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if not isinstance(
            try_to_load_from_cache(name, "config.json", revision=revision or None), str
        ):
            about = _about_on_hub(name, revision)
            log.info("Model '%s' is not on this machine and is fetched from the hub%s", name, about)
        path = snapshot_download(name, revision=revision or None, allow_patterns=list(WEIGHTS))
    except HFValidationError as error:
        raise AgiqaError(f"Model '{name}': no such folder, and not a valid hub id.") from error
    except Exception as error:  # network stacks raise many kinds; all mean the same here
        raise MissingModelError(
            f"Model '{name}': no such folder, and the hub has or reaches no such model "
            f"({type(error).__name__}). Put the model into a local folder, such as "
            f"models/{name.rpartition('/')[2]}, and name that folder instead of '{name}'"
        ) from error
    return _own(ModelFolder(name, Path(path)))


def _about_on_hub(name: str, revision: str) -> str:
    """Ask the hub how much there is to fetch, and on which terms; "" where it does not say."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(name, revision=revision or None, files_metadata=True)
    except Exception:  # the fetch itself says why
        return ""
    files = [
        file.size or 0
        for file in info.siblings or ()
        if any(fnmatch(file.rfilename, pattern) for pattern in WEIGHTS)
    ]
    licence = getattr(info.card_data, "license", None) or "not said there"
    return f" ({sum(files) / 1e9:,.2f} GB, licence: {printable(licence)})"


def _own(folder: ModelFolder) -> ModelFolder:
    """Return the folder, if it is a whole model: no adapter, no git-lfs pointers, all its own."""
    no_questions()
    refuse_adapter(folder.path)
    if not (folder.path / "config.json").is_file():
        raise AgiqaError(f"{folder.path}: not a transformers model folder; it has no config.json.")
    require_weights(folder.path)
    require_own_parts(folder.path, folder.name)
    return folder


def load_config(folder: ModelFolder, **trusted: bool) -> Any:
    """Read the model's configuration by transformers.

    Raises:
        AgiqaError: transformers knows no such models, or the configuration is damaged.
    """
    from transformers import AutoConfig, __version__

    kind = read_config(folder.path).get("model_type")
    try:
        return AutoConfig.from_pretrained(folder.path, **trusted)
    except Exception as error:  # validation raises what it likes on fields of a wrong type
        raise AgiqaError(
            f"Model '{folder.name}': transformers {__version__} cannot read its config.json, of "
            f"type {kind!r}: {one_line(error)}. Use another model, or copy the file again."
        ) from error


def load_model(
    auto: Any, folder: ModelFolder, dtype: str, attention: str, settings: Semantic | None = None
) -> Any:
    """Load the folder by `auto.from_pretrained`: eval mode, frozen, on this process's device.

    Args:
        auto: one of transformers' Auto classes.
        folder: the model.
        dtype: of its weights; int8: of its Linear layers', on a CPU.
        attention: transformers' attention kernel.
        settings: where quantisation, a device map and remote code are asked for.

    Raises:
        AgiqaError: the folder holds another kind of model, weights are missing from it, or int8
            cannot run here.
    """
    from agiqa.stage1.extractors.int8 import INT8, arithmetic, require_int8, use_int8

    placement = _placement(folder, settings) if settings else {}
    if dtype == INT8:
        require_int8(folder.name, device(), "device_map" in placement)
    _require_weights_for(auto, folder, placement)
    options = {"dtype": arithmetic(dtype), "attn_implementation": attention, **placement}
    model = _all_weights(auto, folder, options).eval().requires_grad_(False)
    if dtype == INT8:
        use_int8(folder.name, model)
    if device().type == "cpu":
        keep_freed_memory()
    return model if "device_map" in placement else model.to(device())


def _all_weights(auto: Any, folder: ModelFolder, options: Mapping[str, Any]) -> Any:
    """Load by `auto.from_pretrained`; AgiqaError where a weight is missing, which was random."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = auto.from_pretrained(folder.path, output_loading_info=True, **options)
    except pickle.UnpicklingError as error:
        raise AgiqaError(
            f"Model '{folder.name}': its weights are a pickle of more than tensors, which could "
            "run code when loaded: nothing of it was run. Use the model's safetensors."
        ) from error
    except Exception as error:  # of any library that takes part
        raise AgiqaError(
            f"Model '{folder.name}' cannot be loaded as {auto.__name__}: {one_line(error)}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise AgiqaError(
            f"Model '{folder.name}' lacks {len(missing)} weights, such as {missing[:3]}; "
            "they would be random."
        )
    return model


def _require_weights_for(auto: Any, folder: ModelFolder, placement: Mapping[str, Any]) -> None:
    """Refuse sizes in config.json that the weights do not have, before memory is taken for them.

    Raises:
        AgiqaError: the model that they describe is several times as large as its weights.
    """
    import torch

    files = list(folder.path.glob("*.safetensors"))
    if not files:
        return
    stored = sum(
        math.prod(entry.shape)
        for file in files
        for entry in read_header(file, "copy the model again").values()
    )
    trusted = {key: placement[key] for key in ("trust_remote_code",) if key in placement}
    try:
        with torch.device("meta"):
            model = auto.from_config(load_config(folder, **trusted), **trusted)
    except Exception as error:  # of any library that takes part; from_pretrained says it better
        log.debug("%s: %s", folder.path, error)
        return
    described = sum(parameter.numel() for parameter in model.parameters())
    if described > 8 * stored + FREE_NUMBERS:  # weights of 4 bits lie eight to a number
        raise AgiqaError(
            f"Model '{folder.name}': its config.json describes {described:,} numbers, of which "
            f"its weights hold {stored:,}: copy the model again, or use another one."
        )


def _placement(folder: ModelFolder, settings: Semantic) -> dict[str, Any]:
    """Choose arguments of `from_pretrained` for quantisation, a device map and remote code."""
    from agiqa.stage1.extractors.int8 import arithmetic

    options: dict[str, Any] = {}
    if settings.device_map:
        options["device_map"] = settings.device_map
    if settings.quantization != "none":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise AgiqaError(
                "semantic.quantization needs bitsandbytes: pip install 'agiqa[bitsandbytes]'."
            )
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=settings.quantization == "8bit",
            load_in_4bit=settings.quantization == "4bit",
            bnb_4bit_compute_dtype=arithmetic(settings.dtype),
        )
        options.setdefault("device_map", "auto")
    return options | trust(folder.path, settings)


def load_image_processor(folder: ModelFolder, image_size: int | None = None) -> Any:
    """Load the folder's image processor, Pillow version; `image_size` overrides its pixels.

    Raises:
        AgiqaError: there is none, it cannot be used, or it has no Pillow version.
    """
    from transformers import AutoImageProcessor, __version__

    options: dict[str, Any] = {"backend": "pil"}
    if image_size is not None:
        options |= {"size": {"height": image_size, "width": image_size}, "do_center_crop": False}
    try:
        processor = AutoImageProcessor.from_pretrained(folder.path, **options)
    except Exception as error:  # of any field of a wrong type
        raise AgiqaError(
            f"Model '{folder.name}' has no usable image processor (preprocessor_config.json): "
            f"{one_line(error)}"
        ) from error
    if getattr(processor, "backend", "pil") != "pil":  # transformers takes it where it finds it
        raise AgiqaError(
            f"Model '{folder.name}': {type(processor).__name__} has no Pillow version in "
            f"transformers {__version__}, and vectors must not change with the environment."
        )
    return processor


def preprocess(processor: Any, image: Image.Image) -> np.ndarray:
    """Put one image through the processor: float32 `(3, H, W)`.

    Raises:
        RefusedError: the processor does not take it.
    """
    if getattr(processor, "do_pad", False):
        image = fit_for_square(image)
    try:
        pixels = processor(images=image, return_tensors="np")["pixel_values"]
    except Exception as error:  # of whatever the processor raises
        raise refused(processor, image, error) from error
    return np.asarray(pixels[0], dtype=np.float32)


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
