"""The command line: a command's module is loaded when the command is called."""

import io
import logging
import os
import sys
from typing import Any

import click

from agiqa import __version__
from agiqa.cli.lazy import LazyGroup, keep_lines
from agiqa.cli.output import PlainFormatter, echo
from agiqa.core.errors import AgiqaError, UsageError, printable

# Command: its module here (`:name` where that has several) and the line that `agiqa --help` shows.
COMMANDS = {
    "nano": ("extract:nano", "Assemble the embedded LMM."),
    "prepare": ("prepare", "Read a data set: images table and splits."),
    "datasets": ("datasets", "Official data sets: what they are, where to get them, what is here."),
    "splits": ("splits", "Protocols: show, import, export, and audit for leaks."),
    "extractors": ("extract:extractors", "Models that can look at the images, and what they cost."),
    "extract": ("extract", "Stage 1: vectors of every image, cached."),
    "fit": ("fit", "Stage 2: train the regressors from cached vectors."),
    "import-checkpoint": ("fit:import_checkpoint", "A checkpoint of MA-AGIQA's authors as a run."),
    "evaluate": ("evaluate", "Score the test sides of a run and measure."),
    "compare": ("compare", "Runs on the same splits, paired: differences, intervals, p."),
    "cross": ("evaluate:cross", "Test runs on each other's data sets: one matrix."),
    "table": ("compare:table", "Results of many runs side by side, published ones beside them."),
    "ceiling": ("evaluate:ceiling", "What the raters' own disagreement leaves to be reached."),
    "report": ("report", "One HTML page about a run."),
    "score": ("score", "Score new images with a run."),
    "select": ("select", "Images chosen by their scores: listed, copied or linked."),
    "explain": ("explain", "Why: maps, reasons and rated neighbours of images."),
    "serve": ("serve", "A page to drop images on, and a JSON API."),
    "publish": ("publish", "A run as a folder for others, with a card; on the hub if you like."),
    "cache": ("cache", "Care for the stores of vectors: list, verify, merge, export ..."),
}

# Rounds that an idle thread of torch waits for others before it sleeps: some 30 µs. The default is
# 30 times as long, which burns half the processor where other programs want it.
SPINS = "10000"


class Agiqa(LazyGroup):
    """All commands; turns user errors into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an AgiqaError or a full disk is one line and exit status 1."""
        if "OMP_WAIT_POLICY" not in os.environ:  # read once, as torch is loaded
            os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise click.UsageError(printable(error)) from error
        except (AgiqaError, KeyboardInterrupt, OSError, MemoryError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):  # `… | head`: click's
                raise
            echo(f"Error: {printable(' '.join(_explain(error).split()))}", err=True)
            sys.exit(1)


def _explain(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted. Finished rows are kept; the same command goes on from there."
    if isinstance(error, MemoryError):
        return "not enough memory. Finished rows are kept; free some, or give smaller batches."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    return str(error)


@click.group(cls=Agiqa, loads=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
@click.version_option(__version__, prog_name="agiqa")
def main(debug: bool, quiet: bool) -> None:
    r"""Quality scores for AI-generated images.

    A large multi-modality model sees every image once (extract); a light mixture of experts then
    trains from its cached vectors, many times (fit).

    \b
    agiqa prepare demo && agiqa extract demo && agiqa fit demo
    agiqa evaluate runs/demo/grouped && agiqa report runs/demo/grouped
    agiqa score holiday.png pictures/ --run runs/demo/grouped

    Settings come from params.yaml; --set section.key=value overrides one.
    """
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is no end
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    logging.getLogger("agiqa").setLevel(level)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.DEBUG if debug else logging.ERROR)


keep_lines(main)
