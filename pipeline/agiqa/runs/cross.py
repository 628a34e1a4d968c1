"""Protocol `cross`: what runs say of data sets that they were not trained on, as one matrix.

The regressors of split s, trained on A's training side s, are tested on B's test side s, so that a
column of the matrix is always the same images. Scores stay on the scale of the training; PLCC after
the logistic and RMSE are mapped to B's scale because they are defined so, SRCC and KRCC need no
scale. A test image of which A's training or validation side holds a copy, or under B's protocol
`grouped` its group or prompt, is left out; under others, shared prompts are counted and stay.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.data.datasets.groups import Relatives
from agiqa.data.datasets.table import read_table
from agiqa.data.datasets.targets import field_name
from agiqa.data.splits import default_protocol, protocols_there, read_protocol, side_rows
from agiqa.runs.evaluate import Exam, evaluate
from agiqa.runs.files import Run, load_run
from agiqa.runs.fit import DATASETS, write_evaluations
from agiqa.runs.records import METRICS, read_metrics
from agiqa.stage2.fit_data import GROUPED, Material, Sides, load_material, packs
from agiqa.store.cache_folder import at_hand

log = logging.getLogger(__name__)

CROSS = "cross"  # the protocol, and the folder in a run


@dataclass(frozen=True)
class Tested:
    """A column of the matrix."""

    dataset: str
    protocol: str  # whose test sides; empty: the run's, else the data set's default


def cross(
    folders: Sequence[Path], on: Sequence[str], cache: Path | str
) -> list[tuple[Path, dict[str, dict[str, Any]]]]:
    """Test every run on the test sides of every run's data set, and on further data sets.

    What is new is written into RUN/cross/DATASET.

    Returns:
        For each run its folder and, by data set, the metrics of its first target.

    Raises:
        AgiqaError: one data set alone, a run that is not evaluated on its own, no features made in
            the run's way, no target in common, or splits that do not pair.
    """
    runs = [load_run(folder) for folder in folders]
    columns = {
        str(about["dataset"]): Tested(str(about["dataset"]), str(about["protocol"]))
        for run in runs
        for about in [run.provenance, *run.provenance["others"]]
    }
    columns |= {name: Tested(name, "") for name in on if name not in columns}
    if len(columns) < 2:
        raise AgiqaError(
            f"Expected runs on at least two data sets, found {', '.join(columns)}: give further "
            "runs, or --on DATASET."
        )
    return [
        (run.folder, {each.dataset: _tested(run, each, cache) for each in columns.values()})
        for run in runs
    ]


def _tested(run: Run, column: Tested, cache: Path | str) -> dict[str, Any]:
    """The run's metrics on one data set, its own from `evaluate`."""
    trained = list(run.provenance["trained_on"])
    if column.dataset in trained:
        folder = run.folder if column.dataset == trained[0] else run.folder / DATASETS
        if folder != run.folder:
            folder = folder / column.dataset
        if not (folder / METRICS).is_file():
            raise AgiqaError(
                f"{printable(run.folder)} is not evaluated: run `agiqa evaluate "
                f"{printable(run.folder)}` first."
            )
        metrics = read_metrics(folder)
        if column.protocol not in ("", metrics["protocol"]):
            raise AgiqaError(
                f"{printable(run.folder)} was fitted on '{column.dataset}' by the protocol "
                f"{metrics['protocol']}, another run by {column.protocol}: a column of the matrix "
                "needs one."
            )
        return metrics
    exam = _exam(run, column, cache)
    evaluations = evaluate(run, exam)
    for each in evaluations:
        each.metrics["tested_by"] = exam_protocol(run, column, cache)
    write_evaluations(run.folder / CROSS / column.dataset, evaluations)
    return evaluations[0].metrics


def exam_protocol(run: Run, column: Tested, cache: Path | str) -> str:
    """Whose test sides of the column's data set: as told, else the run's own, else its default."""
    if column.protocol:
        return column.protocol
    folder = at_hand(cache, column.dataset, packs(run.params)) / column.dataset
    mine = str(run.provenance["protocol"])
    return mine if mine in protocols_there(folder) else default_protocol(read_table(folder))


def _exam(run: Run, column: Tested, cache: Path | str) -> Exam:
    """The data set's test sides, without copies of what the run was trained on."""
    folder = at_hand(cache, column.dataset, packs(run.params)) / column.dataset
    table = read_table(folder)
    theirs = {field_name(each.name): each.name for each in table.targets}
    columns = [theirs.get(field_name(name)) for name in run.provenance["targets"]]
    there = [name for name in columns if name is not None]
    if not there:
        raise AgiqaError(
            f"{printable(run.folder)} predicts {', '.join(run.provenance['targets'])}, and "
            f"'{table.name}' has {', '.join(each.name for each in table.targets) or 'no scores'}: "
            "nothing in common to test."
        )
    protocol = exam_protocol(run, column, cache)
    settings = replace(run.params.fit, target=",".join(there), protocol=protocol)
    material = load_material(column.dataset, cache, replace(run.params, fit=settings))
    seeds, sides = run.provenance["seeds"], material.sides
    if len(seeds) != len(sides):
        raise AgiqaError(
            f"{printable(run.folder)} has {len(seeds)} splits, '{table.name}' has {len(sides)} by "
            f"the protocol {protocol}: choose a protocol with as many, such as random."
        )
    paired = dict(zip(seeds, sides.values(), strict=True))
    return Exam(
        material.table, material.features, _without_relatives(run, material, paired, cache),
        columns, CROSS, splits_sha256=material.digest,
    )  # fmt: skip


def _without_relatives(run: Run, material: Material, sides: Sides, cache: Path | str) -> Sides:
    """The test sides without relatives of the run's training and validation sides.

    Those are byte-identical images, and under `grouped` images of the same group or prompt.
    """
    tested = Relatives(material.table.frame)
    held, seen = ({seed: np.zeros(len(material.table.frame), dtype=bool) for seed in sides}
                  for _ in range(2))  # fmt: skip
    for about in [run.provenance, *run.provenance["others"]]:
        name = str(about["dataset"])
        folder = at_hand(cache, name, packs(run.params)) / name
        table = read_table(folder)
        relatives = Relatives(table.frame)
        splits = side_rows(read_protocol(folder, table, str(about["protocol"])), table)
        for seed, learnt in splits.items():
            rows = np.concatenate([learnt["train"], learnt["val"]])
            held[seed] |= tested.of(relatives, rows, material.protocol == GROUPED)
            seen[seed] |= tested.of_prompt(relatives, rows)
    found: dict[int, Mapping[str, np.ndarray]] = {}
    left_out: set[str] = set()
    shared = count = 0
    for seed, side in sides.items():
        test = side["test"]
        kept = test[~held[seed][test]]
        left_out |= set(material.table.frame["path"].iloc[test[held[seed][test]]])
        shared += int(seen[seed][kept].sum())
        count += len(kept)
        found[seed] = {**side, "test": kept}
        if not len(kept):
            raise AgiqaError(
                f"{printable(run.folder)} was trained on the files or groups of all images that "
                f"split {seed} of '{material.name}' tests: nothing is left to test on; choose "
                "another data set."
            )
    trained = ", ".join(run.provenance["trained_on"])
    if left_out:
        log.warning(
            "%d images of '%s' are left out of its test sides: %s holds the same files%s for "
            "training or validation (%s)",
            len(left_out),
            material.name,
            trained,
            " or groups" if material.protocol == GROUPED else "",
            some(sorted(left_out), 2),
        )
    if shared:
        log.warning(
            "%d of %d test images of '%s' have a prompt that %s holds for training or validation; "
            "they count",
            shared,
            count,
            material.name,
            trained,
        )
    return found
