"""Several targets, several data sets, and runs on data sets that they have not seen."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Fit
from agiqa.data.datasets.table import ImagesTable, Target, write_table
from agiqa.data.splits.files import write_splits
from agiqa.data.splits.protocols import make_splits
from agiqa.stage2.features import Features, Scales, Targets
from agiqa.stage2.light.training import fit_light
from agiqa.store import write_pack
from kit.command import agiqa, refusal

SETTINGS = Fit(components=12, semantic_components=6)
FAST = ["--set=fit.components=8", "--set=fit.semantic_components=4", "--set=fit.epochs=4"]
SEMANTIC = 6


def _world(images: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True quality and alignment of images, and vectors that show the first and say the second."""
    rng = np.random.default_rng(seed)
    quality, alignment = rng.normal(size=(2, images))
    visual = rng.normal(size=(images, 12)) * 0.5
    visual[:, 0] += quality
    semantic = rng.normal(size=(images, 2, SEMANTIC)) * 0.5
    semantic[:, 0, 0] += alignment
    return np.stack([quality, alignment], axis=1), visual, semantic


def _features(visual: np.ndarray, semantic: np.ndarray) -> Features:
    return Features(visual.astype(np.float32), semantic.astype(np.float32), ("a", "b"), {})


def _sides(images: int) -> dict[int, dict[str, np.ndarray]]:
    order = np.random.default_rng(5).permutation(images)
    cut = [int(images * 0.7), int(images * 0.8)]
    return {0: dict(zip(("train", "val", "test"), np.split(order, cut), strict=True))}


def test_two_targets_are_learnt_together_and_each_by_the_expert_that_knows_it() -> None:
    mos, visual, semantic = _world(300, 0)
    truth = Targets(mos * [1, 20] + [3, 50], ("quality", "alignment"), ("one",), np.zeros(300, int))
    sides = _sides(300)
    ensemble, _ = fit_light(_features(visual, semantic), truth, sides, SETTINGS)
    score, gate, _ = ensemble.predict(visual, semantic)
    test = sides[0]["test"]
    said = score[0].numpy()[test]
    assert said.shape == (60, 2)
    for target in (0, 1):
        assert spearmanr(said[:, target], mos[test, target]).statistic > 0.8
    assert abs(said[:, 1].mean() - 50) < 10  # on its own scale
    shares = gate[0].mean(0).numpy()  # (E, T): visual, a, b
    assert shares[0, 0] > 0.6
    assert shares[1, 1] > 0.6


def test_a_second_target_leaves_the_firsts_closed_forms_as_they_are() -> None:
    mos, visual, semantic = _world(200, 1)
    both = Targets(mos, ("quality", "alignment"), ("one",), np.zeros(200, int))
    one = Targets(mos[:, :1], ("quality",), ("one",), np.zeros(200, int))
    sides, features = _sides(200), _features(visual, semantic)
    together, alone = (fit_light(features, each, sides, SETTINGS)[0] for each in (both, one))
    for name, ridge in alone.splits[0].ridges.items():
        theirs = together.splits[0].ridges[name].weights[:, :1]
        np.testing.assert_allclose(theirs, ridge.weights, atol=1e-5)
    for ours, theirs in zip(alone.splits[0].kernels, together.splits[0].kernels, strict=True):
        np.testing.assert_allclose(theirs.dual[:, :1], ours.dual, atol=1e-4)


def test_scales_are_those_of_each_data_set() -> None:
    mos = np.array([[1.0], [3.0], [10.0], [30.0]])
    truth = Targets(mos, ("quality",), ("one", "two"), np.array([0, 0, 1, 1]))
    found = Scales.of(truth, np.arange(4))
    np.testing.assert_allclose(found.mean[:, 0], [2, 20])
    units = found.standardise(mos, truth.dataset_of)
    np.testing.assert_allclose(units[:, 0], [-1, 1, -1, 1])
    np.testing.assert_allclose(found.restore(units[2:], 1), mos[2:])


def test_data_sets_of_other_scales_and_other_images_share_one_ranking() -> None:
    """The second's raters use 0 to 100, and its images are better by a whole deviation.

    Taken each for itself a good image of the first and a bad one of the second look alike; trained
    together, the scores on a common scale rank the images of both.
    """
    first, visual, semantic = _world(300, 2)
    second, visual2, semantic2 = _world(300, 3)
    second[:, 0] += 1.5
    visual2[:, 0] += 1.5
    quality = np.concatenate([first[:, :1], second[:, :1]])
    of = np.repeat([0, 1], 300)
    mos = np.where(of[:, None] == 0, 3 + 0.5 * quality, 40 + 12 * quality)
    truth = Targets(mos, ("quality",), ("one", "two"), of)
    sides = _sides(600)
    features = _features(np.vstack([visual, visual2]), np.concatenate([semantic, semantic2]))
    ensemble, curves = fit_light(features, truth, sides, SETTINGS)
    test = sides[0]["test"]
    seen = (features.visual[test], features.semantic[test])
    on = [ensemble.predict(*seen, dataset=d).score[0][:, 0].numpy() for d in (0, 1)]
    assert spearmanr(on[0], quality[test, 0]).statistic > 0.85
    for dataset in (0, 1):  # each on its own scale
        rows = of[test] == dataset
        error = np.sqrt(np.mean((on[dataset][rows] - mos[test[rows], 0]) ** 2))
        assert error < 0.7 * mos[test[rows], 0].std()
    assert spearmanr(on[0], on[1]).statistic > 0.99
    assert {row["model"] for row in curves} == {"moe"}


def test_a_data_set_with_too_few_images_is_named() -> None:
    mos, visual, semantic = _world(100, 0)
    truth = Targets(mos[:, :1], ("quality",), ("big", "small"), (np.arange(100) > 94).astype(int))
    with pytest.raises(AgiqaError, match=r"Split 0 of 'small' has \d train images; fit needs"):
        fit_light(_features(visual, semantic), truth, _sides(100), SETTINGS)


Prepare = Callable[..., ImagesTable]


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Writes tables, splits and packs into cache/; images themselves are nobody's business."""
    monkeypatch.chdir(tmp_path)

    def write(
        name: str, targets: dict[str, tuple[int, float, float]], images: int = 80, seed: int = 0,
        ids: list[str] | None = None, model: str = "x",
    ) -> ImagesTable:  # fmt: skip
        truth, visual, semantic = _world(images, seed)
        frame = pd.DataFrame(
            {
                "image_id": ids or [f"{seed:032x}{row:032x}" for row in range(images)],
                "path": [f"{row:03d}.png" for row in range(images)],
                "prompt": [f"{name} {row // 2}" for row in range(images)],
                "group": [f"{name} {row // 2}" for row in range(images)],
                "generator": "g",
            }
        )
        for target, (column, scale, mean) in targets.items():
            frame[target] = truth[:, column] * scale + mean
        described = [Target(t, float(frame[t].min()), float(frame[t].max())) for t in targets]
        table = ImagesTable(name, tmp_path, frame, tuple(described), False, "none", "a test")
        folder = Path("cache") / name
        write_table(table, folder)
        (folder / "splits").mkdir()
        for protocol in ("grouped", "random"):
            splits = make_splits(table, protocol, count=3)
            write_splits(splits, folder / "splits" / f"{protocol}.csv")
        stores = (("nano", ["a", "b"], semantic), ("nano-vision", ["l"], visual[:, None]))
        for store, vectors, rows in stores:
            prints = [{"model": model, "vector": vector} for vector in vectors]
            path, ids = folder / f"{store}.zarr", list(frame["image_id"])
            write_pack(path, store, vectors, prints, ids, rows.astype(np.float32))
        return table

    return write


def test_a_run_of_two_targets_from_fit_to_comparison(prepare: Prepare) -> None:
    prepare("mine", {"quality": (0, 1, 3), "align": (1, 10, 50)})
    both = ["--target", "quality", "--target", "alignment", "-o", "runs/both"]
    fitted = agiqa("fit", "mine", *both, "--json", *FAST)
    assert json.loads(fitted.stdout)["target"] == "quality, align"  # as the table calls it
    shown = agiqa("evaluate", "runs/both")
    assert "mine, quality, protocol grouped" in shown.stdout
    assert "mine, align, protocol grouped" in shown.stdout
    for folder, target in (("runs/both", "quality"), ("runs/both/targets/align", "align")):
        metrics = json.loads((Path(folder) / "metrics.json").read_text())
        assert metrics["target"] == target
        predictions = pd.read_csv(Path(folder) / "predictions.csv")
        moe = predictions[predictions["model"] == "moe"]
        for _, part in moe.groupby("seed"):
            assert spearmanr(part["mos"], part["score"]).statistic > 0.2
    agiqa("fit", "mine", "--target", "align", *FAST, "-o", "runs/align")
    agiqa("evaluate", "runs/align")
    compared = agiqa("compare", "runs/align", "runs/both/targets/align", "--json")
    assert json.loads(compared.stdout)["target"] == "align"
    assert "runs/both is of the target quality" in refusal("compare", "runs/both", "runs/align")
    inner = Path("runs/both/targets/align")
    assert json.loads((inner.parent / "targets.json").read_text()) == {
        "run": "quality",
        "here": ["align"],
    }
    agiqa("report", inner, "-o", "alignment.html")
    assert "Target <b>align</b>" in Path("alignment.html").read_text()
    one = json.loads(agiqa("evaluate", "runs/both", "--json").stdout)
    assert one["target"] == "quality"


def test_images_without_one_of_the_targets_are_left_out(
    prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    table = prepare("mine", {"quality": (0, 1, 3), "authenticity": (1, 10, 50)})
    frame = table.frame.copy()
    frame.loc[:3, "authenticity"] = np.nan
    write_table(replace(table, frame=frame), Path("cache/mine"))
    agiqa("fit", "mine", "--target", "quality,authenticity", *FAST)
    assert "4 images have no score 'quality' or 'authenticity'" in caplog.text


def test_what_targets_can_be(prepare: Prepare) -> None:
    prepare("mine", {"quality": (0, 1, 3), "correspondence": (1, 10, 50)})
    for words, message in (
        (["beauty"], "no target 'beauty'; it has quality, correspondence"),
        (["alignment", "--target", "correspondence"], "names a target of 'mine' twice"),
        (
            ["quality,alignment", "--preset", "paper"],
            "The preset paper learns one target, found quality, correspondence: give one",
        ),
    ):
        assert message in refusal("fit", "mine", *FAST, "--target", *words)


@pytest.fixture
def three(prepare: Prepare) -> None:
    prepare("mine", {"quality": (0, 1, 3), "align": (1, 1, 3)}, seed=1)
    prepare("theirs", {"mos": (0, 15, 50)}, seed=2, images=100)
    prepare("other", {"quality": (0, 1, 3)}, seed=3, model="y")


def test_data_sets_train_together_and_are_evaluated_each(three: None) -> None:
    fitted = json.loads(agiqa("fit", "mine", "theirs", "--json", *FAST).stdout)
    assert fitted["run"] == "runs/mine+theirs/grouped"
    shown = agiqa("evaluate", "runs/mine+theirs/grouped").stdout
    assert "mine, quality, protocol grouped" in shown
    assert "theirs, mos, protocol grouped" in shown
    run = Path("runs/mine+theirs/grouped")
    found = [json.loads((f / "metrics.json").read_text()) for f in (run, run / "datasets/theirs")]
    assert [each["dataset"] for each in found] == ["mine", "theirs"]
    assert all(each["trained_on"] == ["mine", "theirs"] for each in found)
    scores = pd.read_csv(run / "datasets/theirs/predictions.csv")["score"]
    assert 35 < scores.mean() < 65  # on its own scale
    for each in found:
        assert each["models"]["moe"]["srcc"]["median"] > 0.5
    agiqa("fit", "mine", *FAST)
    agiqa("evaluate", "runs/mine/grouped")
    agiqa("compare", "runs/mine/grouped", "runs/mine+theirs/grouped")
    assert "made in different ways" in refusal("fit", "mine", "other", *FAST)
    assert "given once" in refusal("fit", "mine", "mine", *FAST)
    line = refusal("fit", "mine", "theirs", "--preset", "paper", *FAST)
    assert "paper learns from one data set, found mine, theirs" in line


def test_what_others_test_is_not_trained_on(
    prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    mine = prepare("mine", {"quality": (0, 1, 3)}, seed=1)
    ids = [f"{2:032x}{row:032x}" for row in range(90)]
    ids[:20] = list(mine.frame["image_id"][:20])
    prepare("copies", {"quality": (0, 1, 3)}, seed=2, ids=ids, images=90)
    agiqa("fit", "mine", "copies", *FAST)
    assert "left out of training where another data set tests or validates" in caplog.text


def test_train_on_each_test_on_each(three: None, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("mine", "theirs"):
        agiqa("fit", name, *FAST)
    both = ("runs/mine/grouped", "runs/theirs/grouped")
    assert "is not evaluated: run `agiqa evaluate" in refusal("cross", *both)
    for name in ("mine", "theirs"):
        agiqa("evaluate", f"runs/{name}/grouped")
    rows = json.loads(agiqa("cross", *both, "--json").stdout)["runs"]
    found = {row["run"]: row["tested_on"] for row in rows}
    crossed = found["runs/mine/grouped"]["theirs"]
    assert crossed["protocol"] == "cross"
    assert crossed["trained_on"] == ["mine"]
    assert crossed["target"] == "mos"
    assert found["runs/mine/grouped"]["mine"]["protocol"] == "grouped"
    folder = Path("runs/mine/grouped/cross/theirs")
    predictions = pd.read_csv(folder / "predictions.csv")
    tested = pd.read_csv("cache/theirs/splits/grouped.csv")
    for seed, part in predictions[predictions["model"] == "moe"].groupby("seed"):
        test = tested[(tested["seed"] == seed) & (tested["side"] == "test")]
        assert sorted(part["path"]) == sorted(test["name"])
        assert part["score"].between(0, 6).all()  # on the scale of the training
        assert part["mos"].mean() > 20
        assert spearmanr(part["mos"], part["score"]).statistic > 0.3
    assert crossed["rmse"]["median"] is None  # of fewer than 30 images a split
    assert crossed["rmse_raw"]["median"] > 20  # the scale of the training against the test's
    shown = agiqa("cross", "runs/mine/grouped", "--on", "theirs").stdout
    assert shown.index("RMSE raw: trained on") < shown.index("RMSE fitted: trained on")
    assert f"{crossed['rmse_raw']['median']:.3f} ± " in shown
    counts = json.loads((folder / "metrics.json").read_text("utf-8"))["outside_scale"]
    mine = pd.read_csv("cache/mine/images.csv")["quality"]  # the training's scale, not the test's
    assert (counts["low"], counts["high"]) == pytest.approx((mine.min(), mine.max()))
    median, own = (found["runs/mine/grouped"][n]["srcc"]["median"] for n in ("theirs", "mine"))
    assert f"{median:.3f} ± " in shown
    assert f"{own:.3f} ± " in shown
    assert "at least two data sets" in refusal("cross", "runs/mine/grouped")
    assert "vector 'a'" in refusal("cross", "runs/mine/grouped", "--on", "other")
    agiqa("fit", "mine", "--target", "align", *FAST, "-o", "runs/align")
    agiqa("evaluate", "runs/align")
    assert "nothing in common to test" in refusal("cross", "runs/align", "--on", "theirs")
    agiqa("fit", "theirs", "--protocol", "random", *FAST)
    agiqa("evaluate", "runs/theirs/random")
    assert "a column of the matrix needs one" in refusal("cross", "runs/theirs/random", *both)


def test_copies_of_training_images_are_not_tested(
    prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    mine = prepare("mine", {"quality": (0, 1, 3)}, seed=1)
    ids = [f"{2:032x}{row:032x}" for row in range(90)]
    ids[:40] = list(mine.frame["image_id"][:40])
    prepare("copies", {"quality": (0, 1, 3)}, seed=2, ids=ids, images=90)
    agiqa("fit", "mine", *FAST)
    agiqa("evaluate", "runs/mine/grouped")
    agiqa("cross", "runs/mine/grouped", "--on", "copies")
    assert "are left out of its test sides: mine holds the same files or groups for" in caplog.text
    splits = pd.read_csv("cache/mine/splits/grouped.csv")
    predictions = pd.read_csv("runs/mine/grouped/cross/copies/predictions.csv")
    for seed, part in predictions.groupby("seed"):
        learnt = splits[(splits["seed"] == seed) & (splits["side"] != "test")]
        assert not set(part["image_id"]) & set(learnt["image_id"])
        assert len(part) > 0


def _with_groups(table: ImagesTable, groups: list[str], prompts: list[str]) -> ImagesTable:
    changed = replace(table, frame=table.frame.assign(group=groups, prompt=prompts))
    folder = Path("cache") / table.name
    write_table(changed, folder)
    for protocol in ("grouped", "random"):
        splits = make_splits(changed, protocol, count=3)
        write_splits(splits, folder / "splits" / f"{protocol}.csv")
    return changed


def _joined_sides(*names: str, protocol: str = "grouped") -> tuple[list[Any], dict[int, Any]]:
    from agiqa.core.params import load
    from agiqa.stage2.fit_data import join, load_fit_data

    params = load(None, (f"fit.protocol={protocol}",))
    materials = [load_fit_data(name, Path("cache"), params) for name in names]
    return materials, dict(join(materials)[2])


@pytest.mark.parametrize("by", ["prompt", "own group"])
def test_one_set_neither_trains_on_nor_selects_by_what_another_tests(
    prepare: Prepare, by: str
) -> None:
    """The same prompts, spelled otherwise, or the same names of a user's own groups."""
    tables = [
        prepare(name, {"quality": (0, 1, 3)}, seed=seed) for seed, name in ((1, "a"), (2, "b"))
    ]
    spelled = ("a  cat {0}", " A\u00a0cat\u200b {0} ")
    for place, (table, form) in enumerate(zip(tables, spelled, strict=True)):
        numbers = [(row // 2 + 13 * place) % 40 for row in range(80)]  # on other sides there
        if by == "prompt":
            groups, prompts = [f"a cat {n}" for n in numbers], [form.format(n) for n in numbers]
        else:
            groups, prompts = [f"Scene {n}" for n in numbers], ["a photo"] * 80
        _with_groups(table, groups, prompts)
    materials, sides = _joined_sides("a", "b")
    group = np.concatenate([material.table.frame["group"] for material in materials])
    of = np.repeat([0, 1], 80)
    lost = 0
    for seed, side in sides.items():
        for one, other in ((0, 1), (1, 0)):
            own = {name: set(group[rows[of[rows] == one]]) for name, rows in side.items()}
            theirs = {name: set(group[rows[of[rows] == other]]) for name, rows in side.items()}
            assert not own["train"] & theirs["test"]
            assert not own["val"] & theirs["test"]
            assert not own["train"] & set(
                materials[other].table.frame["group"].iloc[materials[other].sides[seed]["val"]]
            )
            lost += len(materials[one].sides[seed]["val"]) - int((of[side["val"]] == one).sum())
            assert (of[side["test"]] == one).sum() == len(materials[one].sides[seed]["test"])
    assert lost > 0  # validation images went, too


def test_shared_prompts_that_stay_are_told(
    prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, name in ((1, "a"), (2, "b")):
        table = prepare(name, {"quality": (0, 1, 3)}, seed=seed)
        _with_groups(table, [f"{name} {row // 4}" for row in range(80)], ["a photo"] * 80)
    _, sides = _joined_sides("a", "b")
    assert all(len(side["train"]) == 112 for side in sides.values())  # names differ: all train
    assert "48 of 48 test images of 'a' have a prompt that another data set" in caplog.text


def test_cross_leaves_out_groups_that_the_run_selected_by(
    prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, name, form in ((1, "a", "a cat {0}"), (2, "b", "A  cat\u00a0{0}")):
        table = prepare(name, {"quality": (0, 1, 3)}, seed=seed)
        numbers = [row // 2 + (20 if name == "b" else 0) for row in range(80)]  # half are shared
        _with_groups(table, [f"a cat {n}" for n in numbers], [form.format(n) for n in numbers])
    agiqa("fit", "a", *FAST)
    agiqa("evaluate", "runs/a/grouped")
    agiqa("cross", "runs/a/grouped", "--on", "b")
    assert "holds the same files or groups for training or validation" in caplog.text
    tested = pd.read_csv("runs/a/grouped/cross/b/predictions.csv")
    splits = pd.read_csv("cache/a/splits/grouped.csv")
    group = dict(zip(pd.read_csv("cache/a/images.csv")["path"],
                     pd.read_csv("cache/a/images.csv")["group"], strict=True))  # fmt: skip
    for seed, part in tested.groupby("seed"):
        learnt = splits[(splits["seed"] == seed) & splits["side"].isin(["train", "val"])]
        assert len(part)
        assert not set(part["group"]) & set(learnt["name"].map(group))


def test_a_run_and_what_was_made_from_it_are_kept_unless_told(prepare: Prepare) -> None:
    prepare("mine", {"quality": (0, 1, 3)})
    agiqa("fit", "mine", *FAST)
    run = Path("runs/mine/grouped")
    line = refusal("fit", "mine", *FAST)
    assert "a run stands there, which would be lost: give --replace" in line
    agiqa("evaluate", run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for out in ([], ["-o", run]):
        said = refusal("fit", "mine", *FAST, *out)
        assert "what was made from it (metrics.json, predictions.csv, " in said
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    agiqa("fit", "mine", "--replace", *FAST)
    assert not (run / "metrics.json").exists()


def test_somebodys_folder_is_never_replaced(prepare: Prepare) -> None:
    prepare("mine", {"quality": (0, 1, 3)})
    Path("pictures").mkdir()
    Path("pictures/holiday.txt").write_text("mine")
    for out in ("pictures", "."):
        said = refusal("fit", "mine", "--replace", "-o", out, *FAST)
        assert "found what is no run's" in said
    assert Path("pictures/holiday.txt").read_text() == "mine"
    Path("empty").mkdir()
    agiqa("fit", "mine", "-o", "empty", *FAST)
