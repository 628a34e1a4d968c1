"""What strangers put into packs and ledgers in the place of files and of values."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS, MEGABYTES = 10, 256  # that a command may take over any of them
SECRET = "/etc/hostname"  # a file outside
STRANGE: list[Any] = [
    None, True, False, -1, 0, 1, 2**63, 0.5, "", "x", "../../x", "\x1b[31m", "x" * 10_000,
    [], [[]], {}, {"a": {}}, ["a"], ["a", "a"], ["a", 1], [{}, {}], [None, None], "e" * 64,
]  # fmt: skip


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a zarr.json."""
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def replace_by_link(path: Path, target: object) -> None:
    path.rename(path.with_name("aside")) if path.is_dir() else path.unlink()
    path.symlink_to(str(target))


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_socket(path: Path) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
