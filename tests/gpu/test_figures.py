"""The table at the end of benchmarks/gpu/run.sh: each figure out of its step's own output, and with
the file that it rests on `make evidence` takes it."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kit.making import load_script

Script = Callable[[str], ModuleType]
MACHINE = {"card": "NVIDIA H200, 570.1, 143771 MiB", "cuda": "13.0", "python": "3.12.3",
           "torch": "2.11.0", "transformers": "5.23.0", "cpus": "16", "tiny": False}  # fmt: skip
SRCC = {"median": 0.87737, "low": 0.8576, "high": -0.0123}
METRICS = {"models": {"moe": {"srcc": SRCC, "plcc": {"median": 0.92076}}}, "splits": 10}
PAIR = {"figures": {"srcc": {"mean": -0.0041, "image_low": -0.00801, "image_high": 0.00044}}}
OUTPUTS = {  # what a step prints, as of its script, and what of it the table shows
    "tests": ("....s\n24 passed, 1 skipped, 9 deselected in 61.20s (0:01:01)\n",
              "24 passed, 1 skipped, 9 deselected"),
    "mplug-owl2-32": (
        "6.74 billion weights without the head, torch.bfloat16, batches of 32\n"
        "cuda: 781.20 TFLOP/s measured on a large product\n"
        "     ours: 128.40 images/s, 3.1200 TFLOP an image, 400.608 TFLOP/s, 51% of the measured "
        "rate, peak memory 21.3 GB\n"
        "reference: 23.10 images/s, 8.4000 TFLOP an image, 194.040 TFLOP/s, 25% of the measured "
        "rate, peak memory 33.0 GB\n"
        "the reference's way takes 5.56 times as long\n"
        "largest difference of a vector's element between the two: 1.2e-03\n",
        "products 781.20 TFLOP/s; ours 128.40 images/s, 51 % of products, peak memory 21.3 GB; "
        "reference 23.10 images/s, 25 % of products, peak memory 33.0 GB; reference 5.56 times as "
        "long",
    ),
    "qwen3-vl-8b": (
        "qwen3-vl-8b: 8.77 billion weights\n"
        "cuda: 781.234 TFLOP/s measured on a large product, bfloat16\n"
        "\ntext_first, 2 prompts, 512 px, 256 tokens an image, batches of 32\n"
        "       ours: 61.2 images/s, 6.1000 TFLOP an image, 48% of the measured rate\n"
        "  reference: 14.9 images/s, 24.4000 TFLOP an image, 47% of the measured rate\n"
        "  the reference's way takes 4.11 times as long\n"
        "  peak memory 40.2 GB, both ways\n",
        "products 781.234 TFLOP/s; `text_first`: ours 61.2 images/s, 48 % of products; reference "
        "14.9 images/s, 47 % of products; reference 4.11 times as long; peak memory 40.2 GB",
    ),
    "qwen3-vl-8b-profile": (
        "  0.512 s, of which 0.498 s in kernels: 3% are gaps\n",
        "a batch 0.512 s, 0.498 s in kernels, 3 % gaps",
    ),
    "vectors": (
        "Reading\n/a b/cache/agiqa-3k/nano.zarr: 2982 images x 2 vectors x 576; 0 cached, 5964 "
        "computed in 45 s (66.3 images/s)\n",
        "nano 66.3 images/s",
    ),
    "fit-bfloat16": (
        "Split 0, epoch 1 of 2: loss 0.8123, validation SRCC 0.1000, PLCC nan, 31.2 s\n"
        "Split 0, epoch 2 of 2: loss 0.6001, validation SRCC 0.2000, PLCC 0.1, 30.1 s\n",
        "loss 0.8123, at the end 0.6001; an epoch 30.1 s",
    ),
    "evaluate-light-ipce": (
        json.dumps(METRICS) + "\n", "SRCC .877 (.858 to -.012); PLCC .921"
    ),
    "compare-ipce": (
        json.dumps({"comparisons": [PAIR]}) + "\n", "SRCC -.0041 (-.0080 to +.0004)"
    ),
    "regressor": (
        "full size: 768 wide, 384 px in patches of 16; batches of 8; NVIDIA H200\n"
        "ours-bf16: 212.30 images/s in training steps\n"
        "ours-bf16 at its best batch, 64: 401.5 images/s, 61.0 GB\n",
        "ours-bf16 212.30 images/s in training steps; ours-bf16 at batch 64 401.5 images/s, "
        "61.0 GB",
    ),
    "ray": (
        "plain           812            907      30      +0 %   600, 610, 620\n"
        "1 actor         411            700      40     +33 %   600, 610, 620\n",
        "plain 812 images/s, 907 after the start; 1 actor 411 images/s, 700 after the start",
    ),
}  # fmt: skip


def row(step: str, **fields: Any) -> dict[str, Any]:
    return {"stage": "works", "step": step, "machine": MACHINE, "status": 0, "seconds": 61.4,
            "output": ""} | fields  # fmt: skip


ROWS = [
    row("tests", output="Traceback\nMemoryError | \x1b[2J<b> 17.25 s\n", status=1, seconds=9.5),
    *(row(step, output=output) for step, (output, _) in OUTPUTS.items()),
    row("slow", status="over 60 s", seconds=60.1),
    {"stage": "ray", "step": "left", "machine": MACHINE, "status": "left out",
     "why": "the module ray is not there"},
]  # fmt: skip


@pytest.mark.parametrize("step", OUTPUTS)
def test_a_cell_has_what_the_step_printed(script: Script, step: str) -> None:
    output, cell = OUTPUTS[step]
    assert script("figures").shown(row(step, output=output)) == cell


def test_a_step_without_figures_says_why(script: Script) -> None:
    shown = script("figures").shown
    assert shown(ROWS[0]) == r"failed: MemoryError \| [2J\<b> 17.25 s"
    assert shown(row("x", status="over 60 s")) == "failed: over 60 s"
    assert shown(row("x", status=-9)) == "failed: it printed nothing"
    few = {"models": {"moe": {"srcc": {"median": 0.84, "low": None, "high": None},
                              "plcc": {"median": None}}}}  # fmt: skip
    assert shown(row("x", output=json.dumps(few))) == "SRCC .840; PLCC –"
    assert shown(ROWS[-1]) == "the module ray is not there"
    assert shown(row("x", output='{"models": {"moe": 3}}\n{"comparisons": 1}\n{"models"')) == ""


def test_the_table_is_markdown_and_rests_on_its_file(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, evidence = script("figures"), load_script("evidence")
    (tmp_path / "docs/results").mkdir(parents=True)
    path = figures.write_evidence(ROWS, tmp_path / "docs/results", "2026-11-28")
    assert path.name == "gpu-h200.txt"
    table = figures.table(ROWS)
    lines = table.splitlines()
    assert lines[:5] == ["<!-- evidence: gpu-h200.txt -->", "",
                         "NVIDIA H200, 570.1, 143771 MiB, cuda 13.0, python 3.12.3, torch 2.11.0, "
                         "transformers 5.23.0, 16 processors:", "",
                         "| stage | step | s | what it shows |"]  # fmt: skip
    assert len(lines) == 6 + len(OUTPUTS) + 2, "a step's last line counts"
    assert f"| `works` | `tests` | 61.4 | {OUTPUTS['tests'][1]} |" in lines
    page = tmp_path / "docs/gpu.md"
    page.write_text(f"# On a GPU\n\n{table}\n")
    assert evidence.main(tmp_path) == 0, capsys.readouterr().out
    page.write_text(page.read_text().replace("128.40", "129.40"))
    assert evidence.main(tmp_path) == 1


def test_without_a_card_it_rests_on_the_trial(script: Script) -> None:
    figures = script("figures")
    machine = {"card": "none", "torch": "2.13.0", "tiny": True}
    assert figures.evidence_name(machine) == "gpu-script.txt"
    assert figures.words(machine) == "no card, torch 2.13.0, tiny sizes"
    assert figures.table([]) == "no step has run"
