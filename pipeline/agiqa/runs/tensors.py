"""Which tensors a run's weights must hold: name, type and shape, from its settings and provenance.

Looked up in the file's header before any of it is read or room is made for it, so that a size in a
stranger's settings cannot be larger than the weights that they gave.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params, from_tree
from agiqa.core.weight_files import FLOATS, Entry
from agiqa.stage2.light.ensemble import RIDGES, VARIANTS
from agiqa.stage2.light.moe import MixtureOfExperts
from agiqa.stage2.paper.network import PaperConfig, PaperRegressor
from agiqa.stage2.presets import LIGHT

Expected = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
NAMES = {  # of types in the header
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
    torch.uint8: "U8",
}
IMAGES = "images"  # (N, 32): ids of images that the run has seen


def expected_tensors(
    header: Mapping[str, Entry], params: Params, provenance: Mapping[str, Any]
) -> Expected:
    """Every tensor of the run by name, with the types that it may have and its shape.

    Raises:
        ValueError: the settings or the provenance tell of more than the file holds.
    """
    splits, experts = len(provenance["seeds"]), len(provenance["experts"])
    if splits * experts > len(header):
        raise ValueError(
            f"{splits} splits of {experts} experts are told of, and the file holds {len(header)} "
            "tensors"
        )
    if params.fit.preset != LIGHT:
        expected = _paper(provenance)
    else:
        expected = _Light(header, params, provenance).tensors()
    if IMAGES in header:
        expected[IMAGES] = (("U8",), (*header[IMAGES].shape[:1], 32))
    return expected


@dataclass(frozen=True)
class _Light:
    """The preset light: projections, kernels and ridges of each split, and stacked regressors."""

    header: Mapping[str, Entry]
    params: Params
    provenance: Mapping[str, Any]

    def tensors(self) -> Expected:
        """All of them."""
        told, first = self.provenance, "split.0"
        prompts = len(told["experts"]) - 1
        old = told["layout"] == 1  # without dimensions for targets and data sets
        datasets, targets = (1, 1) if old else (len(told["trained_on"]), len(told["targets"]))
        visual = self.sizes(f"{first}.visual.components", 2)
        semantic = [self.sizes(f"{first}.semantic.{p}.components", 2) for p in range(prompts)]
        if not semantic:
            raise ValueError("no expert but the visual one is told of")
        columns = () if old else (targets,)
        found: Expected = {}
        for split in range(len(told["seeds"])):
            key = f"split.{split}"
            parts = {f"{key}.visual": visual}
            parts |= {f"{key}.semantic.{p}": sizes for p, sizes in enumerate(semantic)}
            for expert, (part, (width, kept)) in enumerate(parts.items()):
                found[f"{part}.mean"] = found[f"{part}.scale"] = (FLOATS, (width,))
                found[f"{part}.components"] = (FLOATS, (width, kept))
                kernel = f"{key}.kernel.{expert}"
                anchors = self.sizes(f"{kernel}.anchors", 2)[0]
                found[f"{kernel}.anchors"] = (FLOATS, (anchors, kept))
                found[f"{kernel}.dual"] = (FLOATS, (anchors, *columns))
                found[f"{kernel}.gamma"] = (FLOATS, (1,))
            said = sum(width for width, _ in semantic)
            for name, width in zip(RIDGES, (visual[0] + said, visual[0], said), strict=True):
                found[f"{key}.{name}.weights"] = (FLOATS, (width, *columns))
                found[f"{key}.{name}.bias_alpha"] = (FLOATS, (2, *columns))
            found[f"{key}.mos"] = (FLOATS, (2,) if old else (2, datasets, targets))
        return found | self.regressors(visual[1], semantic[0][1], prompts, targets, datasets)

    def regressors(
        self, visual: int, semantic: int, prompts: int, targets: int, datasets: int
    ) -> Expected:
        """Those of the stacked regressors, which take no room on the device `meta`."""
        fit = self.params.fit
        found: Expected = {}
        for variant in VARIANTS:
            with torch.device("meta"):
                regressor = MixtureOfExperts(
                    models=len(self.provenance["seeds"]) * fit.members,
                    visual=visual if variant != "semantic" else 0,
                    semantic=semantic,
                    prompts=prompts if variant != "visual" else 0,
                    hidden=fit.hidden,
                    gate=fit.gate,
                    dropout=fit.dropout,
                    noise=fit.feature_noise,
                    targets=targets,
                    datasets=datasets,
                )
            for name, tensor in regressor.state_dict().items():
                found[f"{variant}.{name}"] = (("F32",), tuple(tensor.shape))
        return found

    def sizes(self, name: str, dimensions: int) -> Sequence[int]:
        """The shape of a tensor that says how large others are."""
        if name not in self.header:
            raise ValueError(f"tensor {name} is missing")
        shape = self.header[name].shape
        if len(shape) != dimensions or math.prod(shape) == 0:
            raise ValueError(f"tensor {name}: expected {dimensions} dimensions, found {shape}")
        return shape


def paper_config(provenance: Mapping[str, Any]) -> PaperConfig:
    """The sizes of the paper's network, as a run's provenance tells them.

    Raises:
        ValueError: one is unknown, or not what it can be.
    """
    told = dict(provenance.get("network") or {})
    width = told.pop("semantic_width", None)
    if type(width) is not int or not 0 < width < 1 << 20:
        raise ValueError("network.semantic_width is no width")
    try:
        network = from_tree({"paper": {"network": told}}, "network").paper.network
        return PaperConfig(**vars(network), semantic_width=width)
    except AgiqaError as error:
        raise ValueError(str(error)) from error


def _paper(provenance: Mapping[str, Any]) -> Expected:
    config = paper_config(provenance)
    with torch.device("meta"):
        state = PaperRegressor(config).state_dict()
    return {
        f"split.{split}.{name}": ((NAMES[tensor.dtype],), tuple(tensor.shape))
        for split in range(len(provenance["seeds"]))
        for name, tensor in state.items()
    }
