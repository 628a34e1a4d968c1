"""`agiqa score` on terminals of several kinds, through real pseudo-terminals, and off them."""

import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from agiqa.cli.score import style_of
from agiqa.core.errors import AgiqaError
from agiqa.runs.score import Score
from agiqa.runs.score_notes import notes
from agiqa.views.ranking import terminal
from agiqa.views.ranking.score_files import LAYOUTS, STYLES, Scores, write_scores
from agiqa.views.ranking.terminal import print_ranking

PROVENANCE = {
    "experts": ["visual", "semantic_content"],
    "synthetic": False,
    "target": "quality",
    "targets": ["quality"],
    "dataset": "tiny",
    "mos": {"low": 1.0, "high": 5.0},
}


GATE = {"visual": 1.0, "semantic_content": 0.0}


def scores_of(count: int) -> list[Score]:
    return [
        Score(f"pictures/{n:05d}.png", 5 - 4 * n / count, 0.5, 4.5, 0.1, GATE)
        for n in range(count)
    ]  # fmt: skip


def shown(
    scores: list[Score],
    width: int = 110,
    provenance: Mapping[str, Any] = PROVENANCE,
    **options: Any,
) -> list[str]:
    """What is printed on a terminal so wide, escapes left out."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, no_color=True, color_system=None)
    print_ranking(scores, provenance, console, **options)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 40, 48, 60, 72, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = Score("p/" * 60 + "日本語.png", -3.0, -4.0, -2.0, 0.5, GATE)
    lines = shown([*scores_of(60), long], width)
    assert max(map(cell_len, lines)) <= width
    assert any("00000.png" in line and "5.00" in line for line in lines)
    assert any(line.rstrip().count("日本語.png") for line in lines)


def test_bars_show_the_score_and_the_gate() -> None:
    high, low = (Score(n, s, s - 1, s + 1, 0, {"visual": 1 - g, "semantic_content": g})
                 for n, s, g in (("a", 5.0, 0.0), ("b", 2.0, 0.5)))  # fmt: skip
    rows = [line for line in shown([high, low]) if line.strip().startswith(("1", "2"))]
    assert rows[0].count("▆") == 12
    assert rows[0].count("▄") == 14  # the score's whole bar; no weight of the second expert
    assert rows[1].count("▄") - 6 == 3  # a quarter of the scale; half the gate
    assert "▖" in rows[1]
    assert rows[1].count("▆") == 6


def written(
    scores: Sequence[Score],
    style: str,
    columns: Sequence[str] = (),
    provenance: Mapping[str, Any] = PROVENANCE,
) -> bytes:
    """What the scores of a run look like in that style."""
    stream = io.BytesIO()
    scorer: Any = SimpleNamespace(provenance=provenance, scale=(1.0, 5.0), label="runs/tiny")
    write_scores(Scores(lambda: scores, [], columns), scorer, style, stream)
    return stream.getvalue()


def test_kept_columns_have_one_type_in_all_rows() -> None:
    """Whatever the parts of the input: numbers stay numbers where all are."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    values: dict[str, tuple[Any, Any]] = {"seed": (7, 8), "mos": (3, 2.125), "mixed": (3, "x")}
    values |= {"some": (1.5, ""), "none": ("", "")}
    scores = [
        replace(score, columns={name: pair[row] for name, pair in values.items()})
        for row, score in enumerate(scores_of(2))
    ]
    expected = {"seed": (7, 8), "mos": (3.0, 2.125), "mixed": ("3", "x"), "some": (1.5, None)}
    table = parquet.read_table(io.BytesIO(written(scores, "parquet", list(values))))
    types = {name: str(table.schema.field(name).type) for name in values}
    assert list(types.values()) == ["int64", "double", "string", "double", "string"]
    lines = written(scores, "jsonl", list(values)).splitlines()
    whole = json.loads(written(scores, "json", list(values)))["scores"]
    for rows in (table.to_pylist(), [json.loads(line) for line in lines], whole):
        assert {name: tuple(row[name] for row in rows) for name in expected} == expected
    _, first, second = csv.reader(io.StringIO(written(scores, "csv", list(values)).decode()))
    assert (first[-5:], second[-5:]) == (["7", "3", "3", "1.5", ""], ["8", "2.125", "x", "", ""])


def test_further_targets_have_columns_of_their_own() -> None:
    two = {**PROVENANCE, "targets": ["quality", "alignment"]}
    scores = [Score("a.png", 4.0, 3.0, 5.0, 0.1, GATE, {"quality": 4.0, "alignment": 2.25})]
    lines = written(scores, "table", provenance=two).decode().splitlines()
    by_name = dict(zip(*(line.split("\t") for line in lines), strict=True))
    assert by_name["score_alignment"] == "2.25"
    assert (by_name["trained_on"], by_name["held_out"], by_name["target"]) == ("no", "", "quality")
    lines = shown(scores, 100, two)
    assert any("2.25" in line for line in lines if "a.png" in line)
    assert max(map(cell_len, lines)) <= 100


def test_ten_thousand_images_do_not_flood() -> None:
    lines = shown(scores_of(10_000))
    assert len(lines) < 50
    assert any("9,965 more" in line for line in lines)
    assert "the 25 best and the 10 worst of 10,000 images" in lines[-1]
    assert any("09999.png" in line for line in lines)
    lines = shown(scores_of(10_000), top=3)
    assert sum(".png" in line for line in lines) == 3
    assert "the 3 best of 10,000 images" in lines[-1]
    assert not any(" of 35 images" in line for line in shown(scores_of(35)))


def test_names_move_no_cursor_and_make_no_markup() -> None:
    evil = Score("a\x1b[2J\n[red]b.png", 3.0, None, None, 0.1, GATE)
    (line,) = [line for line in shown([evil]) if "b.png" in line]
    assert r"a\u001b[2J\u000a[red]b.png" in line
    text = written([evil], "table").decode()
    row = r"a\u001b[2J\u000a[red]b.png" + "\t3.00\t\t\t0.10\t1.00\t0.00\tno\t\tquality"
    assert text.splitlines()[1:] == [row]


def test_every_format_says_what_scores_are_and_which_are_optimistic() -> None:
    scores = [
        Score("=seen.png", 6.25, 5.25, 7.25, 0.1, GATE, trained_on=True, held_out=4.5),
        Score("new.png", 3.0, 2.0, 4.0, 0.1, GATE),
    ]
    synthetic = {**PROVENANCE, "synthetic": True}
    for name, (separator, _) in LAYOUTS.items():
        text = io.StringIO(written(scores, name, provenance=synthetic).decode(), newline="")
        seen, new = csv.DictReader(text, delimiter=separator)
        assert seen["image"] == ("=seen.png" if name == "table" else "'=seen.png")
        assert (seen["trained_on"], float(seen["held_out"])) == ("yes", 4.5)
        assert (new["trained_on"], new["held_out"]) == ("no", "")
        assert {seen["target"], new["target"]} == {"synthetic severity"}
    scale, outside, trained = notes(scores, synthetic)
    assert scale == "Scores: synthetic severity on the scale of tiny, 1.00 to 5.00."
    assert outside.startswith("1 of 2 scores lie outside 1.00 to 5.00, the synthetic severity in")
    assert trained.startswith("1 of 2 images were in the run's training: their scores are optim")
    unknown = [replace(scores[0], held_out=None), scores[1]]
    assert notes(unknown, synthetic)[-1].endswith("agiqa evaluate gives what the splits say that "
                                                  "had not seen them.")  # fmt: skip
    (in_sample,) = notes(unknown, synthetic | {"published": "agiqa-3k"})[2:]
    assert in_sample.endswith("; they are in-sample and no evidence of how well it rates.")
    lines = shown(scores, 160)
    (row,) = [line for line in lines if "seen.png" in line]
    assert "held out" in lines[0]
    assert "4.50" in row
    assert any("their scores are optimistic" in line for line in lines)
    assert not any("held out" in line or "optimistic" in line for line in shown(scores_of(3), 160))


@pytest.mark.parametrize(
    ("style", "out", "expected"),
    [
        (None, None, "table"),
        ("json", None, "json"),
        (None, "a.csv", "csv"),
        (None, "a.TSV", "tsv"),
        (None, "a.json", "json"),
        ("csv", "scores", "csv"),
        ("csv", "a.csv", "csv"),
        (None, "a.parquet", "parquet"),
        (None, "a.jsonl", "jsonl"),
        (None, "a.xlsx", ".csv, .tsv, .txt, .json"),
        ("csv", "a.xlsx", ".csv, .tsv, .txt, .json"),
        (None, "a.html", "--html writes a page"),
        (None, "scores", "or --format"),
        ("json", "a.csv", "choose one"),
    ],
)
def test_the_files_name_decides_how_scores_are_written(
    style: str | None, out: str | None, expected: str
) -> None:
    path = None if out is None else Path(out)
    if expected in STYLES:
        assert style_of(style, path) == expected
    else:
        with pytest.raises(click.UsageError, match=re.escape(expected)):
            style_of(style, path)


CODE = """
import sys
from pathlib import Path
from agiqa.views.ranking.terminal import pictures
from PIL import Image
from rich.console import Console
from rich.text import Text
made = pictures(sys.argv[1])
print("NONE" if made is None else "SOME", flush=True)
if made is not None:
    Console().print(made(Path(sys.argv[2])))
"""


def on_a_terminal(
    python: list[str],
    image: Path,
    mode: str,
    answers: Mapping[bytes, bytes],
    environment: Mapping[str, str],
) -> bytes:
    """What a process writes to a terminal that answers queries so."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(
        [*python, "-c", CODE, mode, str(image)],
        stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment},
    )  # fmt: skip
    written, asked = b"", 0
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.05)[0]:
            try:
                written += os.read(ours, 65536)
            except OSError:
                break
            for query, answer in answers.items():
                if query in written[asked:]:
                    asked = len(written)
                    os.write(ours, answer)
        elif process.poll() is not None:
            break
    assert process.wait() == 0, written
    os.close(ours)
    os.close(theirs)
    return written


SIXEL = {b"\x1b[c": b"\x1b[?62;4;22c", b"\x1b[16t": b"\x1b[6;20;10t"}
KITTY = {
    b"\x1b[c": b"\x1b[?62;22c",
    b"\x1b_G": b"\x1b_Gi=1;OK\x1b\\",
    b"\x1b[16t": b"\x1b[6;20;10t",
}
PLAIN = {b"\x1b[c": b"\x1b[?62;22c"}


@pytest.mark.parametrize(
    ("mode", "answers", "environment", "expected"),
    [
        ("auto", SIXEL, {}, b"\x1bP"),
        ("auto", KITTY, {}, b"\x1b_Gi="),
        ("auto", PLAIN, {}, b"NONE"),
        ("auto", SIXEL, {"NO_COLOR": "1"}, b"NONE"),
        ("auto", SIXEL, {"TERM": "dumb"}, b"NONE"),
        ("never", SIXEL, {}, b"NONE"),
        ("always", PLAIN, {}, "▀".encode()),
    ],
)
def test_thumbnails_where_the_terminal_has_them(
    mode: str, answers: dict[bytes, bytes], environment: dict[str, str], expected: bytes,
    write_images, python: list[str],
) -> None:  # fmt: skip
    environment = {"NO_COLOR": "", **environment}
    image = write_images("a.png") / "a.png"
    written = on_a_terminal(python, image, mode, answers, environment)
    assert expected in written
    assert (b"NONE" in written) == (expected == b"NONE")


def test_an_image_that_is_no_file_has_no_thumbnail(tmp_path: Path) -> None:
    """Of a shard or at a URL; it is in the table all the same."""
    file = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(file)
    drawn: list[Path] = []

    def picture(path: Path) -> Text:
        terminal._small(path)  # raises where there is none
        drawn.append(path)
        return Text("##")

    names = [str(file), "s.tar:b.png", "https://example.org/c.png"]
    lines = shown([Score(name, 3.0, 2.0, 4.0, 0.1, GATE) for name in names], 160, picture=picture)
    assert drawn == [file]
    assert sum("b.png" in line or "c.png" in line for line in lines) == 2


def test_without_the_terminal_extra_the_table_has_no_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "textual_image", None)
    monkeypatch.setattr(terminal, "_is_ours", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.pictures("auto") is None
    with pytest.raises(AgiqaError, match=r"pip install 'agiqa\[terminal\]'"):
        terminal.pictures("always")
