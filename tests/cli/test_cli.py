"""The command line: documented throughout, one line for what a user gets wrong, exit 0/1/2."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.stats import spearmanr

from agiqa.cli import COMMANDS, main
from agiqa.data.datasets.table import ImagesTable, read_table, write_table
from agiqa.data.metric_names import FITTED, TOO_FEW_TO_FIT
from agiqa.store import write_pack
from kit.command import agiqa, one_line
from kit.tiny_workspace import copy_workspace

IMAGES = 60
FAST = ["--set=fit.components=8", "--set=fit.semantic_components=4", "--set=fit.epochs=6"]
PREPARE = ["prepare", "mine", "--from", "images/labels.csv", "--image-column", "file"]
PREPARE += ["--score-column", "mos", "--prompt-column", "prompt", "--set=splits.count=3"]


def _commands() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for sub in command.list_commands(context):
                inner = command.get_command(context, sub)
                assert inner is not None
                yield f"{name} {sub}", inner


_fail = partial(agiqa, status=1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real images, their labels, and feature stores that know the answer."""
    folder = tmp_path_factory.mktemp("prepared")
    names = [f"{row:02d}.png" for row in range(IMAGES)]
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for name in names:
        pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
    labels = pd.DataFrame({"file": names, "mos": rng.uniform(1, 5, IMAGES)})
    labels["prompt"] = [f"a {row // 4}" for row in range(IMAGES)]
    labels["maker"] = ["one" if row % 2 else "two" for row in range(IMAGES)]
    labels.to_csv(folder / "images/labels.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        agiqa(*PREPARE, "--generator-column", "maker")
        _write_stores(read_table(Path("cache/mine")))
    return folder


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the test stands."""
    copy_workspace(prepared, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write_stores(table: ImagesTable, model: str = "x") -> None:
    rng = np.random.default_rng(1)
    mos = table.frame["mos"].to_numpy()[:, None, None]
    ids = list(table.frame["image_id"])
    for name, vectors, width in (("nano-vision", ["layer1"], 10), ("nano", ["a", "b"], 6)):
        rows = rng.normal(size=(len(ids), len(vectors), width)) + mos
        prints = [{"extractor": name, "model": model, "vector": vector} for vector in vectors]
        store = Path("cache") / table.name / f"{name}.zarr"
        write_pack(store, name, vectors, prints, ids, rows.astype(np.float16))


def test_every_command_and_option_is_documented_with_examples() -> None:
    for name, command in _commands():
        assert command.help, name
        assert f"agiqa {name}" in command.help, f"{name} has no example"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_examples_keep_their_lines() -> None:
    for name, command in [("", main), *_commands()]:
        examples = [
            line.strip()
            for line in (command.callback.__doc__ or "").splitlines()
            if line.strip().startswith("agiqa ")
        ]
        shown = [line.strip() for line in agiqa(*name.split(), "--help").stdout.splitlines()]
        assert examples, name
        assert set(examples) <= set(shown), name


def test_extractors_for_people_and_programs() -> None:
    plain = agiqa("extractors")
    rows = [line.split("\t") for line in plain.stdout.splitlines()]
    assert {len(row) for row in rows} == {7}
    assert [row[0] for row in rows[:3]] == ["model", "nano", "MAGAer13/mplug-owl2-llama2-7b"]
    listed = json.loads(agiqa("extractors", "--json").stdout)
    assert [each["model"] for each in listed] == [row[0] for row in rows[1:]]
    assert listed[0]["tokens"] == 49
    assert "--set semantic.name=" in agiqa("extractors", "--help").stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_extractors_on_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from agiqa.cli import extract
    from agiqa.stage1.extractors.known_models import KNOWN_MODELS

    monkeypatch.setenv("COLUMNS", str(columns))
    with CliRunner().isolation() as (out, *_):
        extract._print_models(KNOWN_MODELS)
        shown = out.getvalue().decode()
    assert max(map(len, shown.splitlines())) <= columns
    assert "up to 1024" in shown
    assert "dual_encoder" in shown


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\nfrom agiqa.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'transformers', 'pandas', 'zarr', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fit_evaluate_and_json(workspace: Path) -> None:
    fitted = agiqa("fit", "mine", "--target", "mos", "--json", *FAST)
    found = json.loads(fitted.stdout)
    assert found["run"] == "runs/mine/grouped"
    assert found["splits"] == 3
    shown = agiqa("evaluate", "runs/mine/grouped")
    assert "mixture of experts" in shown.stdout
    metrics = json.loads(agiqa("evaluate", "runs/mine/grouped", "--json").stdout)
    for figure, values in metrics["models"]["moe"].items():
        if figure in FITTED:  # of some twelve images a split
            assert (values["median"], values["low"], values["why"]) == (None, None, TOO_FEW_TO_FIT)
        else:  # a test side of three prompts
            assert values["median"] == pytest.approx(values["median"])
            assert (values["low"], values["high"]) == (None, None)
            assert values["why"] == metrics["intervals"]["too_few"]
    predictions = pd.read_csv("runs/mine/grouped/predictions.csv")
    moe = predictions[predictions["model"] == "moe"]
    counts, mos = metrics["outside_scale"], pd.read_csv("images/labels.csv")["mos"]
    assert counts["scores"] == len(moe)
    assert counts["below"] == (moe["score"] < mos.min()).sum()
    assert counts["above"] == (moe["score"] > mos.max()).sum()
    if beyond := counts["below"] + counts["above"]:
        assert f"{beyond} of {len(moe)} test scores of the mixture lie outside" in shown.stdout
    for name, part in moe.groupby("generator"):  # each image counts once, however often tested
        images = part.groupby("path")["score"].mean()
        assert metrics["generators"][name]["images"] == len(images)
        assert metrics["generators"][name]["mean_score"] == pytest.approx(images.mean(), abs=1e-4)
    for row in metrics["per_split"]["moe"]:
        part = moe[moe["seed"] == row["seed"]]
        error = part["score"] - part["mos"]
        assert row["rmse_raw"] == pytest.approx(np.sqrt((error**2).mean()), abs=1e-4)
        assert row["mae"] == pytest.approx(error.abs().mean(), abs=1e-4)
    assert shown.stdout.index("RMSE raw") < shown.stdout.index("RMSE fitted")
    assert metrics["intervals"]["too_few"] == "3 groups on a test side; intervals need 5"
    assert "– 95 % of SRCC, 95 % of RMSE raw, 95 % of MAE: 3 groups" in shown.stdout
    assert f"– PLCC fitted, RMSE fitted: {TOO_FEW_TO_FIT}." in shown.stdout
    assert "nan" not in shown.stdout
    for row in metrics["per_split"]["moe"]:
        assert row["intervals"]["srcc"] == [None, None]
        assert row["why"]["srcc"].endswith("intervals need 5")
    assert metrics["models"]["moe"]["srcc"]["median"] > 0.6
    one_line(_fail("score", "absent.png", "--run", found["run"]), "absent.png: does not exist")
    run = workspace / "runs/mine/grouped"
    kept = {"model.safetensors", "params.yaml", "provenance.json", "curves.csv", "dvclive"}
    kept |= {"prompts.yaml", "predictions.csv", "metrics.json", "summary.json", "scatter.csv"}
    kept |= {"targets"}
    assert {path.name for path in run.iterdir()} == kept
    _predictions_bear_the_metrics_out(run, metrics)
    median = metrics["models"]["moe"]["srcc"]["median"]
    shown = agiqa("table", "--format", "csv").stdout.splitlines()
    assert shown[1].startswith("agiqa: mixture of experts on nano and nano-vision,true,,mine,mos,")
    assert f",{median:.6g}," in shown[1]


def _predictions_bear_the_metrics_out(run: Path, metrics: dict[str, Any]) -> None:
    predictions = pd.read_csv(run / "predictions.csv")
    splits = pd.read_csv("cache/mine/splits/grouped.csv")
    for model, figures in metrics["models"].items():
        rows = predictions[predictions["model"] == model]
        values = []
        for seed, part in rows.groupby("seed"):
            test = splits[(splits["seed"] == seed) & (splits["side"] == "test")]
            assert sorted(part["path"]) == sorted(test["name"])  # every test image, once
            values.append(spearmanr(part["mos"], part["score"]).statistic)
        assert figures["srcc"]["median"] == pytest.approx(np.median(values), abs=1e-3)
        assert figures["srcc"]["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-3)
    gates = predictions.loc[predictions["model"] == "moe", ["gate_visual", "gate_a", "gate_b"]]
    np.testing.assert_allclose(gates.sum(axis=1), 1, atol=1e-4)


def test_settings_are_checked(workspace: Path) -> None:
    one_line(_fail("fit", "mine", "--set", "fit.lrr=1"), "unknown setting 'fit.lrr'", "'fit.lr'")
    one_line(_fail("fit", "mine", "--params", "none.yaml"), "none.yaml")
    honest = ["fit", "mine", "--target", "mos", "--set"]
    absent = _fail(*honest, "fit.protocol=honest")
    one_line(absent, "honest.csv; there are: grouped, random", "agiqa splits import mine")
    one_line(_fail(*honest, "fit.protocol=../x"), "'../x': expected a plain name")
    one_line(_fail(*honest, "fit.protocol=official"), "mine has no official sets", "grouped")
    agiqa("fit", status=2)
    agiqa("fit", "mine", "--nonsense", status=2)
    agiqa("nonsense", status=2)


def test_what_a_user_gets_wrong_isone_line(workspace: Path) -> None:
    one_line(_fail("fit", "yours"), "cache/yours", "prepare")
    one_line(_fail("extract", "yours"), "cache/yours", "prepare")
    one_line(_fail("fit", "mine", "--target", "beauty"), "no target 'beauty'", "--target mos")
    one_line(_fail("fit", "mine", "--target", "mos", "--set", "semantic.name=other"),
              "No feature store cache/mine/other.zarr", "agiqa extract mine")  # fmt: skip
    one_line(_fail("evaluate", "runs/none"), "not a run", "agiqa fit")
    one_line(_fail("report", "runs/none"), "not a run", "agiqa fit")
    one_line(_fail("score", "images", "--run", "runs/none"), "not a run")
    one_line(_fail("prepare", "unknown"), "Unknown data set 'unknown'", "demo")
    one_line(_fail("prepare", "mine", "--from", "images/labels.csv"), "--score-column")
    one_line(_fail("prepare", "mine", "--from", "images/labels.csv", "--image-column", "name",
                   "--score-column", "mos"), "name", "file")  # fmt: skip
    one_line(_fail("prepare", "mine", "--from", "nowhere"), "nowhere")


def test_splits_of_others_from_file_to_evaluation(workspace: Path) -> None:
    names = pd.read_csv("cache/mine/images.csv")["path"]
    theirs = pd.DataFrame({"Image": [name.removesuffix(".png") for name in names]})
    theirs["Set"] = ["training"] * 40 + ["testing"] * 20
    theirs.to_csv("smith.csv", index=False)
    arguments = ["splits", "import", "mine", "smith.csv", "--protocol", "smith2024"]
    one_line(_fail(*arguments), "no val side (found train 40, test 20)", "--val-share 0.125")
    wrong = agiqa(*arguments, "--only-splits", "1-x", status=2)
    assert "expected numbers such as 0-9 or 3" in wrong.stderr
    one_line(_fail(*arguments, "--only-splits", "1-9"), "splits numbered 1 to 9, found 0")
    given = agiqa(*arguments, "--val-share", "0.2", "--only-splits", "0-9")
    assert "1 x 32/8/20" in given.stdout
    assert "60 by stem" in given.stdout
    one_line(_fail(*arguments, "--val-share", "0.4"), "holds other splits already", "--replace")
    agiqa(*arguments, "--val-share", "0.2")
    listed = json.loads(agiqa("splits", "show", "mine", "--json").stdout)
    assert [each["protocol"] for each in listed] == ["grouped", "random", "smith2024"]
    assert "32/8/20" in agiqa("splits", "show", "mine").stdout
    agiqa("fit", "mine", "--target", "mos", "--protocol", "smith2024", *FAST)
    metrics = json.loads(agiqa("evaluate", "runs/mine/smith2024", "--json").stdout)
    assert metrics["protocol"] == "smith2024"
    tested = pd.read_csv("runs/mine/smith2024/predictions.csv")["path"]
    assert set(tested) == set(names[40:])
    agiqa("report", "runs/mine/smith2024")
    agiqa("splits", "export", "mine", "--protocol", "smith2024", "-o", "out.csv")
    shown = agiqa("splits", "export", "mine", "--protocol", "smith2024", "--seed", "0").stdout
    assert shown == Path("out.csv").read_text()
    one_line(_fail("splits", "export", "mine", "--protocol", "smith2024", "--seed", "3"),
              "no split of seed 3; there are: 0")  # fmt: skip
    back = agiqa("splits", "import", "mine", "out.csv", "--protocol", "again")
    assert "60 by path" in back.stdout
    # Other splits under the same name: the run would be tested on what it was trained on.
    agiqa(*arguments, "--val-share", "0.4", "--replace")
    one_line(_fail("evaluate", "runs/mine/smith2024"), "other smith2024 splits", "fit` again")


def test_splits_named_in_the_settings_are_imported_by_prepare(workspace: Path) -> None:
    names = pd.read_csv("cache/mine/images.csv")["path"]
    theirs = pd.DataFrame({"name": names, "side": ["train"] * 40 + ["val"] * 10 + ["test"] * 10})
    theirs.to_csv("smith.csv", index=False)
    settings = {"sources": {"mine": {"splits": {"smith2024": "smith.csv"}}}}
    Path("own.yaml").write_text(json.dumps(settings))
    again = [*PREPARE, "--params", "own.yaml"]
    assert "1x 40/10/10" in agiqa(*again).stdout
    before = Path("cache/mine/images.csv").read_bytes()
    theirs.assign(name="z.png").to_csv("smith.csv", index=False)
    Path("images/labels.csv").write_text(Path("images/labels.csv").read_text().replace("a 3", "b"))
    one_line(_fail(*again), "smith.csv", "60 of 60 names are of no image of mine")
    assert Path("cache/mine/images.csv").read_bytes() == before  # nothing half


def test_audit_for_people_and_programs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGIQA_HASHES", str(workspace / "hashes"))
    result = json.loads(agiqa("splits", "audit", "mine", "--json").stdout)
    assert set(result["protocols"]) == {"grouped", "random"}
    across = result["protocols"]["grouped"]["across"]
    assert all(each["same_prompt"] == each["same_file"] == each["near"] == 0 for each in across)
    leaky = result["protocols"]["random"]["across"][0]
    assert (leaky["side"], leaky["other"]) == ("test", "train")
    assert leaky["same_prompt"] > 0
    shown = agiqa("splits", "audit", "mine", "--protocol", "random")
    assert "test in train" in shown.stdout
    one_line(_fail("splits", "audit", "mine", "--protocol", "mine"), "splits/mine.csv")
    one_line(_fail("splits", "audit", "yours"), "cache/yours", "prepare")


def test_ceiling_needs_deviations(workspace: Path) -> None:
    one_line(_fail("ceiling", "mine"), "deviations are known for no target", "agiqa-3k, ")
    table = read_table(Path("cache/mine"))
    frame = table.frame.assign(mos_sd=0.5)
    targets = (replace(table.targets[0], deviation="mos_sd"),)
    write_table(replace(table, frame=frame, targets=targets), Path("cache/mine"))
    shown = agiqa("ceiling", "mine", "--raters", "25", "--json")
    (found,) = json.loads(shown.stdout)["ceilings"]
    variance = frame["mos"].var()
    assert found["rmse"] == pytest.approx(0.1)
    assert found["reliability"] == pytest.approx(1 - 0.01 / variance)
    assert "0.100" in agiqa("ceiling", "mine", "--raters", "25").stdout
    one_line(_fail("ceiling", "mine", "--target", "align"), "known for mos, not for align")
    frame["n"] = np.where(np.arange(IMAGES) % 2, 4, 16)  # errors of 0.25 and 0.125
    targets = (replace(targets[0], raters="n"),)
    write_table(replace(table, frame=frame, targets=targets), Path("cache/mine"))
    (own,) = json.loads(agiqa("ceiling", "mine", "--json").stdout)["ceilings"]
    assert own["raters"] == 10
    assert own["rmse"] == pytest.approx(np.sqrt((0.25**2 + 0.125**2) / 2))


def test_bad_images_stop_prepare_before_anything_is_written(workspace: Path) -> None:
    (workspace / "images/03.png").write_bytes(b"")
    (workspace / "images/04.png").write_text("no image")
    (workspace / "images/05.png").unlink()
    before = (workspace / "cache/mine/images.csv").read_bytes()
    one_line(_fail(*PREPARE), "3 of 60", "03.png", "--skip-bad")
    assert (workspace / "cache/mine/images.csv").read_bytes() == before
    skipped = agiqa(*PREPARE, "--skip-bad")
    assert len(read_table(Path("cache/mine")).frame) == IMAGES - 3
    assert skipped.stderr.count("Skipped ") == 3


def test_images_without_a_score_are_in_no_metric(
    workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = read_table(Path("cache/mine"))
    secret = table.frame.assign(mos=table.frame["mos"].where(table.frame.index >= 12))
    write_table(replace(table, frame=secret), Path("cache/mine"))
    splits = pd.read_csv("cache/mine/splits/grouped.csv")
    splits[splits["seed"] < 2].to_csv("cache/mine/splits/grouped.csv", index=False)
    agiqa("fit", "mine", "--target", "mos", *FAST)
    assert "12 images have no score 'mos' and are left out" in caplog.text
    agiqa("evaluate", "runs/mine/grouped")
    predictions = pd.read_csv("runs/mine/grouped/predictions.csv")
    assert predictions["mos"].notna().all()
    assert set(predictions["path"]) <= set(table.frame["path"][12:])
    agiqa("report", "runs/mine/grouped")


def test_a_side_without_any_score_isone_line(workspace: Path) -> None:
    table = read_table(Path("cache/mine"))
    splits = pd.read_csv("cache/mine/splits/grouped.csv")
    tested = set(splits["name"][(splits["seed"] == 1) & (splits["side"] == "test")])
    secret = table.frame.assign(mos=table.frame["mos"].where(~table.frame["path"].isin(tested)))
    write_table(replace(table, frame=secret), Path("cache/mine"))
    one_line(_fail("fit", "mine", "--target", "mos", *FAST), "test side of split 1", "'mos'",
              f"{len(tested)} images", "--protocol")  # fmt: skip


def test_other_features_than_the_runs_are_refused_by_name(workspace: Path) -> None:
    agiqa("fit", "mine", "--target", "mos", *FAST)
    _write_stores(read_table(Path("cache/mine")), model="y")
    one_line(_fail("evaluate", "runs/mine/grouped"), "model = 'x'", "found 'y'", "fit again")


def test_images_added_after_extraction_are_named(workspace: Path) -> None:
    more = pd.read_csv("images/labels.csv")
    (workspace / "images/new.png").write_bytes((workspace / "images/00.png").read_bytes() + b" ")
    more.loc[len(more)] = ["new.png", 3.0, "a 99", "one"]
    more.to_csv("images/labels.csv", index=False)
    agiqa(*PREPARE)
    one_line(_fail("fit", "mine", "--target", "mos", *FAST), "agiqa extract")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["prepare", "../out", "--from", "."], "expected a plain name, found '../out'"),
        (["prepare", "demo", "--root", "absent"], "--root is for a CSV; 'demo' is read as demo"),
        (["nano", "--wheels", "not/there"], "'not/there' does not exist"),
        (["fit", "demo", "--preset", "odd"], "'odd' is not one of 'light', 'tuned', 'paper'"),
    ],
)
def test_wrong_usage_exits_with_2(command: list[str], message: str) -> None:
    result = agiqa(*command, status=2)
    assert message in " ".join(result.stderr.split())


def test_debug_shows_the_traceback(workspace: Path) -> None:
    result = agiqa("--debug", "evaluate", "runs/none", status=1)
    assert result.exception is not None
    assert "not a run" in str(result.exception)


def test_a_reader_that_leaves_is_no_error() -> None:
    """`agiqa extractors | head -1`: nothing is said, as with any other tool."""
    code = "import sys; sys.argv = ['agiqa', 'extractors']; from agiqa.cli import main; main()"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.stderr == ""


def test_no_memory_isone_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_taken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("agiqa.cli.extract.print_json", all_taken)
    result = agiqa("extractors", "--json", status=1)
    assert result.stderr.startswith("Error: not enough memory.")
    assert len(result.stderr.splitlines()) == 1
