import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.json_text import write_json
from agiqa.data.metric_names import CORRELATIONS, FITTED, TOO_FEW_TO_FIT
from agiqa.data.metrics import all_metrics, srcc
from agiqa.runs.compare import compare
from kit.command import agiqa, refusal

LEAK = {"train": 120, "val": 20, "test": 60, "same_group": 0, "same_file": 0}
SEEDS = (0, 1, 2, 3)
NOISE = {"ridge": 0.5, "visual": 0.45, "moe": 0.3}
Write = Callable[..., Path]


def _change(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the rows of all splits in a run's metrics.json."""
    tree = json.loads((run / "metrics.json").read_text())
    for rows in tree["per_split"].values():
        for row in rows:
            change(row)
    (run / "metrics.json").write_text(json.dumps(tree))


@pytest.fixture
def write_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes an evaluated run of 200 images and four splits under `name`."""
    monkeypatch.chdir(tmp_path)

    def write(
        name: str, noise: float = 0.0, shift: int = 0, tested: int = 60, **changed: Any
    ) -> Path:
        rng = np.random.default_rng(0)
        mos = rng.uniform(1, 5, 200)
        parts = []
        for seed in SEEDS:
            test = rng.permutation(200)[:tested]
            for model, own in NOISE.items():
                error = rng.normal(0, own, 200) + noise * rng.normal(size=200)
                about = {
                    "model": model,
                    "seed": seed,
                    "path": [f"{row + shift:03d}.png" for row in test],
                    "image_id": [f"{row:064x}" for row in test],
                    "generator": ["NA" if row % 2 else "two" for row in test],
                    "group": [f"p{row // 2}" for row in test],
                }
                parts.append(pd.DataFrame(about | {"mos": mos[test], "score": (mos + error)[test]}))
        predictions = pd.concat(parts)
        per_split: dict[str, list[Any]] = {model: [] for model in NOISE}
        for (model, seed), part in predictions.groupby(["model", "seed"]):
            figures = all_metrics(part["mos"], part["score"])
            per_split[model].append({"seed": seed, "images": tested, **figures})
        provenance = {
            "format": "agiqa-run", "layout": 3, "dataset": "tiny", "target": "quality",
            "protocol": "grouped", "synthetic": False, "splits_sha256": "a" * 64,
            "leaks": [LEAK] * 4, **changed,
        }  # fmt: skip
        run = tmp_path / name
        run.mkdir()
        predictions.to_csv(run / "predictions.csv", index=False)
        write_json(run / "metrics.json", {"models": {}, "per_split": per_split})
        (run / "provenance.json").write_text(json.dumps(provenance))
        (run / "params.yaml").write_text("{}")
        (run / "model.safetensors").touch()
        return run

    return write


_run = partial(agiqa, "compare")


def test_differences_are_paired_by_split(write_run: Write) -> None:
    write_run("one")
    write_run("two", noise=0.3)
    result = compare("one", "two")
    figures = result["comparisons"][0]["figures"]
    runs = [json.loads((Path(name) / "metrics.json").read_text()) for name in ("one", "two")]
    by_split = [[row["srcc"] for row in run["per_split"]["moe"]] for run in runs]
    gains = np.subtract(by_split[1], by_split[0])
    assert figures["srcc"]["mean"] == pytest.approx(gains.mean())
    assert figures["srcc"]["sd"] == pytest.approx(gains.std(ddof=1))
    assert figures["srcc"]["better"] == int((gains > 0).sum())
    assert figures["rmse"]["mean"] > 0
    assert figures["rmse"]["better"] == 0  # less is better
    assert result["test_to_train"] == 0.5
    assert result["drawn"] == "groups"
    assert figures["srcc"]["low"] < gains.mean() < figures["srcc"]["high"]
    assert figures["srcc"]["image_low"] < gains.mean() < figures["srcc"]["image_high"] < 0
    assert figures["srcc"]["image_p"] == pytest.approx(0.002)  # the least of 1,000 resamples


def test_a_run_against_itself_differs_by_nothing(write_run: Write) -> None:
    write_run("one")
    figures = compare("one", "one:moe")["comparisons"][0]["figures"]
    for values in figures.values():
        assert (values["mean"], values["sd"], values["better"], values["p"]) == (0, 0, 0, 1)
        assert (values["image_low"], values["image_high"], values["image_p"]) == (0, 0, 1)


def test_generators_are_compared_where_they_have_images(write_run: Write) -> None:
    run = write_run("one")
    found = compare("one:ridge", "one")["comparisons"][0]["generators"]
    assert sorted(found) == ["NA", "two"]  # a generator may be called NA
    frame = pd.read_csv(run / "predictions.csv", keep_default_na=False)
    gains = []
    for seed in SEEDS:
        part = frame[(frame["seed"] == seed) & (frame["generator"] == "NA")]
        values = [srcc(p["mos"], p["score"]) for m in ("ridge", "moe")
                  for p in [part[part["model"] == m]]]  # fmt: skip
        gains.append(values[1] - values[0])
    assert found["NA"]["mean"] == pytest.approx(np.mean(gains))
    assert found["NA"]["splits"] == 4


def test_one_run_has_its_models_compared_with_holms_p(write_run: Write) -> None:
    write_run("one")
    result = compare("one")
    assert [contender["name"] for contender in result["contenders"]] == ["ridge", "visual", "moe"]
    assert [each["against"] for each in result["comparisons"]] == ["ridge", "ridge"]
    p = [comparison["figures"]["srcc"]["p"] for comparison in result["comparisons"]]
    adjusted = [each["figures"]["srcc"]["p_holm"] for each in result["comparisons"]]
    assert min(adjusted) == pytest.approx(min(1, 2 * min(p)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"protocol": "random"}, "one is of the protocol grouped, two of random: .*--across"),
        ({"dataset": "huge"}, "one is of the dataset tiny, two of huge"),
        ({"target": "align"}, "one is of the target quality, two of align"),
        ({"splits_sha256": "b" * 64}, "different grouped splits .sha256 aaaaaaaaaaaa and bbbb"),
        ({"shift": 1}, "split 0: .* images are in the test side of only one of one and two"),
    ],
)
def test_other_splits_are_refused(write_run: Write, changed: dict[str, Any], message: str) -> None:
    write_run("one")
    write_run("two", **changed)
    with pytest.raises(AgiqaError, match=message) as raised:
        compare("one", "two")
    assert "\n" not in str(raised.value)


def test_other_scores_and_damage_are_refused(write_run: Write) -> None:
    write_run("one")
    two = write_run("two")
    frame = pd.read_csv(two / "predictions.csv", keep_default_na=False)
    frame.assign(mos=frame["mos"] + 1).to_csv(two / "predictions.csv", index=False)
    with pytest.raises(AgiqaError, match="measured against different scores of 'quality'"):
        compare("one", "two")
    frame.iloc[:-5].to_csv(two / "predictions.csv", index=False)
    with pytest.raises(AgiqaError, match=r"two: damaged results .*evaluate. again"):
        compare("one", "two")
    (two / "metrics.json").write_text("{")
    with pytest.raises(AgiqaError, match=r"two/metrics\.json: damaged"):
        compare("one", "two")
    (two / "metrics.json").unlink()
    with pytest.raises(AgiqaError, match=r"two: expected metrics.json, found none"):
        compare("one", "two")
    with pytest.raises(AgiqaError, match="one has no model 'gate'; it has ridge, visual, moe"):
        compare("one:gate", "one")


def test_protocols_are_paired_by_image(write_run: Write) -> None:
    write_run("one")
    write_run("two", noise=0.5, protocol="random")
    found = json.loads(_run("one", "two", "--across-protocols", "--json").stdout)["across"]
    assert found["images"] == len(set(pd.read_csv("one/predictions.csv")["path"]))
    values = found["figures"]["srcc"]
    assert values["difference"] == pytest.approx(values["values"][1] - values["values"][0])
    assert values["image_high"] < 0
    shown = _run("one", "two", "--across-protocols")
    assert "protocol grouped against random" in shown.stdout
    assert "belong in different columns" in shown.stdout


def test_the_command_for_people_and_programs(write_run: Write) -> None:
    write_run("one")
    write_run("two", noise=0.3, synthetic=True)
    shown = _run("one", "two", "--by-generator")
    assert "two against one" in shown.stdout
    assert "0 of 4" in shown.stdout
    assert "SRCC within each generator" in shown.stdout
    result = json.loads(_run("one", "two", "--json").stdout)
    assert result["comparisons"][0]["figures"]["srcc"]["splits"] == 4


def test_wrong_use(write_run: Write) -> None:
    write_run("one")
    _run(status=2)
    assert "takes two runs, found 1" in _run("one", "--across-protocols", status=2).stderr
    assert "not a run" in refusal("compare", "none", "one")
    assert "at least two runs or models" in refusal("compare", "one:moe")


def test_few_images_have_no_fitted_difference_and_few_prompts_no_interval(write_run: Write) -> None:
    write_run("one", tested=6)
    write_run("two", noise=0.3, tested=6)
    result = compare("one", "two")
    figures = result["comparisons"][0]["figures"]
    assert result["units"] >= 5
    assert math.isfinite(figures["mae"]["image_low"])
    for name in FITTED:
        assert math.isnan(figures[name]["mean"])
        assert (figures[name]["better"], figures[name]["why"]) == (None, TOO_FEW_TO_FIT)
    shown = _run("one", "two")
    assert "nan" not in shown.stdout
    assert f"– PLCC fitted, RMSE fitted: {TOO_FEW_TO_FIT}." in shown.stdout
    write_run("three", tested=4)
    write_run("four", noise=0.3, tested=4)
    alone = _run("three", "four", "--json")
    tree = json.loads(alone.stdout, parse_constant=pytest.fail)
    assert tree["too_few"] == f"{tree['units']} groups on a test side; intervals need 5"
    assert tree["comparisons"][0]["figures"]["mae"]["image_low"] is None
    assert tree["comparisons"][0]["figures"]["mae"]["why"] == tree["too_few"]


def test_equal_scores_are_said_and_no_split_is_left_out(write_run: Write) -> None:
    write_run("one")
    two = write_run("two", noise=0.3)
    frame = pd.read_csv(two / "predictions.csv", keep_default_na=False)
    frame.loc[frame["seed"] == 2, "score"] = 3.0
    frame.to_csv(two / "predictions.csv", index=False)
    _change(two, lambda row: row.update(dict.fromkeys(CORRELATIONS) if row["seed"] == 2 else {}))
    result = compare("one", "two")
    values = result["comparisons"][0]["figures"]["srcc"]
    assert math.isnan(values["mean"])
    assert (values["better"], values["why"]) == (None, "all scores are equal")
    assert math.isnan(result["contenders"][1]["figures"]["srcc"]["median"])
    assert "– SRCC" in _run("one", "two").stdout


def test_differences_that_are_all_alike_have_no_test(write_run: Write) -> None:
    _change(write_run("one"), lambda row: row.update(mae=0.25))
    _change(write_run("two"), lambda row: row.update(mae=0.5))
    values = compare("one", "two")["comparisons"][0]["figures"]["mae"]
    assert (values["mean"], values["sd"]) == (0.25, 0)
    assert math.isnan(values["p"])
    assert "the differences of all splits are equal" in _run("one", "two").stdout
