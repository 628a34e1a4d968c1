"""A stand-in for `python`: has kit/imported.py run its command line, and ends as that ends.

client.py SOCKET ARGUMENTS   standard streams, folder and environment are the client's own
"""

import json
import os
import signal
import socket
import sys

FORWARDED = (signal.SIGTERM, signal.SIGINT)

signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until there is a process to tell
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
    server.connect(sys.argv[1])
    request = {
        "client": os.getpid(),
        "group": os.getpgrp(),
        "leads": os.getsid(0) == os.getpid(),
        "folder": os.getcwd(),  # noqa: PTH109  (pathlib is slow to import)
        "arguments": sys.argv[2:],
        "environment": dict(os.environ),
    }
    socket.send_fds(server, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
    answers = server.makefile()
    pid = int(answers.readline())
    for number in FORWARDED:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    status = int(answers.readline() or 1)
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
