"""A server of a tiny app, with agiqa's connections and stop: what a test asks, it says on stdout.

python tiny_server.py LIMITS [LATE_SECONDS LAST_SECONDS]     LIMITS as JSON
"""

import asyncio
import json
import os
import socket
import sys
import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from agiqa.views.server import connections
from agiqa.views.server.connections import Server, hold_back_repeated
from agiqa.views.server.guards import Bounded, UnderWay
from agiqa.views.server.limits import Limits


def say(*words: object) -> None:
    # Past sys.stdout, which refuses the handler of a signal that comes while it writes.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        say("started")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("closing")
        return await send({"type": "lifespan.shutdown.complete"})
    body = await Request(scope, receive).body()
    if scope["path"] == "/wait":  # until a file of that name is there
        say("began")
        while not Path(body.decode()).exists():
            await asyncio.sleep(0.01)
    if scope["path"] == "/stuck":  # the loop itself
        say("began")
        time.sleep(1000)
    return await PlainTextResponse("fine")(scope, receive, send)


def late() -> None:
    say("late")
    if connections.LAST_SECONDS > connections.LATE_SECONDS:
        os._exit(7)
    time.sleep(1000)


if __name__ == "__main__":
    limits = Limits(**json.loads(sys.argv[1]))
    if len(sys.argv) > 2:
        connections.LATE_SECONDS, connections.LAST_SECONDS = map(float, sys.argv[2:])
    under_way = UnderWay()
    bounded = Bounded(app, limits, under_way)
    server = Server(bounded, limits, under_way, lambda n: say("stopping", n), late)
    hold_back_repeated()
    with socket.create_server(("127.0.0.1", 0)) as bound:
        say(bound.getsockname()[1])
        server.run(sockets=[bound])
    say("cut off", under_way.cut_off)
