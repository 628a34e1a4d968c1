"""The steps of benchmarks/gpu/run.sh: what each runs, its stage's seconds, and what it needs."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BUDGETS = {"works": 90, "extraction": 150, "agiqa3k": 150, "paper": 120, "ray": 60}  # seconds
BENCHMARKS = Path(__file__).resolve().parents[1]
REPOSITORY = BENCHMARKS.parent
GPU_TESTS = ("tests/gpu", "tests/stage2/tuned/test_commands.py", "tests/stage2/paper",
             "tests/runs/test_score.py", "tests/views/server/test_api.py")  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One command, and what it is left out without."""

    stage: str
    name: str
    command: tuple[str, ...]
    limit: int  # seconds
    needs: str = ""  # an entry of the bundle, or a module
    after: tuple[str, ...] = ()  # steps whose results it takes


def benchmark(stage: str, name: str, words: str, limit: int, needs: str = "") -> Step:
    """A benchmark's script with its words."""
    script, *rest = words.split()
    return Step(stage, name, (sys.executable, str(BENCHMARKS / script), *rest), limit, needs)


def agiqa(stage: str, name: str, words: str, limit: int, needs: str, *after: str) -> Step:
    """A command of agiqa's."""
    command = (sys.executable, "-m", "agiqa", *words.split())
    return Step(stage, name, command, limit, needs, after)


def steps(tiny: bool) -> Iterator[Step]:
    """All steps, in order of worth; with `tiny` of sizes that a CPU has done in minutes."""
    pytest = f"{sys.executable} -m pytest -q -m gpu -p no:cacheprovider"
    if not tiny and importlib.util.find_spec("xdist"):
        pytest += " -n 4"
    tests = (*pytest.split(), *GPU_TESTS)
    yield Step("works", "tests", tests, 90)
    if tiny:
        yield benchmark("extraction", "mplug-owl2", "mplug_owl2.py --tiny --rounds 1", 60)
        shape = "extraction.py --random tiny --side 128 --rounds 1 --batch-size 2"
        yield benchmark("extraction", "tiny", shape, 60)
        yield benchmark("extraction", "tiny-profile", f"{shape} --profile", 60)
        yield benchmark("extraction", "tiny-eager", f"{shape} --attention eager", 60)
    else:
        yield from _full_size()
    if tiny:
        sizes = "image_size=32 patch_size=4 width=16 heads=2 layers_run=[0,1] swin_mlp=16"
        small = " ".join(f"--set paper.network.{size}" for size in sizes.split())
        yield from _data_set("demo", 2, small, "")
    else:
        yield from _data_set("agiqa-3k", 10, "", "--from DATA")
    words = "regressor.py --size tiny --rounds 1" if tiny else "regressor.py --rounds 3"
    yield benchmark("paper", "regressor", words, 60)
    size = "--images 2000" if tiny else "--images 20000 --side 224"
    yield benchmark("ray", "ray", f"scale.py {size}", 60, "ray")


def _full_size() -> Iterator[Step]:
    for size in (32, 128):
        yield benchmark(
            "extraction", f"mplug-owl2-{size}", f"mplug_owl2.py --rounds 3 --batch-size {size}", 50
        )
    for shape in ("qwen3-vl-2b", "qwen3-vl-8b"):
        words = f"extraction.py --random {shape} --dtype bfloat16 --rounds 3"
        yield benchmark("extraction", shape, f"{words} --batch-size 32", 60)
    words = "extraction.py --random qwen3-vl-8b --dtype bfloat16 --rounds 3 --batch-size 32"
    yield benchmark("extraction", "qwen3-vl-8b-profile", f"{words} --profile", 40)
    yield benchmark("extraction", "qwen3-vl-8b-compiled", f"{words} --compile", 60)
    flash = f"{words} --attention flash_attention_2"
    yield benchmark("extraction", "qwen3-vl-8b-flash", flash, 40, "flash_attn")


def _data_set(name: str, splits: int, paper: str, source: str) -> Iterator[Step]:
    """A real data set: vectors, tokens, `light`, `tuned` and `paper` on the same splits."""
    tokens, protocols = "--set visual.tokens=10", ["grouped", *(["ipce"] if source else [])]
    bundled = "agiqa-3k" if source else ""
    prepare = f"prepare {name} {source} --set splits.count={splits}"
    imported = f"splits import {name} IPCE --protocol ipce --val-share 0.125"
    yield agiqa("agiqa3k", "nano", "nano", 60, "nano" if source else "")
    yield agiqa("agiqa3k", "prepare", prepare, 60, bundled)
    if source:
        yield agiqa("agiqa3k", "ipce", imported, 60, "ipce.csv", "prepare")
    yield agiqa("agiqa3k", "vectors", f"extract {name}", 90, "", "nano", "prepare")
    extract = f"extract {name} --only tokens {tokens}"
    yield agiqa("agiqa3k", "tokens", extract, 60, "", "nano", "prepare")
    for protocol in protocols:
        dealt = ("ipce",) if protocol == "ipce" else ()
        for preset in ("light", "tuned"):
            run, taken = f"{preset}-{protocol}", ("vectors", "tokens")[: 1 + (preset == "tuned")]
            fit = f"fit {name} --protocol {protocol} --set fit.preset={preset} -o {run} --replace"
            yield agiqa("agiqa3k", f"fit-{run}", f"{fit} {tokens}", 120, "", *taken, *dealt)
            evaluate = f"evaluate {run} --json"
            yield agiqa("agiqa3k", f"evaluate-{run}", evaluate, 60, "", f"fit-{run}")
        compare = f"compare light-{protocol} tuned-{protocol} --json"
        evaluated = (f"evaluate-light-{protocol}", f"evaluate-tuned-{protocol}")
        yield agiqa("agiqa3k", f"compare-{protocol}", compare, 60, "", *evaluated)
    for precision in ("float32", "bfloat16"):
        protocol = "paper" if source else "grouped"  # the paper's is one split
        fit = f"fit {name} --set fit.preset=paper --protocol {protocol} -o paper-{precision}"
        fit += f" --replace --set paper.epochs=2 --set paper.precision={precision} {paper}"
        fit += " --set paper.backbone=none"
        yield agiqa("paper", f"fit-{precision}", fit, 90, "", "vectors")
