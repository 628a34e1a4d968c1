"""Protocol `cross`: what runs say of data sets that they were not trained on, as one matrix.

The regressors of split s, trained on A's training side s, are tested on B's test side s, so that a
column of the matrix is always the same images. Scores stay on the scale of the training; PLCC after
the logistic and RMSE are mapped to B's scale because they are defined so, SRCC and KRCC need no
scale. A test image of which A's training or validation side holds a copy, or under B's protocol
`grouped` its group or prompt, is left out; under others, shared prompts are counted and stay.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.data.datasets.groups import Relatives
from agiqa.data.datasets.table import ImagesTable, field_name, read_table
from agiqa.data.splits.files import protocols_there, read_protocol, side_rows
from agiqa.data.splits.protocols import default_protocol
from agiqa.runs.evaluate import TestSet, evaluate_on
from agiqa.runs.files import CROSS, DATASETS, Run, load_run, require_unpublished, write_all_results
from agiqa.runs.records import METRICS, read_metrics
from agiqa.stage2.features import Sides
from agiqa.stage2.fit_data import GROUPED, RatedData, dataset_folder, load_fit_data

log = logging.getLogger(__name__)


def cross(
    folders: Sequence[Path], on: Sequence[str], cache: Path | str
) -> list[tuple[Path, dict[str, dict[str, Any]]]]:
    """Test every run on the test sides of every run's data set, and on further data sets.

    What is new is written into RUN/cross/DATASET.

    Returns:
        For each run its folder and, by data set, the metrics of its first target.

    Raises:
        AgiqaError: one data set alone, a published run, one that is not evaluated on its own, no
            features made in the run's way, no target in common, or splits that do not pair.
    """
    runs = [load_run(folder) for folder in folders]
    for run in runs:
        require_unpublished(run)
    columns = {  # whose test sides, by data set; empty: the run's, else the data set's default
        str(about["dataset"]): str(about["protocol"])
        for run in runs
        for about in [run.provenance, *run.provenance["others"]]
    }
    columns |= {name: "" for name in on if name not in columns}
    if len(columns) < 2:
        raise AgiqaError(
            f"Expected runs on at least two data sets, found {', '.join(columns)}: give further "
            "runs, or --on DATASET."
        )
    return [
        (
            run.folder,
            {name: _metrics(run, name, protocol, cache) for name, protocol in columns.items()},
        )
        for run in runs
    ]


def _metrics(run: Run, dataset: str, protocol: str, cache: Path | str) -> dict[str, Any]:
    """The run's metrics on one data set, its own from `evaluate`."""
    trained = list(run.provenance["trained_on"])
    if dataset not in trained:
        table = read_table(folder := dataset_folder(dataset, cache, run.params))
        own = str(run.provenance["protocol"])
        protocol = protocol or (own if own in protocols_there(folder) else default_protocol(table))
        results = evaluate_on(run, _test_set(run, dataset, table, protocol, cache))
        for result in results:
            result.metrics["tested_by"] = protocol
        write_all_results(run.folder / CROSS / dataset, results)
        return results[0].metrics
    folder = run.folder if dataset == trained[0] else run.folder / DATASETS / dataset
    if not (folder / METRICS).is_file():
        raise AgiqaError(
            f"{printable(run.folder)} is not evaluated: run `agiqa evaluate "
            f"{printable(run.folder)}` first."
        )
    metrics = read_metrics(folder)
    if protocol not in ("", metrics["protocol"]):
        raise AgiqaError(
            f"{printable(run.folder)} was fitted on '{dataset}' by the protocol "
            f"{metrics['protocol']}, another run by {protocol}: a column of the matrix needs one."
        )
    return metrics


def _test_set(
    run: Run, dataset: str, table: ImagesTable, protocol: str, cache: Path | str
) -> TestSet:
    """The data set's test sides, without copies of what the run was trained on."""
    by_field = {field_name(target.name): target.name for target in table.targets}
    columns = [by_field.get(field_name(name)) for name in run.provenance["targets"]]
    common = [name for name in columns if name is not None]
    if not common:
        raise AgiqaError(
            f"{printable(run.folder)} predicts {', '.join(run.provenance['targets'])}, and "
            f"'{table.name}' has {', '.join(by_field.values()) or 'no scores'}: "
            "nothing in common to test."
        )
    settings = replace(run.params.fit, target=",".join(common), protocol=protocol)
    data = load_fit_data(dataset, cache, replace(run.params, fit=settings))
    seeds, sides = run.provenance["seeds"], data.sides
    if len(seeds) != len(sides):
        raise AgiqaError(
            f"{printable(run.folder)} has {len(seeds)} splits, '{table.name}' has {len(sides)} by "
            f"the protocol {protocol}: choose a protocol with as many, such as random."
        )
    paired = dict(zip(seeds, sides.values(), strict=True))
    return TestSet(data, _without_relatives(run, data, paired, cache), columns, CROSS)


def _without_relatives(run: Run, data: RatedData, sides: Sides, cache: Path | str) -> Sides:
    """The test sides without relatives of the run's training and validation sides.

    Those are byte-identical images, and under `grouped` images of the same group or prompt.
    """
    frame, by_group = data.table.frame, data.protocol == GROUPED
    held, same_prompt = ({seed: np.zeros(len(frame), dtype=bool) for seed in sides}
                         for _ in range(2))  # fmt: skip
    for about in [run.provenance, *run.provenance["others"]]:
        folder = dataset_folder(str(about["dataset"]), cache, run.params)
        table = read_table(folder)
        relatives = Relatives(table.frame)
        splits = side_rows(read_protocol(folder, table, str(about["protocol"])), table)
        for seed, learnt in splits.items():
            rows = np.concatenate([learnt["train"], learnt["val"]])
            held[seed] |= data.relatives.of(relatives, rows, by_group)
            same_prompt[seed] |= data.relatives.of_prompt(relatives, rows)
    tests = {seed: side["test"][~held[seed][side["test"]]] for seed, side in sides.items()}
    for seed, test in tests.items():
        if not len(test):
            raise AgiqaError(
                f"{printable(run.folder)} was trained on the files or groups of all images that "
                f"split {seed} of '{data.name}' tests: nothing is left to test on; choose another "
                "data set."
            )
    left_out = {
        path for seed, side in sides.items()
        for path in frame["path"].iloc[side["test"][held[seed][side["test"]]]]
    }  # fmt: skip
    trained = ", ".join(run.provenance["trained_on"])
    if left_out:
        groups = " or groups" if data.protocol == GROUPED else ""
        log.warning(
            f"%d images of '%s' are left out of its test sides: %s holds the same files{groups} "
            "for training or validation (%s)",
            *(len(left_out), data.name, trained, some(sorted(left_out), 2)),
        )
    if shared := sum(int(same_prompt[seed][test].sum()) for seed, test in tests.items()):
        log.warning(
            "%d of %d test images of '%s' have a prompt that %s holds for training or validation; "
            "they count",
            *(shared, sum(map(len, tests.values())), data.name, trained),
        )
    return {seed: {**side, "test": tests[seed]} for seed, side in sides.items()}
