"""Processes that need no interpreter of their own: `python` whose imports are done already."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.workers import environment

KIT = Path(__file__).parent
AGIQA = ("-c", "from agiqa.cli import main; main()")
IMPORT_DVC = ("--import", "dvc.cli.parser,dvc.repo.reproduce,dvc_s3,dvclive")
DVC = (*IMPORT_DVC, "-c", "import sys; from dvc.cli import main; sys.exit(main())")
MOTO = (
    *("--import", "moto.server,moto.s3.responses,moto.iam.responses"),
    *("-c", "from moto.server import main; main()"),
)


@contextmanager
def open_python() -> Iterator[list[str]]:
    """Start kit/imported.py; the words to start a command with, as `[sys.executable]` is."""
    with tempfile.TemporaryDirectory(prefix="py-") as folder:
        address = f"{folder}/socket"
        with subprocess.Popen(
            [sys.executable, str(KIT / "imported.py"), address],
            stdin=subprocess.PIPE,
            env=environment(),
            cwd=folder,
        ) as process:
            while not Path(address).exists():
                assert process.poll() is None, "kit/imported.py has ended"
                time.sleep(0.02)
            yield [sys.executable, "-SE", str(KIT / "client.py"), address]
            process.stdin.close()


def process_id(command: "subprocess.Popen[str]") -> int:
    """Wait for the process id of what a client runs."""
    note = Path(f"{command.args[3]}.{command.pid}")
    while not note.exists() or not (text := note.read_text()):
        assert command.poll() is None, "ended before it began"
        time.sleep(0.01)
    return int(text)
