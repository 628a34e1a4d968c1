"""Weights of a transformers folder, read lazily and strictly: all of them fit, or none is loaded.

Each shard is mapped into memory, its tensors are cast and put on their device one by one, and the
map is closed before the next. So memory holds one copy of the model and at most one shard.
"""

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from agiqa.core.errors import AgiqaError, some
from agiqa.core.trees import read_json
from agiqa.core.weight_files import load_torch_file

NAMES = ("model.safetensors", "pytorch_model.bin")  # the first that is there; also with .index.json
SHOWN = 20  # names of each kind in an error


def load_weights(
    model: nn.Module,
    folder: Path,
    dtype: torch.dtype,
    devices: Mapping[str, str | int | torch.device],
    not_needed: tuple[str, ...],
) -> None:
    """Give every parameter of `model` (on any device, meta included) its weights out of `folder`.

    Args:
        model: its parameter names are the checkpoint's, after a leading `model.`.
        folder: holds `model.safetensors` or `pytorch_model.bin`, or their shards and index.
        dtype: to cast to.
        devices: for module names, the longest that fits; "" stands for all.
        not_needed: patterns of names that the checkpoint may hold beside.

    Raises:
        AgiqaError: no weights there; a shard absent, damaged or truncated; names missing or
            unexpected, shapes that differ (all listed at once, before anything is loaded).
    """
    paths = shards(folder)
    ignored = re.compile("|".join(not_needed))
    shapes: dict[str, torch.Size] = {}
    for path in paths:
        shapes |= {n: s for n, s in _shapes(path).items() if not ignored.fullmatch(n)}
    _require_fit(model, shapes, folder)
    for path in paths:
        for name, tensor in _tensors(path):
            if name in shapes:
                fitting = [key for key in devices if not key or f"{name}.".startswith(f"{key}.")]
                device = torch.device(devices[max(fitting, key=len)])
                weight = tensor.to(device=device, dtype=dtype, copy=True)
                owner, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(owner), leaf, nn.Parameter(weight, requires_grad=False))


def shards(folder: Path) -> list[Path]:
    """List the files that hold the weights.

    Raises:
        AgiqaError: there are none, or the index names some that are not there.
    """
    for name in NAMES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                files = set(read_json(index)["weight_map"].values())
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise AgiqaError(f"{index}: not an index of shards; copy it again.") from error
            absent = sorted(file for file in files if not (folder / file).is_file())
            if absent:
                raise AgiqaError(
                    f"{folder}: {len(absent)} of {len(files)} shards are absent, such as "
                    f"{absent[0]}; copy them into that folder."
                )
            return [folder / file for file in sorted(files)]
        if (folder / name).is_file():
            return [folder / name]
    raise AgiqaError(f"{folder}: no weights; expected {' or '.join(NAMES)}, or their shards.")


def _shapes(path: Path) -> dict[str, torch.Size]:
    if path.suffix == ".safetensors":
        with _explained(path), safe_open(path, framework="pt") as file:
            return {_short(n): torch.Size(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
    return {name: tensor.shape for name, tensor in _tensors(path)}


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    if path.suffix == ".safetensors":
        with _explained(path), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                yield _short(name), file.get_tensor(name)
        return
    with _explained(path):
        tree = load_torch_file(path, mapped=True)
        if not isinstance(tree, dict) or not all(map(torch.is_tensor, tree.values())):
            raise ValueError("no mapping of names to tensors")
    yield from ((_short(name), tensor) for name, tensor in tree.items())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises on damage into one line."""
    try:
        yield
    except (
        OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError,
        SafetensorError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:160]
        raise AgiqaError(
            f"{path}: damaged, truncated or no weights ({path.stat().st_size:,} bytes; {reason}); "
            "copy this file again."
        ) from error


def _short(name: str) -> str:
    return name.removeprefix("model.")


def _require_fit(model: nn.Module, shapes: Mapping[str, torch.Size], folder: Path) -> None:
    expected = {name: weight.shape for name, weight in model.named_parameters()}
    missing = sorted(expected.keys() - shapes.keys())
    unexpected = sorted(shapes.keys() - expected.keys())
    misshapen = [
        f"{name} {tuple(shapes[name])} instead of {tuple(shape)}"
        for name, shape in sorted(expected.items())
        if name in shapes and shapes[name] != shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    lists = [
        f"{len(names)} {kind} ({some(names, SHOWN)})" for kind, names in kinds.items() if names
    ]
    if lists:
        raise AgiqaError(
            f"{folder}: the weights do not fit its config.json and {type(model).__name__}: "
            f"{'; '.join(lists)}. Take the whole checkpoint of one model."
        )
