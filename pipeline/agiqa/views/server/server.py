"""`agiqa serve`: a run that can score, a free port, then uvicorn until it is stopped."""

import errno
import ipaddress
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.runs.files import Run, load_run
from agiqa.runs.score import Scorer
from agiqa.views.server.limits import Limits

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serving:
    """How to serve a run."""

    run: Path
    cache: Path = Path("cache")
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    names: Sequence[str] = ()  # further names in the Host header that are answered
    batch_size: int = 0  # images at a time in the models; 0: 1 on a CPU, else the extractors'
    forget: bool = False  # keep no vectors of the images that come in
    limits: Limits = field(default_factory=Limits)
    remote_code: str = ""  # what the run's model may run, as `create_scorer` takes it


def serve(
    how: Serving,
    on_start: Callable[[str], object] = lambda _: None,
    on_ready: Callable[[], object] = lambda: None,
    on_stop: Callable[[int], object] = lambda _: None,
) -> int:
    """Serve until a signal, and then until what is under way is answered.

    Args:
        how: what and where.
        on_start: called with the URL once the port is bound.
        on_ready: called, from another thread, once the models are loaded.
        on_stop: called at the first signal with the number of requests that are finished first.

    Returns:
        How many requests the stop has cut off: answered with 503 when their time, or a second
        signal, had come.

    Raises:
        AgiqaError: the run cannot score, the address is taken or is not of this machine, or the
            models do not load.
    """
    try:
        from agiqa.views.server import api, connections, guards, service
    except ImportError as error:
        raise AgiqaError(
            f"agiqa serve needs the extra 'serve' (no module {error.name}): "
            "pip install 'agiqa[serve]'"
        ) from error
    failures: list[BaseException] = []
    limits, requests = connections.limited_by_descriptors(how.limits), guards.UnderWay()
    with tempfile.TemporaryDirectory("", "agiqa-serve-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        run = for_serving(load_run(how.run, how.remote_code), how.batch_size)
        scorer = Scorer(run, folder / "ledger" if how.forget else None)
        bound = bind(how.host, how.port)

        def give_up(error: BaseException) -> None:
            failures.append(error)
            server.should_exit = True

        uploads = folder / "uploads"
        held = service.Service(scorer, how.cache, uploads, limits, on_ready, give_up)
        hosts = ["*"] if not is_local(how.host) and not how.names else [*LOCAL_NAMES, *how.names]
        app = api.make_app(held, hosts, requests)
        server = connections.Server(app, limits, requests, on_stop, partial(_leave_behind, folder))
        name = f"[{how.host}]" if ":" in how.host else how.host
        on_start(f"http://{name}:{bound.getsockname()[1]}/")
        connections.hold_back_repeated()
        with bound:
            server.run(sockets=[bound])
        held.models.join(connections.CLOSING_SECONDS)
    if failures:
        raise AgiqaError(f"{how.run}: its models do not load ({failures[0]}).") from failures[0]
    return requests.cut_off


def _leave_behind(folder: Path) -> None:
    log.error("Something did not end within the grace of the stop; it is left behind.")
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def bind(host: str, port: int) -> socket.socket:
    """A socket at that address, not yet listening.

    Raises:
        AgiqaError: the port is in use or may not be taken, or the host is not of this machine.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, number)
    except OSError as error:
        raise AgiqaError(
            f"--host {host}: {error.strerror}; leave it out for this machine."
        ) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            why = f"Port {port} of {host} is in use: stop what listens there, or take another"
            raise AgiqaError(f"{why}, such as --port {port + 1}, or --port 0 for any.") from error
        if error.errno == errno.EACCES:
            raise AgiqaError(f"Port {port} may not be taken by this user: --port 8000.") from error
        raise AgiqaError(
            f"--host {host}: not an address of this machine ({error.strerror}); leave it out, or "
            "give 0.0.0.0 for all."
        ) from error
    return bound


def is_local(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def for_serving(run: Run, batch_size: int) -> Run:
    """The run with files decoded in this process, and small batches.

    Extraction fills up every batch, so that a row never depends on its batch to the last bit: one
    image then costs as much as sixteen. On a CPU a batch gains next to nothing, and is one image.
    """
    import torch

    if batch_size == 0 and not torch.cuda.is_available():
        batch_size = 1
    semantic = replace(run.params.semantic, workers=0)
    visual = replace(run.params.visual, workers=0)
    paper = replace(run.params.paper, workers=0)
    if batch_size:
        semantic = replace(semantic, batch_size=batch_size)
        visual = replace(visual, batch_size=batch_size)
    params = replace(run.params, semantic=semantic, visual=visual, paper=paper)
    return replace(run, params=params)
