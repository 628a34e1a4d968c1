"""The deletion test of the quality maps: whether the places that a map marks matter to the score.

    python benchmarks/deletion_test.py runs/agiqa-3k/grouped --images 40

Test images of a run, spread over the range of the MOS, each scored by all splits. Places (cells of
the map's grid) are taken away in four orders: those that pull the score up most first, those that
pull it down most, those that the map marks least, and at random. Away means blurred in the picture,
which is then seen anew; and, as a check without a blur's own harm, left out of the tower's tokens.
The semantic vectors are held: the visual expert carries most of the gate's weight.

Writes RUN/deletion_test.json (which `agiqa explain` takes up), with the change of the score by
share taken away, areas between the curves and 95 % bootstrap intervals over images, and the figure
deletion.svg. What was measured stays in RUN/deletion_test.csv, and the same command goes on there.
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from agiqa.core.json_text import write_json
from agiqa.data.images import decode
from agiqa.runs.create_scorer import create_scorer
from agiqa.runs.explain import Explainer
from agiqa.runs.records import mean_predictions
from agiqa.stage2.light.ensemble import Ensemble

SHARES = {"blur": (0.1, 0.2, 0.4), "tokens": (0.2,)}
ORDERS = ("up", "down", "least", "random")
NAMES = {
    "up": "pull up most",
    "down": "pull down most",
    "least": "marked least",
    "random": "at random",
}
COLOURS = {"up": "#2f81d6", "down": "#dd6b10", "least": "#8a8a8a", "random": "#6b6b6b"}
LINES = {"up": "-", "down": "-", "least": ":", "random": "--"}
COLUMNS = ["path", "mos", "away", "order", "share", "change", "seconds"]
RESAMPLES = 5000


def main() -> None:
    """Measure what is not measured yet, and sum up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figure", type=Path, help="default: RUN/deletion.svg")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    given = parser.parse_args()
    if given.threads:
        import torch

        torch.set_num_threads(given.threads)
    measured = given.run / "deletion_test.csv"
    measure(given.run, given.cache, given.images, given.seed, measured)
    found = summary(pd.read_csv(measured))
    write_json(given.run / "deletion_test.json", found)
    draw(found, given.figure or given.run / "deletion.svg")
    show(found)


def measure(run: Path, cache: Path, images: int, seed: int, out: Path) -> None:
    """Append the rows of the images that are not there yet."""
    explainer = Explainer(create_scorer(run), cache)
    rows, rated = mean_predictions(run), explainer.rated
    assert rows is not None
    assert rated is not None
    rng = np.random.default_rng(seed)
    ranked = rows.sort_values("mos", kind="stable")
    chosen = [str(rng.choice(part)) for part in np.array_split(ranked.index.to_numpy(), images)]
    done = set(pd.read_csv(out)["path"]) if out.exists() else set()
    # In any order, so that what is measured before a stop is spread as well.
    for number in rng.permutation(images):
        name = chosen[number]
        if name in done:
            continue
        changed = changes_of(explainer, rated.table.folder() / name, number)
        with out.open("a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(COLUMNS)
            for row in changed:
                writer.writerow([name, rows.loc[name, "mos"], *row])
        done.add(name)
        print(f"{len(done)} of {images}: {name}", flush=True)


def changes_of(explainer: Explainer, path: Path, seed: int) -> list[list[Any]]:
    """By way, order and share, how far one image's score moves."""
    image = decode(path)
    (found,) = explainer.maps([path])
    values = found.values  # noqa: PD011
    visual, said = explainer.visual_and_semantic([path])
    about, features = [], [visual[0]]
    for away, shares in SHARES.items():
        for order in ORDERS:
            ranked = ranking(values, order, seed)
            for share in shares:
                started = time.monotonic()
                gone = np.zeros(values.size, dtype=bool)
                gone[ranked[: round(share * values.size)]] = True
                gone = gone.reshape(values.shape)
                features.append(
                    seen(explainer.vision, blurred(image, gone), None)
                    if away == "blur"
                    else seen(explainer.vision, image, gone)
                )
                about.append([away, order, share, time.monotonic() - started])
    ensemble = explainer.run.ensemble
    assert isinstance(ensemble, Ensemble)
    scores = ensemble.predict(np.stack(features), np.repeat(said, len(features), axis=0)).score
    mean = scores[..., 0].reshape(-1, len(features)).mean(dim=0).numpy()
    return [
        [*key, round(float(score - mean[0]), 6), round(seconds, 2)]
        for (*key, seconds), score in zip(about, mean[1:], strict=True)
    ]


def ranking(values: np.ndarray, order: str, seed: int) -> np.ndarray:
    """Cells, the first to go first."""
    flat = values.ravel()
    match order:
        case "up":
            return np.argsort(-flat, kind="stable")
        case "down":
            return np.argsort(flat, kind="stable")
        case "least":
            return np.argsort(np.abs(flat), kind="stable")
    return np.random.default_rng(seed).permutation(flat.size)


def blurred(image: Image.Image, gone: np.ndarray) -> Image.Image:
    """The image with some cells blurred beyond recognition: a deviation of one cell."""
    away = image.filter(ImageFilter.GaussianBlur(image.width / gone.shape[1]))
    mask = Image.fromarray(np.uint8(gone) * 255).resize(image.size, Image.Resampling.NEAREST)
    return Image.composite(away, image, mask)


def seen(extractor: Any, image: Image.Image, gone: np.ndarray | None) -> np.ndarray:
    """Visual features `(F,)`; with `gone`, the tower never sees those cells' tokens."""
    import torch

    sample = extractor.preprocess(image)
    if gone is None:
        every = extractor.extract([sample], range(len(extractor.vectors)))
        return np.concatenate(every, axis=1)[0]
    extractor.load()
    embeddings = next(
        module for name, module in extractor.tower.named_modules() if name.endswith("embeddings")
    )
    parts = []
    with torch.inference_mode():
        for view in extractor.views:
            pixels = sample.arrays[view.name]
            side = pixels.shape[-1] // extractor.patch_size
            kept = ~lost_patches(gone, side, view.box)
            # The class token and the patches that stay.
            tokens = np.concatenate([[0], 1 + np.flatnonzero(kept.ravel())])
            hook = embeddings.register_forward_hook(
                lambda module, given, out, tokens=tokens: out[:, tokens]
            )
            states = extractor.states(pixels, extractor.settings.layers)
            hook.remove()
            parts += [extractor.pool(each, int(kept.sum())).numpy() for each in states]
    return np.concatenate(parts, axis=1)[0]


def lost_patches(gone: np.ndarray, side: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """Which of a view's patches `(side, side)` have their centre in a cell that is gone."""
    middles = (np.arange(side) + 0.5) / side
    rows = (box[1] + middles * (box[3] - box[1])) * gone.shape[0]
    columns = (box[0] + middles * (box[2] - box[0])) * gone.shape[1]
    return gone[np.ix_(rows.astype(int), columns.astype(int))]


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Curves, areas between them and the random one, and how many images agree."""
    found: dict[str, Any] = {
        "images": int(rows["path"].nunique()),
        "seconds_a_forward": round(float(rows["seconds"].median()), 2),
        "unit": "change of the score, MOS",
        "held": "semantic vectors",
    }
    for away, shares in SHARES.items():
        table = rows[rows["away"] == away].pivot_table(
            index="path", columns=["order", "share"], values="change"
        )
        part: dict[str, Any] = {"curves": {}, "areas": {}}
        for order in ORDERS:
            part["curves"][order] = [
                {"share": share, **_interval(table[order, share].to_numpy())} for share in shares
            ]
        x = np.array([0.0, *shares])
        areas = {order: _area(table[order][list(shares)].to_numpy(), x) for order in ORDERS}
        sizes = {order: _area(table[order][list(shares)].abs().to_numpy(), x) for order in ORDERS}
        for name, values in (
            ("random less up", areas["random"] - areas["up"]),
            ("down less random", areas["down"] - areas["random"]),
            ("down less up", areas["down"] - areas["up"]),
            ("|up| less |random|", sizes["up"] - sizes["random"]),
            ("|up| less |least|", sizes["up"] - sizes["least"]),
        ):
            part["areas"][name] = {
                **_interval(values),
                "images_above_zero": int((values > 0).sum()),
            }
        found[away] = part
    return found


def _area(changes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Mean height `(n,)` of each image's curve from share 0, where nothing changed."""
    curves = np.concatenate([np.zeros((len(changes), 1)), changes], axis=1)
    return np.trapezoid(curves, x, axis=1) / x[-1]


def _interval(values: np.ndarray) -> dict[str, float]:
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def draw(found: dict[str, Any], path: Path) -> None:
    """The blur's curves with their intervals, and the tokens' changes beside them."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    ink = "#777777"  # read on light and on dark pages
    plt.rcParams.update({"svg.fonttype": "none", "text.color": ink, "axes.labelcolor": ink,
                         "axes.edgecolor": ink, "xtick.color": ink, "ytick.color": ink,
                         "svg.hashsalt": "deletion"})  # fmt: skip
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8, 3.4), width_ratios=(2, 1), constrained_layout=True
    )
    for order in ORDERS:
        curve = found["blur"]["curves"][order]
        x = [0.0, *(100 * point["share"] for point in curve)]
        y, low, high = ([0.0, *(point[key] for point in curve)] for key in ("mean", "low", "high"))
        left.plot(x, y, LINES[order], color=COLOURS[order], marker="o", ms=3, label=NAMES[order])
        left.fill_between(x, low, high, color=COLOURS[order], alpha=0.18, lw=0)
    left.set(xlabel="places blurred, %", ylabel="change of the score, MOS")
    left.legend(frameon=False, labelcolor=ink, fontsize=8)
    for place, order in enumerate(ORDERS):
        point = found["tokens"]["curves"][order][0]
        right.errorbar(
            place, point["mean"],
            [[point["mean"] - point["low"]], [point["high"] - point["mean"]]],
            fmt="o", color=COLOURS[order], capsize=3,
        )  # fmt: skip
    share = round(100 * SHARES["tokens"][0])
    right.set(xlabel=f"{share} % of tokens left out", xlim=(-0.6, len(ORDERS) - 0.4))
    right.set_xticks(range(len(ORDERS)), ORDERS, fontsize=8)
    for axes in (left, right):
        axes.axhline(0, color=ink, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Date": None})


def show(found: dict[str, Any]) -> None:
    """Print the figures."""
    print(f"{found['images']} images, {found['seconds_a_forward']} s a forward pass")
    for away in SHARES:
        for order, curve in found[away]["curves"].items():
            points = ", ".join(
                f"{100 * p['share']:.0f} %: {p['mean']:+.3f} ({p['low']:+.3f} to {p['high']:+.3f})"
                for p in curve
            )
            print(f"{away:7} {order:7} {points}")
        for name, area in found[away]["areas"].items():
            print(
                f"{away:7} area {name}: {area['mean']:.3f} ({area['low']:.3f} to "
                f"{area['high']:.3f}), {area['images_above_zero']} images above zero"
            )


if __name__ == "__main__":
    main()
