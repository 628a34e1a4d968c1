"""Other people's weights in the paper's network: all of them fit, or none is loaded.

The one place that knows other names than ours. `RENAMED` serves the authors' checkpoints and timm's
ViT, whose names the authors' `vit.` continues; transformers' ViT is brought to timm's names first.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from agiqa.core.errors import AgiqaError, some
from agiqa.core.weight_files import require_finite
from agiqa.stage2.paper.network.regressor import PaperRegressor

SHOWN = 20  # names of each kind in an error

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
            renamed[_timm_name(short)] = tensor
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace("query", part) for part in FUSED]
        if all(part in renamed for part in parts):
            renamed[name.replace("query", "qkv")] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def _timm_name(name: str) -> str:
    for pattern, timm_name in TRANSFORMERS.items():
        matched = re.match(pattern + r"(?=\.|$)", name)
        if matched:
            return matched.expand(timm_name) + name[matched.end() :]
    return name


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
