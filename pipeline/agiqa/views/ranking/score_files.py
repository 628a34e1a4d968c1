"""Scores as files and on pipes: CSV, TSV, plain table, JSON, JSON Lines, Parquet; row by row."""

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.json_text import json_text
from agiqa.core.spreadsheets import safe_cell
from agiqa.runs.score_notes import notes, what

if TYPE_CHECKING:
    from agiqa.data.images import BadImage
    from agiqa.runs.image_scorer import ImageScorer
    from agiqa.runs.score import Score

BATCH = 10_000  # rows of Parquet in memory
# Separator and digits of rows of text: for cut, sort and awk, or for programs and spreadsheets, in
# which no cell may be taken for a formula.
LAYOUTS = {"table": ("\t", 2), "tsv": ("\t", 4), "csv": (",", 4)}
Types = Mapping[str, type[int] | type[float] | type[str]]  # of the input's columns, by name
STYLES = (*LAYOUTS, "json", "jsonl", "parquet")


@dataclass(frozen=True)
class Scores:
    """What is written: ranked scores, as often as they are asked for, and the images without."""

    ranked: Callable[[], Iterable["Score"]]
    bad: Sequence["BadImage"]
    columns: Sequence[str]  # of the input, beside the figures


def require_parquet() -> None:
    """Refuse Parquet without pyarrow, before any work; AgiqaError."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise AgiqaError("Parquet needs pyarrow: pip install 'agiqa[parquet]'") from error


def write_scores(scores: Scores, scorer: "ImageScorer", style: str, stream: BinaryIO) -> None:
    """Write scores in a style of STYLES; Parquet needs pyarrow (`require_parquet`)."""
    types = dict.fromkeys(scores.columns, str) if style in LAYOUTS else column_types(scores)
    if style == "json":
        _write_json(scores, scorer, types, stream)
    elif style == "jsonl":
        for score in scores.ranked():
            line = json_text(record(score, scorer.provenance, types))
            stream.write(line.encode() + b"\n")
    elif style == "parquet":
        _write_parquet(scores, scorer, types, stream)
    else:
        _write_text(scores, scorer, types, style, stream)


def column_types(scores: Scores) -> Types:
    """Find the type of each column of the input, one for all rows: int, float or str."""
    kinds: dict[str, set[type]] = {name: set() for name in scores.columns}
    for score in scores.ranked() if kinds else ():
        for name, own in kinds.items():
            if (value := score.columns.get(name, "")) != "":
                own.add(type(value))
        if all(str in own for own in kinds.values()):
            break
    return {
        name: str if not own or str in own else float if float in own else int
        for name, own in kinds.items()
    }


def record(score: "Score", provenance: Mapping[str, Any], types: Types) -> dict[str, Any]:
    """Give one image's figures by column, whether the run has seen it, and what was predicted."""
    published = "scorer" in provenance  # then nobody knows of each image
    return {
        "image": printable(score.image),
        "score": score.score,
        "low": score.low,
        "high": score.high,
        "disagreement": score.disagreement,
        **{f"gate_{name}": score.gate[name] for name in provenance["experts"]},
        **{f"score_{name}": score.targets[name] for name in provenance["targets"][1:]},
        "trained_on": None if published else score.trained_on,
        "held_out": score.held_out,
        "target": what(provenance),
        **_columns(score, types),
    }


def _columns(score: "Score", types: Types) -> dict[str, Any]:
    """Give the columns of the input in their types; without a number None."""
    values = {name: score.columns.get(name, "") for name in types}
    return {
        name: None if values[name] == "" and kind is not str else kind(values[name])
        for name, kind in types.items()
    }


def cell(value: object, digits: int) -> str:
    """Write a value of a record as text."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.{digits}f}"
    return printable(value)


def _write_text(
    scores: Scores, scorer: "ImageScorer", types: Types, style: str, stream: BinaryIO
) -> None:
    text = io.TextIOWrapper(stream, "utf-8", errors="backslashreplace", newline="")
    (separator, digits), ending = LAYOUTS[style], "\r\n" if style == "csv" else "\n"
    writer = csv.writer(text, delimiter=separator, lineterminator=ending)
    safe = str if style == "table" else safe_cell
    for number, score in enumerate(scores.ranked()):
        row = record(score, scorer.provenance, types)
        if not number:
            writer.writerow(map(safe, row))
        writer.writerow([safe(cell(value, digits)) for value in row.values()])
    text.flush()
    text.detach()


def _write_json(scores: Scores, scorer: "ImageScorer", types: Types, stream: BinaryIO) -> None:
    """Write one object; for millions of images JSON Lines does better."""
    provenance = scorer.provenance
    low, high = scorer.scale
    unsaid = ("quality_map", "columns")  # for Python alone, and columns that nobody asked for
    content: dict[str, Any] = {
        "scorer" if "scorer" in provenance else "run": scorer.label,
        "dataset": provenance["dataset"],
        "target": provenance["target"],
        "synthetic": provenance["synthetic"],
        "scale": {"low": low, "high": high},
        "notes": notes(scores.ranked(), provenance)[1:],
        "scores": [
            {name: value for name, value in vars(score).items() if name not in unsaid}
            | _columns(score, types)
            for score in scores.ranked()
        ],
        "skipped": [vars(image) for image in scores.bad],
    }
    stream.write((json_text(content, indent=2) + "\n").encode("utf-8", "backslashreplace"))


def _write_parquet(scores: Scores, scorer: "ImageScorer", types: Types, stream: BinaryIO) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = (record(score, scorer.provenance, types) for score in scores.ranked())
    arrow = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    kinds = {"trained_on": pyarrow.bool_(), **dict.fromkeys(("image", "target"), arrow[str])}
    kinds |= {name: arrow[kind] for name, kind in types.items()}
    writer = None
    while batch := list(itertools.islice(rows, BATCH)):
        names = list(batch[0])
        schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in names])
        writer = writer or parquet.ParquetWriter(stream, schema)
        writer.write_table(pyarrow.Table.from_pylist(batch, schema))
    if writer is not None:
        writer.close()
