"""Run the steps of benchmarks/gpu/run.sh that have no result yet, and print the table.

Each step is a command in a process of its own, ended at its limit with all that it started; what
it printed, how long it took and on which machine go into OUT/results.jsonl as one line. Whatever is
wrong with OUT, the bundle or the machine is one line before the first step, and exit status 2.
"""

import argparse
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import figures
from environment import ask_machine, environment_of, find_bundle, install
from parts import ENTRIES, InputError
from results import Results, Row
from steps import BUDGETS, REPOSITORY, Step, steps

KEPT = 1 << 18  # bytes of what a step printed, its end
ROOM = {False: 12, True: 4}  # GB of disk below OUT, and with --tiny
LEAST = 10  # seconds of its stage's that a step is begun with
USAGE = "bash benchmarks/gpu/run.sh OUT [STAGE...] [--tiny] [--table]"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}: {USAGE}")


def main() -> None:
    """Check all that was given, run what is to be run, print the table.

    Exit status 1 where a step failed, 2 for wrong input, 130 or so after a signal.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        sys.exit(_run(_options()))
    except InputError as refused:
        print(f"run.sh: {refused}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stopped:
        print("run.sh: stopped; the same command goes on", file=sys.stderr)
        sys.exit(128 + int(str(stopped)))


def _stop(number: int, _: object) -> NoReturn:
    """End what is under way, and its processes, on a signal."""
    raise KeyboardInterrupt(number)


def _options() -> argparse.Namespace:
    parser = _Parser(prog="run.sh", usage=USAGE, description=__doc__,
                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("out", nargs="?", help="a folder for the results; a stopped run goes on")
    parser.add_argument("stages", nargs="*", help=f"of {', '.join(BUDGETS)}; all by default")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try it on a CPU")
    parser.add_argument("--table", action="store_true", help="print OUT's table, run nothing")
    chosen = parser.parse_intermixed_args()
    if not chosen.out:
        parser.error("expected a folder for the results, found none")
    if chosen.out in BUDGETS and not Path(chosen.out).is_dir():
        parser.error(f"expected a folder for the results first, found the stage {chosen.out}")
    for stage in chosen.stages:
        if stage not in BUDGETS:
            names = ", ".join(BUDGETS)
            raise InputError(
                f"expected a stage of {names}, found {stage!a}: name one of them, or none"
            )
    if (stand_in := os.environ.get("AGIQA_GPU", "")) not in ("", "cpu"):
        raise InputError(f"AGIQA_GPU: expected cpu or nothing, found {stand_in!a}: unset it")
    return chosen


def _run(chosen: argparse.Namespace) -> int:
    out = _folder(Path(chosen.out), chosen)
    results, work = Results(out), out / "work"
    if chosen.table:
        return _report(results, out)
    if results.done and not work.is_dir():
        raise InputError(
            f"{work}: expected what the finished steps made, found none: give another OUT"
        )
    work.mkdir(exist_ok=True)
    bundle = find_bundle()
    environment = environment_of(work, bundle, install(bundle))
    machine = ask_machine(environment) | {"tiny": chosen.tiny}
    if machine["card"] == "none" and os.environ.get("AGIQA_GPU") != "cpu":
        raise InputError(
            "expected a CUDA device, found none: run it where there is one; to try the script on a "
            "CPU, AGIQA_GPU=cpu bash benchmarks/gpu/run.sh OUT --tiny"
        )
    results.require_same(machine)
    print(figures.words(machine), flush=True)
    stages = chosen.stages or list(BUDGETS)
    chain = [step for step in steps(chosen.tiny) if step.stage in stages]
    run_steps(chain, results, environment, bundle / "unpacked", machine)
    return _report(results, out)


def _folder(out: Path, chosen: argparse.Namespace) -> Path:
    """Make OUT, and see that it can be written and has room."""
    room = 0 if chosen.table else ROOM[chosen.tiny]
    if chosen.table and not (out / "results.jsonl").is_file():
        raise InputError(f"{out}: expected results.jsonl of a run, found none: name another OUT")
    try:
        if out.exists() and not out.is_dir():
            raise InputError(
                f"{out}: expected a folder for the results, found a file: give another OUT"
            )
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            free = shutil.disk_usage(out).free / 1e9
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}): give another OUT") from None
    if free < room:
        raise InputError(
            f"{out}: expected {room} GB of disk, found {free:.1f} GB: make room or give another OUT"
        )
    return out.resolve()


def run_steps(
    chain: Sequence[Step],
    results: Results,
    environment: dict[str, str],
    unpacked: Path,
    machine: Row,
) -> None:
    """Run the steps that have no line without a fault, each within its stage's time."""
    work = results.path.parent / "work"
    left = {stage: 3600.0 if machine["tiny"] else seconds for stage, seconds in BUDGETS.items()}
    for step in chain:
        if (step.stage, step.name) in results.done:
            continue
        row: Row = {"stage": step.stage, "step": step.name, "machine": machine}
        if why := _left_out(step, unpacked, left[step.stage], {name for _, name in results.done}):
            row |= {"status": "left out", "why": why}
        else:
            command = [_path(word, unpacked) for word in step.command]
            limit = left[step.stage] if machine["tiny"] else min(step.limit, left[step.stage])
            begun = time.monotonic()
            status, output = run(command, environment, work, limit, results.fileno())
            seconds = time.monotonic() - begun
            left[step.stage] -= seconds
            row |= {"status": status, "seconds": round(seconds, 1),
                    "command": shlex.join(command), "output": output}  # fmt: skip
        results.add(row)
        print(f"{step.stage:>11} {step.name:<22} {row['status']!s:<9} "
              f"{row.get('seconds', row.get('why'))}", flush=True)  # fmt: skip


def _left_out(step: Step, unpacked: Path, left: float, done: set[str]) -> str:
    """Why a step cannot run; empty where it can."""
    if left < LEAST:
        return "its stage's time is used up"
    if wanting := [name for name in step.after if name not in done]:
        return f"{', '.join(wanting)} has no result"
    if step.needs in ENTRIES:
        return "" if (unpacked / step.needs).exists() else f"the bundle's {step.needs} is not there"
    if step.needs and not importlib.util.find_spec(step.needs):
        return f"the module {step.needs} is not there"
    return ""


def _path(word: str, unpacked: Path) -> str:
    names = {"DATA": "agiqa-3k", "IPCE": "ipce.csv"}
    return str((unpacked / names[word]).resolve()) if word in names else word


def run(
    command: Sequence[str], environment: dict[str, str], work: Path, limit: float, held: int
) -> tuple[int | str, str]:
    """The command's exit status, or why it has none, and the end of what it printed.

    Tests run in the repository, all else in `work`. The command keeps the descriptor `held` open.
    However this ends, so do all processes of the command's group.
    """
    folder = REPOSITORY if "pytest" in command else work
    with tempfile.TemporaryFile(dir=work) as printed:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=printed, stderr=subprocess.STDOUT, process_group=0,
                                   pass_fds=(held,))  # fmt: skip
        try:
            status: int | str = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = f"over {limit:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        printed.seek(max(0, printed.seek(0, os.SEEK_END) - KEPT))
        return status, printed.read().decode("utf-8", "replace")


def _report(results: Results, out: Path) -> int:
    """Print the table and write the file that it rests on; 1 where a step failed."""
    print(f"\n{figures.table(results.rows)}\n")
    rows = figures.latest(results.rows)
    if rows:
        day = datetime.now(UTC).date().isoformat()
        try:
            path = figures.write_evidence(rows, out, day)
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}): make room") from None
        print(f"run.sh: for docs/gpu.md; it rests on {path}, for docs/results", file=sys.stderr)
    return int(any(row["status"] not in (0, "left out") for row in rows))


if __name__ == "__main__":
    main()
