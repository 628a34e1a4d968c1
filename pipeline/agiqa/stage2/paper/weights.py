"""Other people's weights in the paper's network: all of them fit, or none is loaded.

The one place that knows other names than ours. `RENAMED` serves the authors' checkpoints and timm's
ViT, whose names the authors' `vit.` continues; transformers' ViT is brought to timm's names first.

**The backbone** (`load_vit`) starts from:

    timm                          timm's download of the weights that the authors' version loads
    timm/NAME                     another of timm's ViTs
    FILE.safetensors, .bin, .pth  a state dict in timm's naming
    FOLDER, or a hub id           a ViT of transformers, with its config.json

**A checkpoint of the authors' code** (`read_reference_checkpoint`) becomes an ensemble of one
network. Their main.py writes `torch.save(net.state_dict())`, a pickle. It is read with
`weights_only`, so that it can hold tensors and nothing that runs. Names that nobody knows are an
error, so no weight is lost unsaid.
"""

import importlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from agiqa.core.errors import AgiqaError, one_line, some
from agiqa.core.params import Network
from agiqa.core.trees import read_json
from agiqa.core.weight_files import load_torch_file, require_finite
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.network import SEMANTIC, PaperConfig, PaperRegressor

SHOWN = 20  # names of each kind in an error
TIMM = "timm"
TIMM_MODEL = "vit_base_patch8_224.augreg_in21k_ft_in1k"
PATTERNS = ("*.safetensors", "pytorch_model*.bin")  # a folder's weights: the first that is there
WITH_CONFIG = (*PATTERNS, "config.json")
NESTED = ("state_dict", "model_state_dict", "model", "net")  # where trainers put the weights
MOST_WIDTH = 1 << 16  # of the vectors; a tensor's shape may promise any
WRAPPED = "module."  # DataParallel's prefix of every name

# Part of a parameter's name here: the authors' part. Empty where they have no such level.
RENAMED = {
    "backbone": "vit",
    "class_token": "cls_token",
    "position": "pos_embed",
    "patches": "patch_embed.proj",
    "attention": "attn",
    "output": "proj",
    "expand": "fc1",
    "contract": "fc2",
    "channels1": "tablock1",
    "channels2": "tablock2",
    "query": "c_q",
    "key": "c_k",
    "value": "c_v",
    "reduce1": "conv1",
    "reduce2": "conv2",
    "swin1": "swintransformer1",
    "swin2": "swintransformer2",
    "position_bias": "relative_position_bias_table",
    "convolution": "conv",
    "patch_score": "fc_score",
    "patch_weight": "fc_weight",
    "visual_expert": "fc784_784",
    "semantic_experts": "",
    "semantic_content": "fc4096_784_a2",
    "coherence": "fc4096_784_b2",
    "gate": "gating",
    "head": "output_fc",
}

# What the authors register and never run.
DEAD = (
    "vit.blocks.10.",
    "vit.blocks.11.",
    "vit.norm.",
    "vit.head.",
    "swintransformer1.downsample.",
    "swintransformer2.downsample.",
    "fc39_784.",
    "encoder_layer.",
    "fc_output.",
    "fc4096_784_a.",
    "fc4096_784_b.",
    "quality.",
    "fc784x3_1.",
    "fc4096_1024_a.",
    "fc4096_1024_b.",
)
# What they save beside the parameters and the sizes alone decide: indices and masks.
DERIVED = re.compile(
    r"swintransformer[12]\.layers\.\d\.blocks\.\d\.(attn_mask|attn\.relative_position_index)"
)

# transformers' ViT, names on disk: timm's. Queries, keys and values are one layer in timm's.
TRANSFORMERS = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"encoder\.layer\.(\d+)\.layernorm_before": r"blocks.\1.norm1",
    r"encoder\.layer\.(\d+)\.attention\.attention": r"blocks.\1.attn",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense": r"blocks.\1.attn.proj",
    r"encoder\.layer\.(\d+)\.layernorm_after": r"blocks.\1.norm2",
    r"encoder\.layer\.(\d+)\.intermediate\.dense": r"blocks.\1.mlp.fc1",
    r"encoder\.layer\.(\d+)\.output\.dense": r"blocks.\1.mlp.fc2",
}
FUSED = ("query", "key", "value")

# What a ViT has behind its blocks, in timm's and in transformers' naming, and for pretraining.
BEHIND = re.compile(r"(norm|fc_norm|head|pre_logits|layernorm|pooler|classifier|decoder)\..*")
PRETRAINING = "embeddings.mask_token"


def reference_name(name: str) -> str:
    """The authors' name of one of our parameters."""
    parts = (RENAMED.get(part, part) for part in name.split("."))
    return ".".join(part for part in parts if part)


def load_reference_state(
    regressor: PaperRegressor, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Take over the weights of an authors' checkpoint, less those that they never run.

    Args:
        regressor: whose weights change.
        tensors: their state dict.
        where: it comes from, for errors.

    Raises:
        AgiqaError: names missing or unexpected, shapes that differ; nothing is loaded then.
    """
    live = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(DEAD) and not DERIVED.fullmatch(name)
    }
    _fill(regressor, live, f"{where}: expected weights of the authors' network", _sizes(regressor))


def load_timm_state(regressor: PaperRegressor, tensors: Mapping[str, Tensor], where: str) -> None:
    """Start the backbone from a ViT in timm's naming, less what it does not run.

    Raises:
        AgiqaError: as `load_reference_state`.
    """
    depth = regressor.config.depth
    needed = {
        name: tensor
        for name, tensor in tensors.items()
        if not BEHIND.fullmatch(name) and _block(name) < depth
    }
    _fill(regressor.backbone, needed, f"{where}: expected a ViT", _sizes(regressor))


def from_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A transformers ViT as it lies on disk, in timm's naming; unknown names stay as they are."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("vit.")
        if short != PRETRAINING:
            for pattern, timm_name in TRANSFORMERS.items():
                short = re.sub(rf"^{pattern}(?=\.|$)", timm_name, short)
            renamed[short] = tensor
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace("query", part) for part in FUSED]
        if all(part in renamed for part in parts):
            renamed[name.replace("query", "qkv")] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def _block(name: str) -> int:
    """Number of the ViT block that the weight belongs to, −1 for none."""
    matched = re.match(r"blocks\.(\d+)\.", name)
    return int(matched[1]) if matched else -1


def _sizes(regressor: PaperRegressor) -> str:
    config = regressor.config
    return (
        f"{config.width} wide, {config.image_size} px in patches of {config.patch_size}, "
        f"{config.depth} blocks or more"
    )


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], expected: str, sizes: str) -> None:
    """Copy all of `tensors`, in the authors' naming, into all parameters of `module`, or raise."""
    own = {reference_name(name): weight for name, weight in module.named_parameters()}
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(weight.shape)}"
        for name, weight in own.items()
        if name in tensors and tensors[name].shape != weight.shape
    ]
    kinds = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "misshapen": misshapen,
    }
    lists = [
        f"{len(names)} {kind} ({some(names, SHOWN)})" for kind, names in kinds.items() if names
    ]
    if lists:
        raise AgiqaError(
            f"{expected} ({sizes}), found {'; '.join(lists)}: take other weights, or change "
            "paper.network to their sizes."
        )
    odd = [name for name in own if not tensors[name].is_floating_point()]
    try:
        if odd:
            raise ValueError(f"tensor {odd[0]} is of {tensors[odd[0]].dtype}, no floats")
        require_finite({name: tensors[name] for name in own})
    except ValueError as error:
        raise AgiqaError(
            f"{expected}, found damaged ones ({error}): copy the file again, or take other weights."
        ) from error
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(tensors[name])


def load_vit(regressor: PaperRegressor, source: str | Path | Mapping[str, Tensor]) -> None:
    """Start the backbone from `source`: a state dict in timm's naming, or one of those above.

    Raises:
        AgiqaError: no such source, damaged files, another kind of model or other sizes, timm not
            installed, no network. The regressor is unchanged then.
    """
    if isinstance(source, Mapping):
        load_timm_state(regressor, source, "the given weights")
    elif str(source) == TIMM or str(source).startswith(f"{TIMM}/"):
        name = str(source).partition("/")[2] or TIMM_MODEL
        load_timm_state(regressor, _downloaded_by_timm(name), f"timm's {name}")
    elif Path(source).is_file():
        load_timm_state(regressor, _read(Path(source)), str(source))
    else:
        folder = Path(source) if Path(source).is_dir() else _downloaded_from_hub(str(source))
        _require_vit(folder, regressor.config.heads, str(source))
        load_timm_state(regressor, from_transformers(_read_folder(folder)), str(source))


def _read_folder(folder: Path) -> dict[str, Tensor]:
    for pattern in PATTERNS:
        tensors = [_read(path) for path in sorted(folder.glob(pattern))]
        if tensors:
            return {name: tensor for shard in tensors for name, tensor in shard.items()}
    raise AgiqaError(f"{folder}: no weights; expected {' or '.join(PATTERNS)} beside config.json.")


def _read(file: Path) -> dict[str, Tensor]:
    """Read the weights in a file, by name."""
    tree = _load(file)
    if not isinstance(tree, dict) or not all(map(torch.is_tensor, tree.values())):
        raise AgiqaError(f"{file}: expected tensors by name; save the model's state dict alone.")
    return tree


def _load(file: Path) -> Any:
    """What is in a file of weights; nothing of it is run."""
    try:
        return load_file(file) if file.suffix == ".safetensors" else load_torch_file(file)
    except pickle.UnpicklingError as error:
        raise AgiqaError(
            f"{file}: expected a state dict of tensors, found a pickle that is damaged or holds "
            "other objects, which could run code when loaded: nothing of it was run. Save the "
            "state dict alone, `net.state_dict()`."
        ) from error
    except Exception as error:  # damage shows in as many ways as there are bytes
        reason = one_line(error) if type(error) is ValueError else type(error).__name__
        raise AgiqaError(
            f"{file}: damaged or truncated, or no weights ({reason}): copy it again."
        ) from error


def _require_vit(folder: Path, heads: int, where: str) -> None:
    """What the shapes of the weights do not tell."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise AgiqaError(
            f"{where}: expected a transformers folder with config.json ({type(error).__name__})."
        ) from error
    expected = {"model_type": "vit", "num_attention_heads": heads, "hidden_act": "gelu"}
    for key, value in expected.items():
        if config.get(key) != value:
            raise AgiqaError(
                f"{where}: expected {key} {value!r} in its config.json, found {config.get(key)!r}: "
                "take another ViT, or change paper.network to its sizes."
            )


def _downloaded_from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(WITH_CONFIG)))
    except Exception as error:  # network stacks raise many kinds; all mean the same here
        raise AgiqaError(
            f"Backbone '{name}': no such file or folder, and the hub has or reaches no such model "
            f"({type(error).__name__}). Put the weights into a local file or folder and name it."
        ) from error


def _downloaded_by_timm(name: str) -> dict[str, Tensor]:
    try:
        timm: Any = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # the latter where torchvision is another torch's
        raise AgiqaError(
            "Backbone 'timm' needs the timm extra: pip install 'agiqa[timm]', or give a local file "
            f"instead, model.safetensors of huggingface.co/timm/{name} ({type(error).__name__})."
        ) from error
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # unknown names, no pretrained weights, and network stacks
        reason = " ".join(str(error).split())[:200]
        raise AgiqaError(
            f"timm has or reaches no weights of '{name}' ({type(error).__name__}: {reason}). "
            "Give a local file of them instead."
        ) from error
    tensors: dict[str, Tensor] = model.state_dict()
    return tensors


def read_reference_checkpoint(file: Path, network: Network) -> PaperEnsemble:
    """Read the checkpoint into the network whose sizes are given.

    Raises:
        AgiqaError: no such file, a damaged one, one that holds code, or other weights than the
            network's.
    """
    if not file.is_file():
        raise AgiqaError(f"{file}: no such file; give the .pt that the authors' main.py wrote.")
    tensors = _tensors(file)
    name = reference_name(f"semantic_experts.{SEMANTIC[0]}.0.weight")  # (h·w, D)
    has_width = name in tensors and tensors[name].ndim == 2
    width = tensors[name].shape[1] if has_width else PaperConfig().semantic_width
    if width > MOST_WIDTH:
        raise AgiqaError(
            f"{file}: semantic vectors of {width:,} numbers; the widest that are read have "
            f"{MOST_WIDTH:,}: is it a checkpoint of MA-AGIQA?"
        )
    config = PaperConfig(**asdict(network), semantic_width=width)
    regressor = PaperRegressor(config)
    load_reference_state(regressor, tensors, str(file))
    return PaperEnsemble(config, [regressor.state_dict()])


def _tensors(file: Path) -> dict[str, Tensor]:
    """The state dict in the file, wherever it is nested, without wrappers' prefixes."""
    tree = _load(file)
    for key in NESTED:
        if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping):
            tree = tree[key]
    if not isinstance(tree, Mapping) or not tree:
        raise AgiqaError(f"{file}: expected weights by name, found {type(tree).__name__}.")
    tensors = {
        str(name).removeprefix(WRAPPED): value
        for name, value in tree.items()
        if isinstance(value, Tensor)
    }
    if len(tensors) < len(tree):
        odd = next(name for name, value in tree.items() if not isinstance(value, Tensor))
        raise AgiqaError(
            f"{file}: expected weights by name, found {type(tree[odd]).__name__} as '{odd}': "
            f"save the state dict alone, or under one of {', '.join(NESTED)}."
        )
    for key, value in tensors.items():
        if value.layout != torch.strided or value.device.type != "cpu":
            raise AgiqaError(
                f"{file}: expected dense weights, found '{key}' of layout {value.layout} on "
                f"{value.device}: save the state dict of a trained network."
            )
    return tensors
