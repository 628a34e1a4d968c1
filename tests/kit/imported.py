"""`python` for tests that start many: everything is imported once, each command is a fork.

imported.py SOCKET   as kit/client.py is told to reach it; serves until its own input ends

`--import a,b -c CODE`: the first such command has these modules imported here.

A command gets its client's streams, folder, environment and process group (or a session of its
own, where the client leads one), and runs as the main program of an interpreter does, to the end.
Where the client is killed, so is the command. `SOCKET.CLIENT` holds the command's process id.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import termios
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub.constants

LATE = ("AyaVisionForConditionalGeneration", "LlamaForCausalLM", "CLIPVisionModel",
        "CLIPImageProcessorPil", "PreTrainedTokenizerFast")  # fmt: skip


def import_all() -> None:
    """Import what commands import, and what transformers loads for the tiny models."""
    gc.disable()  # nothing of it is garbage
    import torch
    import transformers

    import agiqa

    for module in pkgutil.walk_packages(agiqa.__path__, "agiqa."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LATE:
        getattr(transformers, name)
    torch.set_num_threads(1)
    gc.freeze()
    gc.enable()


def open_socket(address: str) -> socket.socket:
    """Whoever connects before the imports are done waits for them."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(address)
    listening.listen()
    return listening


def next_command(address: str, listening: socket.socket) -> tuple[list[int], dict[str, Any]]:
    """Serve clients until the input ends; return in each fork, with its streams and request."""
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                client, _ = listening.accept()
                streams, request = _request(client)
                if request["arguments"][0] == "--import":
                    _, names, *request["arguments"] = request["arguments"]
                    _import_more(names.split(","))
                child = os.fork()
                if child == 0:
                    for other in selector.get_map().values():
                        if isinstance(other.fileobj, int):
                            os.close(other.fileobj)
                        elif other.fileobj is not sys.stdin:
                            other.fileobj.close()
                    return streams, request
                for stream in streams:
                    os.close(stream)
                Path(f"{address}.{request['client']}").write_text(f"{child}\n")
                client.sendall(b"%d\n" % child)
                selector.register(client, selectors.EVENT_READ, child)
                selector.register(os.pidfd_open(child), selectors.EVENT_READ, (child, client))
            elif key.fileobj is sys.stdin:
                sys.exit()
            elif isinstance(key.data, int):  # the client is gone
                selector.unregister(key.fileobj)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(key.data, signal.SIGKILL)
            else:
                child, client = key.data
                selector.unregister(key.fileobj)
                os.close(key.fd)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                with contextlib.suppress(KeyError):
                    selector.unregister(client)
                with contextlib.suppress(BrokenPipeError), client:
                    client.sendall(b"%d\n" % status)


def _import_more(names: list[str]) -> None:
    """Import them here, for all commands that follow; what is not installed is their own error."""
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _request(client: socket.socket) -> tuple[list[int], dict[str, Any]]:
    message, streams, *_ = socket.recv_fds(client, 1 << 20, 3)
    while not message.endswith(b"\n"):
        message += client.recv(1 << 20)
    return streams, json.loads(message)


def become(streams: list[int], request: dict[str, Any]) -> list[str]:
    """Take over the client's streams, group, folder and environment; give the command line."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if request["leads"]:
        os.setsid()
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    else:
        os.setpgid(0, request["group"])  # refused where the group has been killed meanwhile
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # it is the environment's, as are the hub's cache and address
    importlib.reload(huggingface_hub.constants)
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = os.fdopen(
            number,
            "w" if number else "r",
            encoding=encoding,
            errors="backslashreplace" if name == "stderr" else errors or "strict",
            closefd=False,
        )
        if number:
            stream.reconfigure(
                line_buffering=number == 2 or stream.isatty(),
                write_through="PYTHONUNBUFFERED" in os.environ,
            )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    return request["arguments"]


def main(kind: str, *arguments: str) -> object:
    """Run `-c CODE …` or `FILE …` as `python` does; what it passes to sys.exit."""
    sys.argv = [kind, *arguments]
    try:
        if kind == "-c":
            sys.argv = [kind, *arguments[1:]]
            exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.path[0] = str(Path(kind).parent)
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        return end.code
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(code: object) -> NoReturn:
    """End as an interpreter ends, but for freeing its memory, which takes longer than the rest."""
    if isinstance(code, str):
        print(code, file=sys.stderr)  # noqa: T201
    threading._shutdown()  # waits for them
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    socket_here = open_socket(sys.argv[1])
    import_all()
    leave(main(*become(*next_command(sys.argv[1], socket_here))))
