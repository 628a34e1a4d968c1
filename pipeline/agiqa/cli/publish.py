"""`agiqa publish`: a run as a folder for others, on the hub if you like."""

from difflib import get_close_matches
from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import FILE, OUT_FOLDER, as_json, replace_run, run_argument
from agiqa.cli.output import show

# huggingface.co/docs/hub/repositories-licenses
LICENCES = (
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m",
    "bigscience-bloom-rail-1.0", "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd",
    "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0",
    "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0",
    "etalab-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl",
    "lgpl-2.1", "lgpl-3.0", "isc", "h-research", "intel-research", "lppl-1.3c", "ms-pl",
    "apple-ascl", "apple-amlr", "mpl-2.0", "odc-by", "odbl", "openmdw-1.0", "openrail++", "osl-3.0",
    "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl", "lgpl-lr", "deepfloyd-if-license",
    "fair-noncommercial-research-license", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3",
    "llama4", "grok2-community", "gemma", "unknown", "other",
)  # fmt: skip


def _known_licence(_ctx: click.Context, _option: click.Parameter, licence: str) -> str:
    """Give the licence back; an error of usage names near ones where the hub has no such word."""
    if licence not in LICENCES:
        near = get_close_matches(licence, LICENCES, 3) or ["apache-2.0"]
        raise click.UsageError(
            f"--licence expects the hub's word for it, such as {', '.join(near)}, or other; found "
            f"'{licence}'."
        )
    return licence


@click.command("publish", cls=Command)
@run_argument
@click.option("-o", "--out", type=OUT_FOLDER, required=True, help="The folder to make.")
@click.option(
    "--push", metavar="USER/NAME", help="Upload it to the Hugging Face hub, under this name."
)
@click.option("--private", is_flag=True, help="With --push: a new repository is for you alone.")
@click.option(
    "--licence",
    default="unknown",
    show_default=True,
    callback=_known_licence,
    metavar="ID",
    help="Of the run, as the hub spells it: apache-2.0, mit, cc-by-nc-4.0 ...",
)
@click.option("--notes", type=FILE, help="Markdown that the card ends in.")
@click.option(
    "--results",
    is_flag=True,
    help="Publish figures, names, ratings and scores of the tested images, too: for compare.",
)
@replace_run
@as_json
def command(
    run: Path,
    out: Path,
    push: str | None,
    private: bool,
    licence: str,
    notes: Path | None,
    results: bool,
    replace: bool,
    as_json: bool,
) -> None:
    r"""Make a folder of an evaluated RUN that scores images anywhere, with a model card.

    It holds weights, settings, prompts and provenance: no image, no file's name, no prompt of an
    image, nothing of this machine. But the scores of the training images can be reckoned from the
    weights: publish what the data's licence allows. The folder, and `hf://user/name[@revision]`
    once it is on the hub, is what `score --run`, `serve --run` and `explain` take; with --results
    `compare`, too.

    \b
    agiqa publish runs/mine/grouped -o published/mine --licence apache-2.0
    agiqa publish runs/mine/grouped -o published/mine --push me/mine
    agiqa score pictures/ --run hf://me/mine
    """
    from agiqa.core.regular_files import MIB, read_regular
    from agiqa.runs.publish import (
        START,
        load_publishable,
        publish_run,
        push_run,
        require_repository,
    )
    from agiqa.views.model_card import model_card

    if private and push is None:
        raise click.UsageError("--private goes with --push USER/NAME.")
    address = START + require_repository(push) if push else out.resolve().name
    try:
        own = read_regular(notes, MIB).decode("utf-8") if notes else ""
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--notes {notes}: not a readable text ({error}).") from error
    loaded = load_publishable(run)
    card = model_card(loaded, address, licence, own, results)
    files = publish_run(loaded, out, card, results=results, replace=replace)
    about = {
        "folder": str(out),
        "files": ", ".join(files),
        "licence": f"{licence} (--licence says which)" if licence == "unknown" else licence,
        "licence of the data": str(loaded.provenance.get("licence", "unknown")),
    }
    if push:
        about["on the hub"] = push_run(out, push, private)
    show(about | {"next": f"agiqa score pictures/ --run {address if push else out}"}, as_json)
