"""The reference's golden tensors, its tiny checkpoint, and folders that tests may change."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

REPOSITORY = Path(__file__).resolve().parents[3]
MERGES = [("▁", "▁"), ("▁", "A"), ("i", "n"), ("▁", "in")]


@pytest.fixture(scope="session")
def golden() -> Path:
    """Tensors that the reference implementations computed."""
    folder = Path(os.environ.get("AGIQA_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
    if not (folder / "mplug_owl2_tiny").is_dir():
        pytest.skip(f"no golden tensors in {folder}: set AGIQA_GOLDEN")
    return folder


@pytest.fixture(scope="session")
def expected(golden: Path) -> dict[str, torch.Tensor]:
    """Of the tiny checkpoint, by the reference."""
    return load_file(golden / "mplug_owl2_tiny" / "expected.safetensors")


@pytest.fixture(scope="session")
def vocabulary() -> dict[str, int]:
    """Of a LLaMA-like tokenizer small enough for the tiny checkpoint: characters, some merges."""
    signs = [chr(code) for code in range(33, 127)] + ["▁"]
    pieces = ["<unk>", "<s>", "</s>", "<0x0A>", *signs, *("".join(pair) for pair in MERGES)]
    return {piece: number for number, piece in enumerate(pieces)}


@pytest.fixture(scope="session")
def save_tokenizer(vocabulary: dict[str, int]) -> Callable[[Path], None]:
    """Writes `tokenizer.json` into a folder."""
    from tokenizers import Tokenizer, models

    def save(folder: Path, **changed: Any) -> None:
        options = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True} | changed
        Tokenizer(models.BPE(vocabulary, MERGES, **options)).save(str(folder / "tokenizer.json"))

    return save


@pytest.fixture(scope="session")
def build(golden: Path, save_tokenizer: Callable[[Path], None]) -> Callable[..., Path]:
    """A folder with the tiny checkpoint and a tokenizer; `change` edits its weights first."""

    def make(folder: Path, change: Callable[[dict[str, torch.Tensor]], None] | None = None) -> Path:
        folder.mkdir()
        shutil.copyfile(golden / "mplug_owl2_tiny" / "config.json", folder / "config.json")
        path = golden / "mplug_owl2_tiny" / "pytorch_model.bin"
        weights = torch.load(path, weights_only=True)
        if change:
            change(weights)
        torch.save(weights, folder / "pytorch_model.bin")
        save_tokenizer(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a tokenizer; not to be changed."""
    return build(tmp_path_factory.mktemp("models") / "tiny-owl")


@pytest.fixture
def reconfigure() -> Callable[..., None]:
    """Changes keys of a folder's `config.json`."""

    def change(folder: Path, **keys: object) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return change
