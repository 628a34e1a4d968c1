"""`agiqa serve`: a page to drop images on, and a JSON API."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import cache, number, remote_code, run_option
from agiqa.cli.output import echo


@click.command("serve", cls=Command)
@run_option(help="The run to serve. Default: the one that comes with agiqa.")
@cache
@remote_code
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; others than this machine reach it only if you change this.",
)
@number("--port", 8000, "Port to listen on; 0: any that is free.", most=65535)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="A further host name to answer to, such as a proxy's. Repeatable.",
)
@number("--max-request", 64, "Largest request.", 1, 4096, metavar="MIB")
@number("--max-files", 64, "Most images in a request.", 1, 1000)
@number("--queue", 512, "Most images that wait for the models.", 1)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest that a request may take.",
)
@number(
    "--batch-size",
    0,
    "Images at a time in the models; 0: 1 on a CPU, the extractors' own on a GPU.",
)
@click.option(
    "--forget", is_flag=True, help="Keep no vectors of the images; known ones are not used either."
)
def command(
    run: Path | None,
    cache: Path,
    remote_code: str,
    host: str,
    port: int,
    names: tuple[str, ...],
    max_request: int,
    max_files: int,
    queue: int,
    timeout: float,
    batch_size: int,
    forget: bool,
) -> None:
    r"""Serve a page to drop images on and a JSON API, for this machine alone.

    The page gives scores with intervals, gate, map, reasons and rated images that look alike, and
    ranks what was dropped. /docs describes the API, /metrics is for Prometheus.

    \b
    agiqa serve
    agiqa serve --run runs/agiqa-3k/grouped
    agiqa serve --run runs/agiqa-3k/grouped --port 8080
    """
    from agiqa.runs.files import load_provenance
    from agiqa.runs.score import default_run
    from agiqa.views.server.limits import MIB, Limits
    from agiqa.views.server.server import Serving, serve

    run = run or default_run()
    load_provenance(run)  # a wrong run is said before anything loads
    limits = Limits(request_bytes=max_request * MIB, files=max_files, queue=queue, seconds=timeout)
    started = time.monotonic()
    how = Serving(run, cache, host, port, names, batch_size, forget, limits, remote_code)
    before, cut_off = signal.signal(signal.SIGTERM, _stop), 0
    try:
        with suppress(KeyboardInterrupt):
            cut_off = serve(
                how,
                partial(_say_where, host),
                lambda: _say(f"Ready after {time.monotonic() - started:.0f} s."),
                lambda requests: _say(
                    f"Stopping: {requests} requests are answered first, for at most {timeout:g} s; "
                    "another signal (Ctrl-C) stops at once."
                ),
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    _say(f"Stopped; {cut_off} requests were not answered." if cut_off else "Stopped.")
    _leave(1 if cut_off else 0)


def _say_where(host: str, url: str) -> None:
    from agiqa.views.server.server import is_local

    if not is_local(host):
        echo(
            f"Warning: --host {host}: whoever reaches this machine can send images. There is "
            "no password and no encryption: put a proxy that has both before it.",
            err=True,
        )
    _say(f"{url}  (Ctrl-C stops it; the models are loading)")


def _say(line: str) -> None:
    """Print the line; that nobody reads it any more (`agiqa serve … | head -1`) ends no server.

    Nor does a signal in the middle of another line, whose handler finds stdout busy.
    """
    with suppress(OSError, RuntimeError):
        echo(line)


def _leave(status: int) -> None:
    """End the process, though a thread may still be at work on what nobody waits for."""
    if threading.active_count() > 1:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _stop(*_: object) -> None:
    """End as Ctrl-C does: the default would leave the temporary folder behind."""
    raise KeyboardInterrupt
