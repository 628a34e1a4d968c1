"""How fast mPLUG-Owl2 makes its vectors here, beside the reference's way of making them.

No checkpoint is needed: the network has its full size and random weights, made on the device. Each
round takes one batch ours and one batch the reference's way, in turn, so trust the ratio before the
seconds. Ours: the image encoded once, the text before it run once for all images, no head. The
reference's: two full passes a prompt, the image encoded again in each, the head over all positions
(its slower attention and its indexing are not imitated). The arithmetic does not depend on values.

    python benchmarks/mplug_owl2.py --images FOLDER                # a GPU, full size, bfloat16
    python benchmarks/mplug_owl2.py --tiny                         # a CPU, seconds
"""

import argparse
import copy
import resource
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from measuring import matmul_rate, seconds
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from agiqa.data.images import IMAGE_SUFFIXES, image_id
from agiqa.stage1.extractors import Sample, Vector
from agiqa.stage1.extractors.contract import batch
from agiqa.stage1.mplug_owl2.extractor import SemanticVectors
from agiqa.stage1.mplug_owl2.loading import build_empty
from agiqa.stage1.mplug_owl2.network import MplugOwl2Config, MplugOwl2Model
from agiqa.stage1.mplug_owl2.processing import TokenizedText, normalise, square
from agiqa.stage1.one_machine import OneMachine
from agiqa.stage1.vectors import FileVectors
from agiqa.store.row_ids import Source

# As many tokens as LLaMA's tokenizer makes of MA-AGIQA's two prompts, BOS with them.
PROMPTS = tuple(TokenizedText((5,) * before, (5,) * 6) for before in (28, 23))
TINY = MplugOwl2Config(
    vocab_size=2000,
    hidden_size=256,
    intermediate_size=688,
    num_hidden_layers=4,
    num_attention_heads=4,
    visual_config={
        "visual_model": {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 224,
        },
        "visual_abstractor": {
            "hidden_size": 128,
            "encoder_hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
    },
)


def random_model(config: MplugOwl2Config, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The network and its head with random weights, made on the device."""
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = MplugOwl2Model(config)
            head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    finally:
        torch.set_default_dtype(before)
    return nn.ModuleDict({"model": model, "head": head}).eval().requires_grad_(False)


def reference(model: MplugOwl2Model, head: nn.Module, images: Tensor) -> Tensor:
    """The reference's arithmetic: vectors `(B, P, D)` of normalised images."""
    means = []
    for text in PROMPTS:
        for _ in range(2):  # once for logits that nobody uses, once for hidden states
            visual = model.encode_images(images)
            ids = torch.tensor([text.before + text.after], device=images.device)
            words = model.embed(ids, images.dtype).expand(len(images), -1, -1)
            place = len(text.before)
            embedded = torch.cat([words[:, :place], visual, words[:, place:]], dim=1)
            states = model.decode(embedded, (place, place + visual.shape[1]))
            head(states)
        means.append(states.float().mean(dim=1))
    return torch.stack(means, dim=1)


def count_flop(config: MplugOwl2Config) -> tuple[float, float]:
    """For one image, our way and the reference's, counted on the meta device; 2 a multiply-add."""
    model = build_empty(config, "eager")
    images = torch.zeros(1, 3, config.vision.image_size, config.vision.image_size, device="meta")
    with torch.device("meta"):
        head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    vectors = SemanticVectors(model, PROMPTS, batch_size=1)
    for prompt in range(len(PROMPTS)):
        vectors.pool(model.encode_images(images), prompt)  # so that prefixes are not counted below

    def ours() -> None:
        visual = model.encode_images(images)
        for prompt in range(len(PROMPTS)):
            vectors.pool(visual, prompt)

    counts = []
    for work in (ours, lambda: reference(model, head, images)):
        with FlopCounterMode(display=False) as counter:
            work()
        counts.append(float(counter.get_total_flops()))
    return counts[0], counts[1]


def peak_memory(device: torch.device) -> float:
    """GB: of the GPU since the last reset, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class Extractor:
    """The benchmark's model behind the extractors' contract, to run the real pipeline with."""

    name, precision = "benchmark", "float16"

    def __init__(self, compute: SemanticVectors, side: int) -> None:
        self.compute, self.side = compute, side
        width = int(compute.model.config.hidden_size)
        self.vectors = tuple(
            Vector(f"prompt{n}", {"benchmark": n}, width) for n in range(len(PROMPTS))
        )
        self.batch_size = compute.batch_size

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """As `MplugOwl2Extractor` does."""
        return Sample({"pixel_values": square(image, self.side)[None]})

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Likewise."""
        return list(self.compute(batch(samples)["pixel_values"], wanted).swapaxes(0, 1))


def from_files(folder: Path, extractor: Extractor, workers: int, most: int) -> tuple[int, float]:
    """Images and seconds for the files of a folder, decoded, computed and written to a ledger."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    files = {(name := image_id(path)): Source(name, path) for path in paths[:most]}
    if not files:
        raise SystemExit(f"{folder}: no images.")
    with tempfile.TemporaryDirectory() as ledger:
        work = partial(FileVectors(extractor, Path(ledger), OneMachine(workers)), files)
        return len(files), seconds(work)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="also from this folder's files, end to end")
    parser.add_argument("--most", type=int, default=3000, help="of those files")
    parser.add_argument("--workers", type=int, default=8, help="processes that decode")
    parser.add_argument("--batch-size", type=int, default=0, help="default: 32, with --tiny 2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="")
    parser.add_argument("--tiny", action="store_true", help="a reduced size, for a CPU")
    return parser.parse_args()


def main() -> None:
    """Measure, and print one figure a line."""
    chosen = options()
    device = Accelerator().device
    dtype = getattr(torch, chosen.dtype or ("float32" if chosen.tiny else "bfloat16"))
    config = TINY if chosen.tiny else MplugOwl2Config()
    size = chosen.batch_size or (2 if chosen.tiny else 32)
    counted = dict(zip(("ours", "reference"), count_flop(copy.deepcopy(config)), strict=True))
    rate = matmul_rate(dtype, device)
    network = random_model(config, dtype, device)
    model, head = network["model"], network["head"]
    side = config.vision.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (size, 3, side, side), dtype=np.uint8)
    compute = SemanticVectors(model, PROMPTS, size)

    @torch.inference_mode()
    def theirs() -> np.ndarray:
        images = normalise(torch.from_numpy(pixels).to(device)).to(dtype)
        return reference(model, head, images).cpu().numpy()

    def ours() -> np.ndarray:
        return compute(pixels, (0, 1))

    both = {"ours": ours, "reference": theirs}
    apart = np.abs(ours() - theirs()).max()  # also the warm-up
    taken: dict[str, list[float]] = {name: [] for name in both}
    memory: dict[str, float] = {}
    for _ in range(chosen.rounds):
        for name, work in both.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            taken[name].append(seconds(work))
            memory[name] = max(memory.get(name, 0.0), peak_memory(device))

    weights = sum(weight.numel() for weight in model.parameters())
    print(f"{weights / 1e9:.2f} billion weights without the head, {dtype}, batches of {size}")
    print(f"{device.type}: {rate / 1e12:.2f} TFLOP/s measured on a large product")
    for name, values in taken.items():
        speed = size / statistics.median(values)
        reached = speed * counted[name]
        print(
            f"{name:>9}: {speed:.2f} images/s, {counted[name] / 1e12:.4f} TFLOP an image, "
            f"{reached / 1e12:.3f} TFLOP/s, {reached / rate:.0%} of the measured rate, "
            f"peak memory {memory[name]:.1f} GB"
        )
    ratios = [r / o for r, o in zip(taken["reference"], taken["ours"], strict=True)]
    print(f"the reference's way takes {statistics.median(ratios):.2f} times as long")
    print(f"largest difference of a vector's element between the two: {apart:.1e}")
    if chosen.images:
        extractor = Extractor(compute, side)
        count, took = from_files(chosen.images, extractor, chosen.workers, chosen.most)
        print(f"{count} image files, decoding and store included: {count / took:.2f} images/s")


if __name__ == "__main__":
    main()
