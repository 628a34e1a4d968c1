"""The command line in processes to kill or to cut off from the network (kit/forking.py)."""

import errno
import functools
import os
import socket
from typing import Any

from click.testing import CliRunner

from agiqa.cli import main
from agiqa.store import Shelf
from kit.forking import serve


def agiqa(arguments: list[str], environment: dict[str, str], flush: bool = False) -> dict[str, Any]:
    """Run a command; with `flush` each batch is acknowledged at once, so that kills meet some."""
    os.environ.update(environment)
    if flush:
        Shelf.writer = functools.partialmethod(Shelf.writer, flush_seconds=0.0)
    result = CliRunner().invoke(main, arguments)
    return {"status": result.exit_code, "out": result.stdout, "err": result.stderr}


def agiqa_offline(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a command where every connection fails; `attempts` says where to one was tried."""
    attempts: list[str] = []
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family == getattr(socket, "AF_UNIX", None):  # between our own processes
            return connect(self, address)
        attempts.append(str(address))
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    def look_up(host: Any, *_: Any, **__: Any) -> Any:
        attempts.append(str(host))
        raise socket.gaierror(socket.EAI_AGAIN, "no network")

    socket.socket.connect = socket.socket.connect_ex = refuse  # type: ignore[method-assign]
    socket.getaddrinfo = look_up
    return agiqa(arguments, environment) | {"attempts": attempts}


if __name__ == "__main__":
    serve(agiqa, agiqa_offline)
