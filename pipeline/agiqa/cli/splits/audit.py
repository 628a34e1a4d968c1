"""`agiqa splits audit`: leaks down to near-identical pictures."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import as_json, cache
from agiqa.cli.output import echo, print_json, print_table
from agiqa.core.errors import AgiqaError

if TYPE_CHECKING:
    from agiqa.data.leak_audit.overlaps import Audit

MEASURES = {
    "same_prompt": "same prompt",
    "same_group": "same group",
    "same_file": "same file",
    "near": "near-identical",
}


@click.command("audit", cls=Command)
@click.argument("dataset")
@click.option(
    "--protocol", "protocols", multiple=True, help="Default: every split file. Repeatable."
)
@click.option(
    "--distance",
    type=click.IntRange(0, 16),
    default=6,
    show_default=True,
    help="Most bits of 64 in which the perceptual hashes of near-identical images differ.",
)
@click.option("--pairs", type=int, default=10, show_default=True, help="Worst pairs to name.")
@cache
@as_json
def command(
    dataset: str,
    protocols: tuple[str, ...],
    distance: int,
    pairs: int,
    cache: Path,
    as_json: bool,
) -> None:
    r"""Count what the sides of DATASET's splits share, and name the worst pairs.

    Three kinds of relatives: the same prompt, a byte-identical file, a near-identical picture of
    another file. Perceptual hashes are kept in the user's cache folder ($AGIQA_HASHES), so only the
    first audit reads the images.

    \b
    agiqa splits audit agiqa-3k
    agiqa splits audit agiqa-3k --protocol grouped --pairs 30 --json
    """
    from agiqa.data.datasets.groups import has_own_groups
    from agiqa.data.datasets.table import read_table
    from agiqa.data.leak_audit.overlaps import audit
    from agiqa.data.leak_audit.perceptual import near_hashes, perceptual_hashes
    from agiqa.data.splits.files import protocols_there, read_protocol

    folder = cache / dataset
    table = read_table(folder)
    selected = protocols or tuple(protocols_there(folder))
    if not selected:
        raise AgiqaError(f"{folder}/splits: no split files; run `agiqa prepare {dataset}`")
    splits = {protocol: read_protocol(folder, table, protocol) for protocol in selected}
    near = near_hashes(perceptual_hashes(table), distance)
    audits = {
        protocol: audit(table, frame, near, pairs=pairs) for protocol, frame in splits.items()
    }
    if as_json:
        result = {protocol: asdict(counts) for protocol, counts in audits.items()}
        print_json({"dataset": dataset, "distance": distance, "protocols": result})
        return
    _print(dataset, distance, audits, has_own_groups(table.frame))


def _print(dataset: str, distance: int, audits: "dict[str, Audit]", own_groups: bool) -> None:
    measures = [name for name in MEASURES if own_groups or name != "same_group"]
    rows = []
    for protocol, counted in audits.items():
        for side, other in dict.fromkeys((split.side, split.other) for split in counted.across):
            splits = [s for s in counted.across if (s.side, s.other) == (side, other)]
            images = sum(split.images for split in splits)
            cells = [_share(sum(getattr(split, m) for split in splits), images) for m in measures]
            rows.append([protocol, str(len(splits)), f"{side} in {other}", f"{images:,}", *cells])
    print_table(
        ["protocol", "splits", "sides", "images", *(MEASURES[name] for name in measures)],
        rows,
        title=f"{dataset}: images of one side with a relative on the other, over all splits",
        caption=f"near-identical: another file, at most {distance} of 64 bits differ",
    )
    worst: dict[tuple[str, str], list[Any]] = {}
    for protocol, counted in audits.items():
        for pair in counted.pairs:
            worst.setdefault((pair.one, pair.other), [pair, []])[1].append(
                f"{protocol} {pair.splits}x"
            )
    if not worst:
        echo("No file and no near-identical picture stands on both test and train.")
        return
    print_table(
        ["test and train", "", "bits", "prompt", "scores", "splits"],
        [
            [
                pair.one,
                pair.other,
                "same file" if pair.same_file else str(pair.distance),
                "same" if pair.same_prompt else "other",
                " / ".join(f"{score:.2f}" for score in pair.scores or ()),
                ", ".join(splits),
            ]
            for pair, splits in sorted(worst.values(), key=lambda counted: counted[0].distance)
        ],
        title="The worst pairs",
    )


def _share(count: int, images: int) -> str:
    if not count:
        return "0"
    from agiqa.data.splits.preparing import percent

    return f"{count:,} ({percent(count, images)})"
