"""benchmarks/gpu/run.sh: wrong input is one line and an exit status; no finished step is lost.

The steps here are one-line Python programs; torch is a stand-in with or without a card.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/gpu/run.sh"
Script = Callable[[str], ModuleType]
MACHINE = {"card": "NVIDIA H200, 570.1, 143771 MiB", "cuda": "13.0", "python": "3.12.3",
           "torch": "2.11.0", "transformers": "5.23.0", "cpus": "16", "tiny": False}  # fmt: skip


def run_sh(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a folder of its own, with this Python."""
    names = ("AGIQA_GPU", "BUNDLE", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, words)],
        env=environment | {"PYTHON": sys.executable} | variables,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def refused(*words: object, **variables: str) -> str:
    """The one line with which it refuses."""
    done = run_sh(*words, **variables)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("run.sh: ")
    return line


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Variables with which torch and transformers are stand-ins, with a card or without."""

    def make(card: str = "", torch: str = "") -> dict[str, str]:
        folder = tmp_path / f"modules{card}"
        folder.mkdir(exist_ok=True)
        (folder / "torch.py").write_text(torch or (
            "from types import SimpleNamespace as N\n__version__ = '2.11'\nversion = N(cuda='13')\n"
            f"cuda = N(is_available=lambda: {bool(card)}, get_device_name=lambda: {card!r})\n"
        ))  # fmt: skip
        (folder / "transformers.py").write_text("__version__ = '5.23'\n")
        return {"PYTHONPATH": str(folder)}

    return make


def test_wrong_words_are_one_line(tmp_path: Path) -> None:
    file, out = tmp_path / "file", tmp_path / "out"
    file.touch()
    assert "expected a folder for the results, found none" in refused()
    assert "expected a folder for the results, found none" in refused("--tiny")
    assert "found the stage works" in refused("works", "extraction")
    assert "expected a stage of works, extraction" in refused(out, "work")
    assert "unrecognized arguments: --fast" in refused(out, "--fast")
    assert "found a file" in refused(file)
    assert "Not a directory" in refused(file / "below")
    assert "AGIQA_GPU: expected cpu or nothing, found 'cuda'" in refused(out, AGIQA_GPU="cuda")
    assert "expected Python 3.11 or newer" in refused(out, PYTHON=str(tmp_path / "python"))
    assert "expected results.jsonl of a run" in refused(out, "--table")
    assert not out.exists()


def test_what_a_machine_lacks_is_one_line(
    tmp_path: Path, stand_in: Callable[..., dict[str, str]]
) -> None:
    out = tmp_path / "out"
    no_bundle = str(tmp_path / "nowhere")
    assert "nowhere: expected bundle.json" in refused(out, BUNDLE=no_bundle)
    bundle = {"BUNDLE": str(tmp_path / "bundle")}
    (tmp_path / "bundle/unpacked").mkdir(parents=True)
    broken = stand_in(torch="raise ImportError('libcuda.so: cannot open')")
    line = refused(out, **broken, **bundle)
    assert "expected torch and transformers that load, found ImportError: libcuda.so" in line
    assert "expected a CUDA device, found none" in refused(out, **stand_in(), **bundle)
    assert "expected a CUDA device" in refused(out, "--tiny", **stand_in(), **bundle)
    (tmp_path / "bundle/unpacked/wheels").mkdir()
    (tmp_path / "bundle/unpacked/wheels/torch-1.0-cp39-cp39-win32.whl").write_bytes(b"none")
    assert "pip cannot install the wheels" in refused(out, **stand_in(), **bundle)
    assert not (tmp_path / "bundle/site").exists()
    assert (out / "results.jsonl").read_text() == ""


def test_a_damaged_bundle_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text('{"wheels": {"../x": ""}}')
    assert "found '../x'" in refused(tmp_path / "out", BUNDLE=str(tmp_path))


def test_a_folder_of_another_card_is_refused(
    tmp_path: Path, stand_in: Callable[..., dict[str, str]]
) -> None:
    (tmp_path / "bundle/unpacked").mkdir(parents=True)
    out, work = tmp_path / "out", tmp_path / "out/work"
    work.mkdir(parents=True)
    row = {"stage": "works", "step": "tests", "status": 0, "seconds": 1.0, "machine": MACHINE}
    (out / "results.jsonl").write_text(json.dumps(row) + "\n")
    bundle = {"BUNDLE": str(tmp_path / "bundle")}
    line = refused(out, **stand_in("NVIDIA H100"), **bundle)
    assert "card 'NVIDIA H200'" in line
    assert "card 'NVIDIA H100'" in line
    assert "give another OUT" in line
    shutil.rmtree(work)
    assert "work: expected what the finished steps made" in refused(out, **bundle)


@pytest.fixture
def disk(script: Script, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("run")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=3e9))
    return module


def test_too_little_disk_is_one_line(disk: ModuleType, tmp_path: Path) -> None:
    chosen = SimpleNamespace(tiny=True, table=False)
    with pytest.raises(disk.InputError, match=r"expected 4 GB of disk, found 3\.0 GB: make room"):
        disk._folder(tmp_path / "out", chosen)


@pytest.fixture
def runner(script: Script, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Runs steps, by name a program and what it comes after; returns the lines of results.jsonl."""
    module, results, steps = (script(name) for name in ("run", "results", "steps"))
    (tmp_path / "work").mkdir()

    def run(limit: int = 60, **programs: tuple[str, ...]) -> list[dict[str, Any]]:
        chain = [
            steps.Step("works", name, (sys.executable, "-c", program), limit, "", after)
            for name, (program, *after) in programs.items()
        ]
        held = results.Results(tmp_path)
        try:
            module.run_steps(chain, held, dict(os.environ), tmp_path, MACHINE)
        finally:
            held.close()
        return [json.loads(line) for line in held.path.read_text().splitlines()]

    return run


def counts(name: str, then: str = "") -> tuple[str, ...]:
    """A program that notes each of its runs."""
    return (f"open({name!r}, 'a').write('x'); {then or 'print(1)'}",)


def test_finished_steps_are_not_run_again(
    runner: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    works = {"good": counts("good"), "bad": counts("bad", "raise SystemExit(3)"),
             "later": (*counts("later"), "bad"), "bytes": counts("bytes", (
                 "import sys; sys.stdout.buffer.write(b'\\xff' * 300_000)"))}  # fmt: skip
    rows = runner(**works)
    assert [row["status"] for row in rows] == [0, 3, "left out", 0]
    assert rows[2]["why"] == "bad has no result"
    assert len(rows[3]["output"]) == 1 << 18
    rows = runner(**works | {"bad": counts("bad")})
    assert [row["status"] for row in rows[4:]] == [0, 0]
    times = {name: len((tmp_path / "work" / name).read_text()) for name in works}
    assert times == {"good": 1, "bad": 2, "later": 1, "bytes": 1}


GRANDCHILD = """
import subprocess, sys, time
other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
open('pids', 'w').write(f'{other.pid}')
time.sleep(60)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended, or only waits to be looked at."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_step_over_its_time_ends_with_all_it_started(
    runner: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    (row,) = runner(limit=5, slow=(GRANDCHILD,))
    assert row["status"] == "over 5 s"
    assert gone(int((tmp_path / "work/pids").read_text()))


def test_a_stop_ends_the_step_and_leaves_no_line(
    runner: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def wait() -> None:
        while not (pids.exists() and pids.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    pids = tmp_path / "work/pids"
    before = signal.signal(signal.SIGUSR1, stop)
    threading.Thread(target=wait, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            runner(first=counts("first"), slow=(GRANDCHILD,))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert gone(int(pids.read_text()))
    rows = runner(first=counts("first"), slow=counts("slow"))
    assert [(row["step"], row["status"]) for row in rows] == [("first", 0), ("slow", 0)]
    assert (tmp_path / "work/first").read_text() == "x"


def row(step: str, **fields: Any) -> dict[str, Any]:
    return {"stage": "works", "step": step, "machine": MACHINE, "status": 0, "seconds": 1.5,
            "output": ""} | fields  # fmt: skip


def test_a_line_cut_off_anywhere_loses_itself_alone(script: Script, tmp_path: Path) -> None:
    results = script("results")
    whole = json.dumps(row("first")) + "\n"
    last = json.dumps(row("läst"), ensure_ascii=False).encode()
    path = tmp_path / "results.jsonl"
    for end in sorted({1, len(last) - 1, len(last), *range(0, len(last), 9)}):
        path.write_bytes(whole.encode() + last[:end])
        held = results.Results(tmp_path)
        kept = ["first", *(["läst"] if end == len(last) else [])]
        assert [row["step"] for row in held.rows] == kept
        held.add(row("next"))
        held.close()
        lines = path.read_text("utf-8").splitlines()
        assert [json.loads(line)["step"] for line in lines] == [*kept, "next"]


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "null", "7", '{"stage": "works"}', "\x1b[2J", '{"stage": 1}',
             json.dumps(row("a") | {"machine": "H200"}), json.dumps(row("a") | {"status": None})]
)  # fmt: skip
def test_what_is_no_steps_line_is_refused(script: Script, tmp_path: Path, line: str) -> None:
    results = script("results")
    text = json.dumps(row("first")) + f"\n{line}\n" + json.dumps(row("last")) + "\n"
    (tmp_path / "results.jsonl").write_text(text)
    with pytest.raises(results.InputError, match="line 2: expected a step's JSON line") as refused:
        results.Results(tmp_path)
    assert str(refused.value).isprintable()
    assert (tmp_path / "results.jsonl").read_text() == text


def test_no_file_in_the_place_of_results_is_refused(script: Script, tmp_path: Path) -> None:
    results = script("results")
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(results.InputError, match="expected a file, found something else"):
        results.Results(tmp_path)


def test_one_run_at_a_time_and_none_beside_a_step_that_lives_on(
    script: Script, tmp_path: Path
) -> None:
    results = script("results")
    held = results.Results(tmp_path)
    with pytest.raises(results.InputError, match="expected no other run"):
        results.Results(tmp_path)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleep, pass_fds=(held.fileno(),)) as step:
        held.close()  # as a kill does
        try:
            with pytest.raises(results.InputError, match="a step of a killed one"):
                results.Results(tmp_path)
        finally:
            step.kill()
    results.Results(tmp_path).close()


def test_a_new_driver_is_the_same_card(script: Script, tmp_path: Path) -> None:
    results = script("results")
    held = results.Results(tmp_path)
    held.add(row("tests"))
    held.require_same(MACHINE | {"card": "NVIDIA H200, 580.2, 143771 MiB", "cpus": "8"})
    for other in ({"torch": "2.12.0"}, {"tiny": True}, {"card": "none"}):
        with pytest.raises(results.InputError, match=f"{next(iter(other))} "):
            held.require_same(MACHINE | other)
    held.close()


def test_a_line_that_finds_no_room_is_printed(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    results = script("results")
    held = results.Results(tmp_path)
    held.add(row("first"))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as changed:
        changed.setattr(results.os, "fsync", full)
        with pytest.raises(results.InputError, match="put the line above at its end"):
            held.add(row("last"))
    held.close()
    printed = capsys.readouterr().out
    assert json.loads(printed)["step"] == "last"
    with held.path.open("a") as file:
        file.write(printed)
    again = results.Results(tmp_path)
    assert [row["step"] for row in again.rows] == ["first", "last"]
    again.close()
