"""The steps of benchmarks/gpu/run.sh: what each runs, its stage's seconds, and what it needs.

Each step is a command in a process of its own, killed at its limit; what it printed, how long it
took and on which machine go into OUT/results.jsonl as one line.
"""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BUDGETS = {"works": 90, "extraction": 150, "agiqa3k": 150, "paper": 120, "ray": 60}  # seconds
KEPT = 6000  # characters of what a step printed, its end
BENCHMARKS = Path(__file__).resolve().parents[1]
GPU_TESTS = ("tests/gpu", "tests/stage2/tuned/test_commands.py", "tests/stage2/paper",
             "tests/runs/test_score.py", "tests/views/server/test_api.py")  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One command, and the module or file without which it is left out."""

    stage: str
    name: str
    command: tuple[str, ...]
    limit: int  # seconds
    needs: str = ""


def benchmark(stage: str, name: str, words: str, limit: int, needs: str = "") -> Step:
    """A benchmark's script with its words."""
    script, *rest = words.split()
    return Step(stage, name, (sys.executable, str(BENCHMARKS / script), *rest), limit, needs)


def agiqa(stage: str, name: str, words: str, limit: int, needs: str) -> Step:
    """A command of agiqa's."""
    return Step(stage, name, (sys.executable, "-m", "agiqa", *words.split()), limit, needs)


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
        yield agiqa("agiqa3k", "ipce", imported, 60, "ipce.csv")
    yield agiqa("agiqa3k", "vectors", f"extract {name}", 90, bundled)
    yield agiqa("agiqa3k", "tokens", f"extract {name} --only tokens {tokens}", 60, bundled)
    for protocol in protocols:
        for preset in ("light", "tuned"):
            run = f"{preset}-{protocol}"
            fit = f"fit {name} --protocol {protocol} --set fit.preset={preset} -o {run} --replace"
            yield agiqa("agiqa3k", f"fit-{run}", f"{fit} {tokens}", 120, bundled)
            yield agiqa("agiqa3k", f"evaluate-{run}", f"evaluate {run} --json", 60, bundled)
        compare = f"compare light-{protocol} tuned-{protocol} --json"
        yield agiqa("agiqa3k", f"compare-{protocol}", compare, 60, bundled)
    for precision in ("float32", "bfloat16"):
        protocol = "paper" if source else "grouped"  # the paper's is one split
        fit = f"fit {name} --set fit.preset=paper --protocol {protocol} -o paper-{precision}"
        fit += f" --replace --set paper.epochs=2 --set paper.precision={precision} {paper}"
        yield agiqa("paper", f"fit-{precision}", f"{fit} --set paper.backbone=none", 90, bundled)


def main() -> None:
    """Run what has no result yet, stage by stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("stages", nargs="*", help=f"of {', '.join(BUDGETS)}; all by default")
    parser.add_argument("--bundle", type=Path, default=Path(".gpu/unpacked"))
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_intermixed_args()
    for stage in chosen.stages:
        if stage not in BUDGETS:
            parser.error(f"expected a stage of {', '.join(BUDGETS)}; found {stage}")
    results = chosen.out / "results.jsonl"
    lines = results.read_text().splitlines() if results.exists() else []
    done = {(row["stage"], row["step"]) for row in map(json.loads, lines) if not row["status"]}
    work, left = chosen.out / "work", {k: float(v) for k, v in BUDGETS.items()}
    if chosen.tiny:
        left = dict.fromkeys(left, 3600.0)
    work.mkdir(exist_ok=True)
    environment = _environment(work, chosen.bundle)
    about = machine()
    print(json.dumps(about))
    for step in steps(chosen.tiny):
        if step.stage not in (chosen.stages or BUDGETS) or (step.stage, step.name) in done:
            continue
        line: dict[str, object] = {"stage": step.stage, "step": step.name, "machine": about}
        if why := _left_out(step, chosen.bundle, left[step.stage]):
            line |= {"status": "left out", "why": why}
        else:
            command = [_path(word, chosen.bundle) for word in step.command]
            limit = left[step.stage] if chosen.tiny else min(step.limit, left[step.stage])
            begun = time.monotonic()
            status, output = run(command, environment, work, limit)
            seconds = time.monotonic() - begun
            left[step.stage] -= seconds
            line |= {"status": status, "seconds": round(seconds, 1),
                     "command": " ".join(command), "output": output[-KEPT:]}  # fmt: skip
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{step.stage:>11} {step.name:<22} {line['status']!s:<9} "
              f"{line.get('seconds', line.get('why'))}", flush=True)  # fmt: skip


def _environment(work: Path, bundle: Path) -> dict[str, str]:
    """The process's variables, with a ledger and models of this run's own."""
    models = work.resolve() / "models"
    (models / "wheels").mkdir(parents=True, exist_ok=True)
    for wheel in (bundle / "nano").glob("*.whl"):
        shutil.copy(wheel, models / "wheels")
    own = {"AGIQA_STORE": str(work.resolve() / "ledger")}
    if any((bundle / "nano").glob("*.whl")):
        own["AGIQA_MODELS"] = str(models)
    if (params := BENCHMARKS.parent / "params.yaml").is_file():
        shutil.copy(params, work)
    return os.environ | own


def _left_out(step: Step, bundle: Path, left: float) -> str:
    """Why a step cannot run; empty where it can."""
    if left < 10:
        return "its stage's time is used up"
    needs = step.needs
    if not needs or (bundle / needs).exists() or importlib.util.find_spec(needs.split(".")[0]):
        return ""
    return f"{needs} is not there"


def _path(word: str, bundle: Path) -> str:
    names = {"DATA": "agiqa-3k", "IPCE": "ipce.csv"}
    return str((bundle / names[word]).resolve()) if word in names else word


def run(
    command: list[str], environment: dict[str, str], work: Path, limit: float
) -> tuple[int | str, str]:
    """The command's exit status, or why it has none, and what it printed.

    Tests run in the repository, all else in `work`.
    """
    folder = BENCHMARKS.parent if "pytest" in command else work
    process = subprocess.Popen(command, cwd=folder, env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               process_group=0)  # fmt: skip
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        return f"over {limit:.0f} s", process.communicate()[0]
    return process.returncode, output


def machine() -> dict[str, str]:
    """Card, driver and versions, which every figure needs beside it."""
    import torch
    import transformers

    about = {"python": platform.python_version(), "torch": torch.__version__,
             "transformers": transformers.__version__, "cpus": str(os.cpu_count())}  # fmt: skip
    if not torch.cuda.is_available():
        return about | {"card": "none"}
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    card = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return about | {"card": card or torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}


if __name__ == "__main__":
    main()
