"""`agiqa` for many stages: everything is imported once, each command is a fork of this process.

What libraries import late, they import in the commands that it first runs itself.
The client (client.py) hands over its folder, arguments, environment and where it writes to; the
command then runs in the client's process group, so that killing the group kills it as well.
"""

import functools
import json
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agiqa.cli import main
from agiqa.store import Shelf, ShelfWriter


def run(folder: str, arguments: list[str], environment: dict[str, str], group: int) -> None:
    """Become the command; each batch is acknowledged at once, so that a kill meets some."""
    os.setpgid(0, group)  # refused where the group has been killed meanwhile
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    Shelf.writer = functools.partialmethod(Shelf.writer, flush_seconds=0.0)  # type: ignore
    add = ShelfWriter.add

    def noted(writer: ShelfWriter, ids: Sequence[str], vectors: Any) -> None:
        """Add rows that have been computed, and note that they were."""
        with Path(environment["AGIQA_COMPUTED"]).open("a") as log:
            log.write("".join(f"{writer.shelf.folder.name} {row_id}\n" for row_id in ids))
        add(writer, ids, vectors)

    ShelfWriter.add = noted  # type: ignore[method-assign]
    main(arguments, prog_name="agiqa")


def serve(place: str) -> None:
    """Take commands, one thread for each that runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(place)
        listening.listen()
        while True:
            asked, _ = listening.accept()
            message, files, *_ = socket.recv_fds(asked, 1 << 20, 2)
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    for number, file in enumerate(files, start=1):
                        os.dup2(file, number)
                    run(*json.loads(message))
                except SystemExit as end:
                    status = end.code if isinstance(end.code, int) else 1
                except BaseException as error:
                    os.write(2, f"{error!r}\n".encode())
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            for file in files:
                os.close(file)
            threading.Thread(target=_tell, args=(child, asked), daemon=True).start()


def _tell(child: int, asked: socket.socket) -> None:
    """Tell the client how its command ended, if it still lives."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with asked:
        try:
            asked.sendall(bytes([status % 256]))
        except OSError:
            return


def warm_up(settings: str, dataset: str) -> None:
    """Run a data set through all commands, in the folder that this process stands in."""
    for command in (
        ["prepare", dataset, "--params", settings],
        ["extract", dataset, "--params", settings],
        ["fit", dataset, "--params", settings, "--protocol", "paper", "-o", "run"],
        ["evaluate", "run"],
        ["report", "run"],
    ):
        main(["--quiet", *command], prog_name="agiqa", standalone_mode=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warm_up(*sys.argv[2:])
    serve(sys.argv[1])
