"""Stage 1 beside the way of MA-AGIQA's reference code: same model, images and prompts, one run.

The reference's way: images decoded one by one in the model's process, batches of 8, for every
prompt two full passes of which each encodes the images again, scores the whole vocabulary at every
position and keeps all layers' states. Ours: `agiqa extract`, from files to rows on the disk.

    python benchmarks/extraction.py --images FOLDER                      nano, on a CPU
    python benchmarks/extraction.py --images FOLDER --model FOLDER_OR_HUB_ID --dtype bfloat16
    python benchmarks/extraction.py --random qwen3-vl-8b --dtype bfloat16   on a GPU, no weights
    python benchmarks/extraction.py --images FOLDER --growth             batch size and prompts

Both are run in turn, so what else the machine does meets both. `benchmarks/mplug_owl2.py` does the
same at the size of mPLUG-Owl2.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from measuring import matmul_rate, seconds
from torch.utils.flop_counter import FlopCounterMode

from agiqa.core.params import Semantic
from agiqa.data.images import IMAGE_SUFFIXES, image_id
from agiqa.data.named_yaml import bundled_folder
from agiqa.stage1 import one_machine
from agiqa.stage1.batches import in_batches, samples_of
from agiqa.stage1.extractors import ImageTextExtractor
from agiqa.stage1.extractors.contract import batch
from agiqa.stage1.extractors.lmm.forward import SharedForward, Tokens, decoder_blocks
from agiqa.stage1.ledger_rows import Job, LedgerRows
from agiqa.store.row_ids import Source

THEIR_BATCH = 8
SHAPES = {  # by name: transformers' configuration, with its published sizes
    "qwen3-vl-2b": {
        "text_config": {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
        },
        "vision_config": {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    },
    "qwen3-vl-8b": {
        "text_config": {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        "vision_config": {"out_hidden_size": 4096},
    },
    "tiny": {
        "text_config": {
            "vocab_size": 152000,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
        },
        "vision_config": {
            "depth": 4,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 64,
            "deepstack_visual_indexes": [1, 2, 3],
        },
    },
}


def flop(work: Callable[[], Any]) -> float:
    """Counted, two for a multiplication with an addition."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


@torch.inference_mode()
def theirs(
    extractor: ImageTextExtractor, sources: dict[str, Source], prompts: Sequence[str]
) -> Any:
    """The reference's way, from files to vectors in memory; returns the time spent on data, too."""
    model = extractor._model.model  # type: ignore[union-attr]
    names, waited, rows = list(sources), 0.0, []
    for start in range(0, len(names), THEIR_BATCH):
        begun = time.perf_counter()
        job = Job((), tuple(names[start : start + THEIR_BATCH]))
        samples = [sample for _, sample in samples_of(job, sources, extractor, 0, {})]
        waited += time.perf_counter() - begun
        arrays = extractor._model._on_device(batch(samples))  # type: ignore[union-attr]
        found = []
        for name in prompts:
            ids = extractor._model._tokens(name, samples, False).arrays  # type: ignore[union-attr]
            for _ in range(2):
                output = model(**ids, **arrays, output_hidden_states=True, use_cache=False)
            found.append(output.hidden_states[-1].float().mean(dim=1).cpu().numpy())
        rows.append(np.stack(found, axis=1))
    return np.concatenate(rows), waited


def ours(extractor: ImageTextExtractor, sources: dict[str, Source], workers: int) -> float:
    """Stage 1 from files to rows on the disk; returns the time spent waiting for data."""
    wanted = tuple(range(len(extractor.vectors)))
    with tempfile.TemporaryDirectory() as ledger:
        rows, waited = LedgerRows(extractor, sources, Path(ledger)), Waited()
        with patch.object(one_machine, "in_batches", waited.in_batches):
            one_machine.OneMachine(workers).compute(rows, [Job(wanted, tuple(sources))])
        return waited.seconds


class Waited:
    """Counts the seconds that the model waits for its batches."""

    seconds = 0.0

    def in_batches(self, *given: Any, **options: Any) -> Iterator[Any]:
        """Give the batches that stage 1 makes."""
        batches = in_batches(*given, **options)
        while True:
            started = time.monotonic()
            batch_of_samples = next(batches, None)
            self.seconds += time.monotonic() - started
            if batch_of_samples is None:
                return
            yield batch_of_samples


def prompt_set(folder: Path, count: int, order: str) -> str:
    """A prompt set of so many questions: the paper's two, then aspects."""
    whole: dict[str, Any] = {}
    for name in ("ma_agiqa", "aspects", "correspondence"):
        path = bundled_folder("prompts") / f"{name}.yaml"
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        whole |= {k: v for k, v in tree["prompts"].items() if "{image_prompt}" not in v}
    names = list(whole) + [f"more{n}" for n in range(count - len(whole))]
    chosen = {name: whole.get(name, f"{whole['coherence']} {name}") for name in names[:count]}
    templates = {
        "text_first": "USER: {prompt}\n{image} ASSISTANT:",
        "image_first": "USER: {image}\n{prompt} ASSISTANT:",
    }
    tree = {
        "name": "benchmark",
        "citation": "none",
        "order": order,
        "template": templates[order],
        "pooling": "mean",
        "prompts": chosen,
    }
    path = folder / f"{order}{count}.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return str(path)


def side_by_side(chosen: argparse.Namespace, sources: dict[str, Source]) -> None:
    """Both ways from the same files, in turn."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate = matmul_rate(getattr(torch, chosen.dtype), device)
    print(f"{device.type}: {rate / 1e12:.3f} TFLOP/s measured on a large product, {chosen.dtype}")
    with tempfile.TemporaryDirectory() as folder:
        for order in ("text_first", "image_first"):
            settings = Semantic(
                model=chosen.model,
                dtype=chosen.dtype,
                batch_size=chosen.batch_size,
                precision="float32",
                prompts=prompt_set(Path(folder), 2, order),
            )
            print(f"\n{order}, 2 prompts, {len(sources)} images, {chosen.rounds} rounds")
            compare(ImageTextExtractor(settings), sources, chosen, rate)


def compare(
    extractor: ImageTextExtractor,
    sources: dict[str, Source],
    chosen: argparse.Namespace,
    rate: float,
) -> None:
    """One order of text and image: FLOP, the vectors' difference, and both ways in turn."""
    prompts = list(extractor.prompt_set.prompts)
    some = dict(list(sources.items())[:THEIR_BATCH])
    ours(extractor, some, 0)  # loads the model, and warms up
    few = [sample for _, sample in samples_of(Job((), tuple(some)), sources, extractor, 0, {})]
    vectors = extractor.extract(few, range(len(prompts)))
    counted = {
        "ours": flop(lambda: extractor.extract(few, range(len(prompts)))) / len(few),
        "reference": flop(lambda: theirs(extractor, some, prompts)) / len(few),
    }
    apart = np.abs(np.stack(vectors, 1) - theirs(extractor, some, prompts)[0]).max()
    taken: dict[str, list[float]] = {"ours": [], "reference": []}
    waited: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(chosen.rounds):
        begun = time.perf_counter()
        waited["ours"].append(ours(extractor, sources, chosen.workers))
        taken["ours"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        waited["reference"].append(theirs(extractor, sources, prompts)[1])
        taken["reference"].append(time.perf_counter() - begun)
    for name, values in taken.items():
        speed = len(sources) / statistics.median(values)
        lost = statistics.median(waited[name]) / statistics.median(values)
        print(
            f"  {name:>9}: {speed:.3g} images/s, {counted[name] / 1e9:.1f} GFLOP an image, "
            f"{speed * counted[name] / rate:.0%} of the measured rate, {lost:.0%} of the "
            "time waiting for data"
        )
    ratios = [r / o for r, o in zip(taken["reference"], taken["ours"], strict=True)]
    print(f"  the reference's way takes {statistics.median(ratios):.2f} times as long")
    print(f"  largest difference between the vectors: {apart:.1e}", flush=True)


def growth(chosen: argparse.Namespace, sources: dict[str, Source]) -> None:
    """Images a second by batch size and by prompts an image, the model alone."""
    print("order        prompts  batch  images/s  relative")
    with tempfile.TemporaryDirectory() as folder:
        for order in ("text_first", "image_first"):
            base = None
            for count, size in [(1, 8), (2, 8), (8, 8), (16, 8), (2, 1), (2, 4), (2, 16)]:
                settings = Semantic(
                    model=chosen.model,
                    dtype=chosen.dtype,
                    batch_size=size,
                    prompts=prompt_set(Path(folder), count, order),
                )
                extractor = ImageTextExtractor(settings)
                job = Job((), tuple(list(sources)[:size]))
                samples = [s for _, s in samples_of(job, sources, extractor, 0, {})]
                wanted = range(len(extractor.vectors))
                extractor.extract(samples, wanted)
                times = [
                    seconds(lambda e=extractor, s=samples, w=wanted: e.extract(s, w))  # type: ignore[misc]
                    for _ in range(chosen.rounds)
                ]
                speed = size / statistics.median(times)
                base = base or speed
                print(f"{order:<12} {count:>7}  {size:>5}  {speed:>8.2f}  {speed / base:>8.2f}")


@torch.inference_mode()
def random_weights(chosen: argparse.Namespace) -> None:
    """A published size with random weights made on the device: the passes alone, no files."""
    from transformers import AutoModelForImageTextToText, Qwen3VLConfig

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, chosen.dtype)
    config = Qwen3VLConfig(**SHAPES[chosen.random])
    with device:
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(
            config, dtype=dtype, attn_implementation=chosen.attention
        ).eval()
    if chosen.compile:
        for block in decoder_blocks(model):
            block.compile(dynamic=False)
    rate = matmul_rate(dtype, device)
    size, side = chosen.batch_size, chosen.side
    patch, merge = config.vision_config.patch_size, config.vision_config.spatial_merge_size
    grid = side // patch
    width = 3 * config.vision_config.temporal_patch_size * patch**2
    arrays = {
        "pixel_values": torch.randn(size * grid * grid, width, device=device, dtype=dtype),
        "image_grid_thw": torch.tensor([[1, grid, grid]] * size, device=device),
    }
    tokens = (grid // merge) ** 2
    rng = np.random.default_rng(0)

    def text(before: int, after: int) -> Tokens:
        ids = [*rng.integers(0, 1000, before), config.vision_start_token_id]
        ids += [config.image_token_id] * tokens
        ids += [config.vision_end_token_id, *rng.integers(0, 1000, after)]
        whole = torch.tensor([ids] * size, device=device)
        kinds = (whole == config.image_token_id).int()
        lengths = torch.full((size,), len(ids), device=device)
        return Tokens({"input_ids": whole, "mm_token_type_ids": kinds}, lengths)

    forward = SharedForward(model, ("mean",))
    print(
        f"{chosen.random}: {sum(w.numel() for w in model.parameters()) / 1e9:.2f} billion weights"
    )
    print(f"{device.type}: {rate / 1e12:.3f} TFLOP/s measured on a large product, {chosen.dtype}")
    for order in ("text_first", "image_first"):
        prompts = [text(30, 8) if order == "text_first" else text(0, 38) for _ in range(2)]
        forward.shares = forward.prove(forward.encode(arrays, size), prompts)  # of each order

        def us(prompts: Sequence[Tokens] = prompts) -> Any:
            return forward(forward.encode(arrays, size), prompts)

        def them(prompts: Sequence[Tokens] = prompts) -> None:
            for start in range(0, size, THEIR_BATCH):
                part = slice(start, start + THEIR_BATCH)
                pixels = arrays["pixel_values"].view(size, grid * grid, width)[part].flatten(0, 1)
                for prompt in prompts:
                    ids = {name: array[part] for name, array in prompt.arrays.items()}
                    for _ in range(2):
                        model(
                            **ids,
                            pixel_values=pixels,
                            image_grid_thw=arrays["image_grid_thw"][part],
                            output_hidden_states=True,
                            use_cache=False,
                        )

        us()
        if chosen.profile:
            profile(us)
            continue
        them()
        counted = {"ours": flop(us) / size, "reference": flop(them) / size}
        taken: dict[str, list[float]] = {"ours": [], "reference": []}
        for _ in range(chosen.rounds):
            taken["ours"].append(seconds(us))
            taken["reference"].append(seconds(them))
        print(f"\n{order}, 2 prompts, {side} px, {tokens} tokens an image, batches of {size}")
        for name, values in taken.items():
            speed = size / statistics.median(values)
            print(
                f"  {name:>9}: {speed:.3g} images/s, {counted[name] / 1e12:.4f} TFLOP an image, "
                f"{speed * counted[name] / rate:.0%} of the measured rate"
            )
        ratios = [r / o for r, o in zip(taken["reference"], taken["ours"], strict=True)]
        print(f"  the reference's way takes {statistics.median(ratios):.2f} times as long")
        if device.type == "cuda":
            print(f"  peak memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB, both ways")


def profile(work: Callable[[], Any]) -> None:
    """Print what a batch spends its time on, the ten kernels or operators that take most.

    The share of the wall time that no kernel runs in is what the device waits for the processor.
    """
    cuda = torch.cuda.is_available()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    with torch.profiler.profile(activities=kinds) as recorded:
        wall = seconds(work)
    by = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = recorded.key_averages()
    busy = sum(getattr(event, by) for event in events) / 1e6
    print(events.table(sort_by=by, row_limit=10, max_name_column_width=60))
    print(f"  {wall:.3f} s, of which {busy:.3f} s in kernels: {1 - busy / wall:.0%} are gaps")


def main() -> None:
    """Measure, and print one figure a line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="a folder of images")
    parser.add_argument("--most", type=int, default=48, help="of those")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--random", choices=sorted(SHAPES), help="a size, with random weights")
    parser.add_argument("--attention", default="sdpa", help="with --random: a kernel's name")
    parser.add_argument("--compile", action="store_true", help="with --random: decoder blocks")
    parser.add_argument("--profile", action="store_true", help="with --random: one batch, ours")
    parser.add_argument("--side", type=int, default=512, help="pixels a side, with --random")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2, help="processes that decode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", action="store_true", help="by batch size and prompts instead")
    chosen = parser.parse_args()
    if chosen.random:
        random_weights(chosen)
        return
    if chosen.images is None:
        parser.error("--images is needed, or --random")
    paths = sorted(p for p in chosen.images.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    sources = {(name := image_id(path)): Source(name, path) for path in paths[: chosen.most]}
    if not sources:
        parser.error(f"{chosen.images}: no images")
    (growth if chosen.growth else side_by_side)(chosen, sources)


if __name__ == "__main__":
    main()
