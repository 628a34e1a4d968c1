"""The leak audit, the comparison of two runs and an evaluation's intervals, on synthetic rows.

Makes a data set of 20,000 rows (no images: their hashes are put into a cache of its own) and two
evaluated runs of ten grouped splits, then runs each command in a process of its own and prints its
wall time, CPU time and peak memory.

    python benchmarks/protocols.py [--rows 20000]
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from processes import cost_of

from agiqa.data import leak_audit
from agiqa.data.datasets.table import ImagesTable, Target, write_table
from agiqa.data.metrics import all_metrics
from agiqa.data.splits.files import leaks, write_splits
from agiqa.data.splits.protocols import make_splits

IMAGES_A_PROMPT = 10
COMMAND = "import sys; sys.argv[0] = 'agiqa'; from agiqa.cli import main; main()"


def main() -> None:
    """Make the rows, run the commands, print what they took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["AGIQA_HASHES"] = folder
        _make(rows)
        for arguments in (
            ["splits", "audit", "rows", "--json"],
            ["compare", "runs/one", "runs/two", "--json"],
            ["compare", "runs/one", "runs/two", "runs/one:ridge", "--by-generator"],
        ):
            command = [sys.executable, "-c", COMMAND, *arguments]
            seconds, busy, mebibytes = cost_of(command)
            what = f"agiqa {' '.join(arguments)}"
            print(f"{what:<68} {seconds:5.1f} s, {busy:5.1f} s of CPU, {mebibytes:4.0f} MiB")


def _make(rows: int) -> None:
    rng = np.random.default_rng(0)
    ids = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(rows)]
    prompts = [f"prompt {row // IMAGES_A_PROMPT}" for row in range(rows)]
    frame = pd.DataFrame(
        {
            "image_id": ids,
            "path": [f"{row:06d}.png" for row in range(rows)],
            "prompt": prompts,
            "group": prompts,
            "generator": [f"generator {row % 15}" for row in range(rows)],
            "quality": rng.uniform(0, 5, rows),
        }
    )
    target = Target("quality", 0.0, 5.0)
    table = ImagesTable("rows", Path(), frame, (target,), True, "none", "a benchmark")
    folder = Path("cache/rows")
    write_table(table, folder)
    for protocol in ("grouped", "random", "paper"):
        write_splits(make_splits(table, protocol), folder / "splits" / f"{protocol}.csv")
    hashes = rng.integers(0, 2**64, rows, dtype=np.uint64)
    hashes[: rows // 100] = hashes[rows // 100 : 2 * (rows // 100)] ^ np.uint64(5)  # near pairs
    with leak_audit._cache(leak_audit.hashes_file()) as cache, closing(cache):
        stored = [int(each).to_bytes(8, "big") for each in hashes]
        leak_audit.keep_hashes(cache, dict(zip(ids, stored, strict=True)))
    splits = make_splits(table, "grouped")
    for number, name in enumerate(("one", "two")):
        _run(table, splits, Path("runs") / name, np.random.default_rng(number))


def _run(table: ImagesTable, splits: pd.DataFrame, run: Path, rng: np.random.Generator) -> None:
    columns = ["path", "image_id", "generator", "group", "quality"]
    tested = splits[splits["side"] == "test"].merge(
        table.frame[columns], left_on=["name", "image_id"], right_on=["path", "image_id"]
    )
    tested = tested.rename(columns={"quality": "mos"}).drop(columns=["name", "side", "protocol"])
    parts = [
        tested.assign(model=model, score=tested["mos"] + rng.normal(0, noise, len(tested)))
        for model, noise in (("ridge", 1.0), ("visual", 0.9), ("moe", 0.8))
    ]
    predictions = pd.concat(parts, ignore_index=True)
    per_split = {
        str(model): [
            {"seed": int(str(seed)), "images": len(part), **all_metrics(part["mos"], part["score"])}
            for seed, part in rows.groupby("seed")
        ]
        for model, rows in predictions.groupby("model")
    }
    run.mkdir(parents=True)
    predictions.to_csv(run / "predictions.csv", index=False, float_format="%.6g")
    (run / "metrics.json").write_text(json.dumps({"per_split": per_split}))
    (run / "params.yaml").write_text("{}")
    (run / "model.safetensors").touch()
    provenance = {
        "format": "agiqa-run", "layout": 1, "dataset": "rows", "target": "quality",
        "protocol": "grouped", "synthetic": True,
        "leaks": [vars(leak) for leak in leaks(splits, table)],
    }  # fmt: skip
    (run / "provenance.json").write_text(json.dumps(provenance))


if __name__ == "__main__":
    main()
