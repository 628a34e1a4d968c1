"""What a fit with the preset `tuned` yields and how it scores: `light`, and a tail for each split.

The tail is the last blocks of the visual backbone, its last norm, and a small head. The blocks
start as the backbone's own. The head reads the class token, and mean and deviation over the
patches, as `light` does; beside, the semantic vectors meet them in hidden space as in MA-AGIQA
(arXiv:2404.17762, section 3.3): a linear layer for each, a gate over all, linear or softmax. That
part starts at zero, so that a training starts from the ridge on the frozen features (as linear
probing then fine-tuning, Kumar et al., ICLR 2022, does).

The tail's score stands beside that of the frozen experts' mixture, with the share that the
validation side gave it. Weights are kept in float16; scores are computed in float32.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.params import Params
from agiqa.core.trees import parse_json
from agiqa.core.weight_files import read_header, require_finite
from agiqa.stage2.contract import (
    Expected,
    Header,
    HeldOut,
    Prediction,
    cv_plus,
    held_out,
    inside,
    matrix_shape,
    nested,
    score_by,
)
from agiqa.stage2.light.ensemble import Ensemble
from agiqa.stage2.light.mixture import Mixture, SideScores, constant_mixture, mixture_scores
from agiqa.stage2.paper.network import Activation, Block
from agiqa.stage2.tuned.inputs import TunedInputs, TunedVisual
from agiqa.store import digest

BATCH = 64  # images scored at a time
HIDDEN = 128  # width of the hidden space where the vectors meet
DROPOUT = 0.1
FLOOR = 1e-6  # under the root of a deviation


def quick_gelu(x: Tensor) -> Tensor:
    """Apply CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


BENDS: dict[str, Activation] = {  # by transformers' names
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": functional.relu,
}
NAMES = {  # transformers' names within a block: ours
    r"(self_attn|attention)\.(out_proj|o_proj)\.": "attention.output.",
    r"(layer_norm1|layernorm_before|norm1)\.": "norm1.",
    r"(layer_norm2|layernorm_after|norm2)\.": "norm2.",
    r"mlp\.fc1\.": "mlp.expand.",
    r"mlp\.fc2\.": "mlp.contract.",
}
QKV = re.compile(r"(\d+)\.(?:self_attn|attention)\.([qkv])_proj\.(weight|bias)")
SCALE = re.compile(r"(\d+)\.layer_scale([12])\.lambda1")
SCALED = {"1": "attention.output", "2": "mlp.contract"}  # what a layer scale follows


@dataclass(frozen=True)
class TailConfig:
    """Sizes and kind of a tail; with them and its tensors it is whole."""

    blocks: int
    width: int  # C, of a token
    hidden: int  # of the blocks' MLPs
    heads: int
    bend: str  # BENDS
    eps: float
    tokens: int  # L, of an image
    patches: int  # of them, the last ones
    semantic: int  # P vectors
    semantic_width: int  # D
    softmax: bool  # of the head's gate; else linear, as the paper's


@dataclass(frozen=True)
class TailStart:
    """What the backbone gives: its last blocks `0.…`, `1.…` and its norm, as transformers names."""

    tensors: Mapping[str, Tensor]
    heads: int
    activation: str
    eps: float


class Tail(nn.Module):
    """Tokens `(B, L, C)` and semantic vectors `(B, P, D)` to scores `(B,)`, in deviations."""

    def __init__(self, config: TailConfig) -> None:
        super().__init__()
        self.config, self.patches = config, config.patches
        sizes = config.width, config.heads, config.hidden, config.eps, BENDS[config.bend]
        self.blocks = nn.ModuleList(Block(*sizes) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.head = Head(config)

    def forward(self, tokens: Tensor, semantic: Tensor) -> Tensor:
        """Run the blocks and the head."""
        score: Tensor = self.head(self.pooled(tokens), semantic)
        return score

    def pooled(self, tokens: Tensor) -> Tensor:
        """Class token, mean and deviation of the last states, float32: `(B, pools * C)`."""
        for block in self.blocks:
            tokens = block(tokens)
        states = self.norm(tokens).float()
        patches = states[:, -self.patches :]
        mean = patches.mean(dim=1)
        deviation = (patches - mean[:, None]).square().mean(dim=1).add(FLOOR).sqrt()
        others = [states[:, 0]] if states.shape[1] > self.patches else []
        return torch.cat([*others, mean, deviation], dim=1)


class Head(nn.Module):
    """Pooled states and semantic vectors to a score."""

    centre: Tensor
    scale: Tensor
    semantic_centre: Tensor
    semantic_scale: Tensor

    def __init__(self, config: TailConfig) -> None:
        super().__init__()
        pooled = config.width * (2 + (config.tokens > config.patches))
        semantic = (config.semantic, config.semantic_width)
        self.softmax = config.softmax
        self.register_buffer("centre", torch.zeros(pooled))
        self.register_buffer("scale", torch.ones(pooled))
        self.register_buffer("semantic_centre", torch.zeros(semantic))
        self.register_buffer("semantic_scale", torch.ones(semantic))
        self.line = nn.Linear(pooled, 1)
        self.experts = nn.ModuleList(
            nn.Linear(width, HIDDEN) for width in (pooled, *[semantic[1]] * semantic[0])
        )
        self.gate = nn.Linear(HIDDEN * len(self.experts), len(self.experts))
        self.mixed = nn.Linear(HIDDEN, 1, bias=False)
        self.dropout = nn.Dropout(DROPOUT)
        nn.init.zeros_(self.mixed.weight)

    def forward(self, pooled: Tensor, semantic: Tensor) -> Tensor:
        """Score `(B,)`: the line through the pooled states, and what the mixture adds."""
        visual = (pooled - self.centre) / self.scale
        vectors = (semantic - self.semantic_centre) / self.semantic_scale
        given = [visual, *vectors.unbind(dim=1)]
        hidden = torch.stack(
            [
                self.dropout(functional.gelu(expert(own)))
                for expert, own in zip(self.experts, given, strict=True)
            ],
            dim=1,
        )
        weights = self.gate(hidden.flatten(1))
        weights = weights.softmax(dim=1) if self.softmax else weights
        mixed = (weights[..., None] * hidden).sum(dim=1)
        score: Tensor = self.line(visual) + self.mixed(mixed)
        return score[:, 0].float()


def read_tail_start(inputs: TunedInputs) -> TailStart:
    """Read the backbone's blocks behind the tokens, which `extract` wrote beside them.

    Raises:
        AgiqaError: they are absent, damaged, or behind other tokens.
    """
    path, again = inputs.tail_file, "run `agiqa extract --only tokens` again"
    if not path.is_file():
        raise AgiqaError(f"No {path}, the blocks behind the tokens: {again}.")
    read_header(path, again)
    try:
        with safe_open(path, framework="pt") as file:
            about = parse_json(file.metadata()["tail"])
        start = TailStart(load_file(path), about["heads"], about["activation"], about["eps"])
        require_finite(start.tensors)
        made_by = about["made_by"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise AgiqaError(f"{path}: damaged weights ({one_line(error)}); {again}.") from error
    if made_by != digest(inputs.made_by):
        raise AgiqaError(f"{path}: blocks behind other tokens than {inputs.tokens.pack.path} has; "
                         f"{again}.")  # fmt: skip
    return start


def tail_config(
    start: TailStart, tokens: int, patches: int, semantic: tuple[int, int], softmax: bool
) -> TailConfig:
    """Read the sizes off the backbone's weights.

    Raises:
        AgiqaError: its blocks are of another kind.
    """
    weights = blocks_of(start.tensors)
    if start.activation not in BENDS or "blocks.0.mlp.expand.weight" not in weights:
        raise _other_kind(f"the activation {start.activation} or other MLPs")
    hidden, width = weights["blocks.0.mlp.expand.weight"].shape
    blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    heads, bend, eps = start.heads, start.activation, start.eps
    config = TailConfig(
        blocks, width, hidden, heads, bend, eps, tokens, patches, *semantic, softmax
    )
    try:
        return facts(asdict(config))
    except ValueError as error:
        raise _other_kind(str(error)) from error


def start_tail(config: TailConfig, start: TailStart, seed: int) -> Tail:
    """Make a tail whose blocks and norm are the backbone's; its head follows from the seed.

    Raises:
        AgiqaError: the backbone's blocks have other parts.
    """
    torch.manual_seed(seed)
    tail, weights = Tail(config), blocks_of(start.tensors)
    head = {name: t for name, t in tail.state_dict().items() if name.startswith("head.")}
    try:
        tail.load_state_dict(weights | head)
    except RuntimeError as error:
        raise _other_kind(" ".join(str(error).split())[:200]) from error
    return tail


def blocks_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's blocks and norm in our names; layer scales become part of what they scale."""
    named: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    scales: list[tuple[str, Tensor]] = []
    for name, tensor in tensors.items():
        if match := QKV.fullmatch(name):
            parts.setdefault((match[1], match[3]), {})[match[2]] = tensor
        elif match := SCALE.fullmatch(name):
            scales.append((f"blocks.{match[1]}.{SCALED[match[2]]}", tensor))
        else:
            block, _, inner = name.partition(".")
            if block.isdecimal():
                for pattern, ours in NAMES.items():
                    inner = re.sub(f"^{pattern}", ours, inner)
                name = f"blocks.{block}.{inner}"
            named[name] = tensor
    for (block, kind), of_qkv in parts.items():
        if len(of_qkv) == 3:
            named[f"blocks.{block}.attention.qkv.{kind}"] = torch.cat([of_qkv[p] for p in "qkv"])
    for name, scale in scales:
        for kind in ("weight", "bias"):
            if (scaled := named.get(f"{name}.{kind}")) is not None:
                rows = scale[:, None] if scaled.ndim > 1 else scale
                named[f"{name}.{kind}"] = rows * scaled
    return named


def _other_kind(what: str) -> AgiqaError:
    return AgiqaError(
        "The preset tuned expects blocks as CLIP, SigLIP, ViT and DINOv2 have them, found "
        f"{what}: use another visual.model, or --preset light."
    )


def as_kept(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as a run keeps them, in float16: half the room, and as good to four digits."""
    return {name: tensor.detach().cpu().half() for name, tensor in state.items()}


def facts(config: Mapping[str, Any]) -> TailConfig:
    """The sizes of a tail as a run's provenance tells them.

    Raises:
        ValueError: one is missing, unknown, or not what it can be.
    """
    names = TailConfig.__dataclass_fields__
    if config.keys() != names.keys():
        raise ValueError(f"the tail is described by {sorted(config)}")
    for name, field in names.items():
        value, kind = config[name], field.type
        if type(value) is not kind or (kind is int and not 0 < value < 1 << 20):
            raise ValueError(f"the tail's {name} is {value!r}")
    if config["bend"] not in BENDS or config["width"] % config["heads"]:
        raise ValueError(f"the tail's {config['bend']} or {config['heads']} heads")
    return TailConfig(**config)


@dataclass(frozen=True)
class Blend:
    """A split's two scores in one: of the frozen experts' mixture, and of the tail."""

    mixture: Mixture  # of both, constant
    held_out: HeldOut  # errors of the whole on the validation side

    @property
    def share(self) -> float:
        """Give the weight of the tail in the mixture."""
        return float(self.mixture.shares[1, 0])

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        kept = nested("mixture", self.mixture.tensors())
        return kept | nested("held_out", self.held_out.tensors())

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make it of `tensors` again."""
        mixture = Mixture.from_tensors(inside("mixture", tensors), softmax=True)
        return cls(mixture, HeldOut.from_tensors(inside("held_out", tensors)))


def fit_blend(frozen: Tensor, tail: Tensor, mos: Tensor) -> Blend:
    """Weigh scores `(m,)` of a validation side so that they fit the MOS `(m,)`, none below zero.

    All in units of the training deviation.
    """
    datasets = torch.zeros(len(mos), dtype=torch.int64)
    scores = torch.stack([frozen, tail], dim=1)[..., None]
    side = SideScores(torch.zeros(len(mos), 0), scores, mos[:, None], datasets)
    mixture = constant_mixture(side, 1, softmax=True, experts=slice(None))
    errors = held_out(mixture_scores(mixture, side), side.mos, datasets)
    return Blend(mixture, errors)


@dataclass(frozen=True, eq=False)
class TunedEnsemble:
    """S splits, whose mean score is a new image's; of one target and one data set."""

    light: Ensemble
    config: TailConfig
    tails: Sequence[Mapping[str, Tensor]]  # float16, of each split
    blends: tuple[Blend, ...]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What a run's provenance says of it: the tail's sizes, and its share on each split."""
        shares = [round(blend.share, 4) for blend in self.blends]
        return {"tail": asdict(self.config), "tail_shares": shares}

    def predict(self, visual: TunedVisual, semantic: np.ndarray) -> Prediction:
        """Scores on the MOS scale for N images.

        Args:
            visual: their visual vectors and tokens.
            semantic: vectors `(N, P, D)`.
        """
        frozen, tail = self.both(visual, semantic)  # (S, N)
        light = self.light.predict(visual.features, semantic)
        scores, gates = [], []
        for index, split in enumerate(self.light.splits):
            mixture = self.blends[index].mixture
            pair = torch.stack([frozen[index], tail[index]], dim=1)[..., None]  # (N, 2, 1)
            score, weights = mixture.mix(torch.zeros(len(pair), 0), pair)
            scores.append(torch.from_numpy(split.scales.restore(score.numpy(), 0)).float())
            gates.append(torch.cat([light.gate[index] * weights[:, :1], weights[:, 1:]], dim=1))
        return Prediction(torch.stack(scores), torch.stack(gates))

    def both(self, visual: TunedVisual, semantic: np.ndarray) -> tuple[Tensor, Tensor]:
        """Scores `(S, N)` of the frozen experts' mixtures and of the tails, in deviations."""
        light = self.light.predict(visual.features, semantic).score[..., 0]
        frozen = [
            (score - split.scales.mean[0, 0]) / split.scales.sd[0, 0]
            for split, score in zip(self.light.splits, light, strict=True)
        ]

        def inputs(rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
            states = tokens_on(visual.tokens[rows], self.config, device)
            return states, torch.from_numpy(semantic[rows]).to(device)

        every = np.arange(len(semantic))
        tails = [score_by(self.network, weights, inputs, every, BATCH)[0] for weights in self.tails]
        return torch.stack(frozen).float(), torch.stack(tails)

    def intervals(self, score: Tensor, target: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Ends `(N,)` of prediction intervals (`cv_plus`), by scores of `predict` `(S, N, 1)`."""
        return cv_plus(score[..., 0].numpy(), [self.errors(s) for s in range(len(self.blends))])

    def errors(self, index: int) -> np.ndarray:
        """Absolute errors `(m,)` on the validation side of the split at `index`."""
        sd = float(self.light.splits[index].scales.sd[0, 0])
        return self.blends[index].held_out.of(0, 0) * sd

    def only(self, index: int) -> Self:
        """The ensemble of the split at `index` alone."""
        one = slice(index, index + 1)
        light = self.light.only(index)
        return type(self)(light, self.config, self.tails[one], self.blends[one])

    def semantic_order(self, names: Sequence[str], width: int, where: str) -> list[int]:
        """Which of an extractor's semantic vectors each expert takes: they are in order."""
        return self.light.semantic_order(names, width, where)

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        named = nested("light", self.light.tensors())
        for index, (tail, blend) in enumerate(zip(self.tails, self.blends, strict=True)):
            named |= nested(f"tail.{index}", tail) | nested(f"blend.{index}", blend.tensors())
        return named

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], params: Params, provenance: Mapping[str, Any]
    ) -> Self:
        """Make the ensemble of a run again, the tails' weights still in the file."""
        frozen, splits = _of_light(provenance), range(len(provenance["seeds"]))
        light = Ensemble.from_tensors(inside("light", tensors), params, frozen)
        tails = [inside(f"tail.{index}", tensors) for index in splits]
        blends = tuple(Blend.from_tensors(inside(f"blend.{index}", tensors)) for index in splits)
        return cls(light, facts(provenance["tail"]), tails, blends)

    @staticmethod
    def expected(header: Header, params: Params, provenance: Mapping[str, Any]) -> Expected:
        """Name the tensors of a run; the network takes no room, on the device `meta`.

        Raises:
            ValueError: the provenance contradicts what the file holds.
        """
        with torch.device("meta"):
            state = Tail(facts(provenance["tail"])).state_dict()
        tail = {name: (("F16",), tuple(tensor.shape)) for name, tensor in state.items()}
        own = inside("light", header)
        named: Expected = nested("light", Ensemble.expected(own, params, _of_light(provenance)))
        for index in range(len(provenance["seeds"])):
            images, _ = matrix_shape(header, f"blend.{index}.held_out.errors")
            blend = nested("mixture", Mixture.expected(0, 2, 1, 1))
            blend |= nested("held_out", HeldOut.expected(images, 1))
            named |= nested(f"tail.{index}", tail) | nested(f"blend.{index}", blend)
        return named

    @cached_property
    def network(self) -> Tail:
        """The network that the splits' weights take turns in."""
        from accelerate import PartialState

        return Tail(self.config).to(PartialState().device).eval()


def tokens_on(tokens: np.ndarray, config: TailConfig, device: torch.device) -> Tensor:
    """Tokens `(n, L * C)` as a tail takes them: `(n, L, C)` float32."""
    shaped = tokens.reshape(len(tokens), config.tokens, config.width)
    return torch.from_numpy(shaped).to(device).float()


def _of_light(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance without the tail among the experts."""
    return {**provenance, "experts": list(provenance["experts"])[:-1]}
