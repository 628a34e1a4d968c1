"""How the workers of the fault tests start jobs: everything is imported once, each job is a fork.

A line on standard input is a JSON list of a job and its arguments. The process prints the child's
process id and, when it has ended, its status (0, or minus the signal that killed it) and what the
job had to say, as JSON.
"""

import json
import os
import sys
from collections.abc import Callable


def serve(*jobs: Callable[..., object]) -> None:
    """Do jobs, one after the other, until the input ends."""
    known = {job.__name__: job for job in jobs}
    for line in sys.stdin:
        job, *given = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with os.fdopen(writing, "w") as said:
                json.dump(known[job](*given), said)
            os._exit(0)
        os.close(writing)
        print(child, flush=True)  # noqa: T201
        with os.fdopen(reading) as said:
            text = said.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, json.loads(text or "null")]), flush=True)  # noqa: T201
