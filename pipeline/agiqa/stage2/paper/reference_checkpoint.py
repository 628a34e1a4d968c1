"""A checkpoint of the authors' code (github.com/wangpuyi/MA-AGIQA) as an ensemble of one network.

Their main.py writes `torch.save(net.state_dict())`, a pickle. It is read with `weights_only`, so
that it can hold tensors and nothing that runs. Their names and what never runs are `model.paper`'s
business; names that nobody knows are an error, so no weight is lost unsaid.
"""

import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.params import Network
from agiqa.core.weight_files import load_torch_file
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.network import (
    SEMANTIC,
    PaperConfig,
    PaperRegressor,
    load_reference_state,
    reference_name,
)

NESTED = ("state_dict", "model_state_dict", "model", "net")  # where trainers put the weights
MOST_WIDTH = 1 << 16  # of the vectors; a tensor's shape may promise any
WRAPPED = "module."  # DataParallel's prefix of every name


def read_reference_checkpoint(file: Path, network: Network) -> PaperEnsemble:
    """Read the checkpoint into the network whose sizes are given.

    Raises:
        AgiqaError: no such file, a damaged one, one that holds code, or other weights than the
            network's.
    """
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


def _load(file: Path) -> Any:
    if not file.is_file():
        raise AgiqaError(f"{file}: no such file; give the .pt that the authors' main.py wrote.")
    try:
        return load_torch_file(file)
    except Exception as error:  # damage shows in as many ways as there are bytes
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise AgiqaError(
                f"{file}: expected a state dict of tensors, found Python objects, which could run "
                "code when loaded: nothing of it was run. Save `net.state_dict()` instead."
            ) from error
        reason = one_line(error) if type(error) is ValueError else type(error).__name__
        raise AgiqaError(
            f"{file}: damaged or truncated, or not a PyTorch checkpoint ({reason}): copy it again."
        ) from error
