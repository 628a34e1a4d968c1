"""How the aspects' cached answers relate to the MOS and to a run's error, as figures and a picture.

    python benchmarks/aspect_relations.py runs/agiqa-3k/grouped --figure docs/images/aspects.svg

Spearman's rho over the validation sides of all splits, each image once, with the intervals by which
`agiqa explain` decides which aspects may give reasons.
"""

import argparse
from pathlib import Path

from agiqa.runs.create_scorer import create_scorer
from agiqa.runs.explain import AspectValidity, Explainer

SHOWN, HIDDEN = "#2f81d6", "#8a8a8a"
INK = "#777777"  # read on light and on dark pages


def main() -> None:
    """Print a table and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--aspects", help="name of the store of answers")
    parser.add_argument("--figure", type=Path, help="an SVG")
    given = parser.parse_args()
    explainer = Explainer(create_scorer(given.run), given.cache, given.aspects)
    found = sorted(explainer.validity, key=lambda each: each.rho_mos)
    for each in reversed(found):
        print(
            f"{each.aspect:12} MOS {each.rho_mos:+.3f} ({each.mos_low:+.3f} to "
            f"{each.mos_high:+.3f})  residual {each.rho_residual:+.3f} "
            f"({each.residual_low:+.3f} to {each.residual_high:+.3f})"
            f"{'  shown' if each.shown else ''}"
        )
    if given.figure is not None:
        draw(found, given.figure)


def draw(found: list[AspectValidity], path: Path) -> None:
    """Two panels of points with intervals, the aspects in the MOS's order."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "aspects", "text.color": INK,
                         "axes.labelcolor": INK, "axes.edgecolor": INK, "axes.titlecolor": INK,
                         "xtick.color": INK, "ytick.color": INK})  # fmt: skip
    figure, panels = plt.subplots(
        1, 2, figsize=(8, 0.4 + 0.27 * len(found)), sharey=True, sharex=True,
        constrained_layout=True,
    )  # fmt: skip
    for axes, title, values in (
        (panels[0], "rho with the MOS", [(e.rho_mos, e.mos_low, e.mos_high) for e in found]),
        (
            panels[1],
            "rho with MOS less score",
            [(e.rho_residual, e.residual_low, e.residual_high) for e in found],
        ),
    ):
        for place, (each, (rho, low, high)) in enumerate(zip(found, values, strict=True)):
            axes.errorbar(
                rho, place, xerr=[[rho - low], [high - rho]], fmt="o" if each.shown else "D",
                mfc=SHOWN if each.shown else "none", color=SHOWN if each.shown else HIDDEN,
                ms=5, capsize=2, lw=1.2,
            )  # fmt: skip
        axes.axvline(0, color=INK, lw=0.6)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(found)), [each.aspect for each in found])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()
