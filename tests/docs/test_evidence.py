"""Figures are held against their evidence and orphans named; citations have the data sets."""

from pathlib import Path
from types import ModuleType

import pytest
import yaml

from agiqa.data.datasets import OFFICIAL
from kit.making import ROOT, load_script


@pytest.fixture(scope="module")
def evidence() -> ModuleType:
    return load_script("evidence")


TABLE = "| system | SRCC | of many images |\n|---|---|---|\n| ours | {} | 12 s |\n"
RUN = """{"command": "agiqa evaluate", "protocol": "%s", "target": "quality", "sha256": "%s",
"models": {"moe": {"srcc": {"median": %s}}, "ridge": {"srcc": {"median": 0.8501}}}}"""


@pytest.mark.parametrize(
    ("comment", "figure", "orphans"),
    [
        ("<!-- evidence: run.json -->", ".885 ± .009", ""),
        ("<!-- evidence: run.json -->\n", "**.8849** (95 %)", ""),
        ("<!-- evidence: run.json, published -->", ".885 beside .8841", ""),
        ("", ".885", "README.md:1: .885 12 (evidence: none"),
        ("<!-- evidence: run.json -->", ".887", "README.md:2: .887 (evidence: run.json"),
        ("<!-- evidence: run.json -->", "−.885", "README.md:2: −.885"),
        ("<!-- evidence: run.json -->", "4 GiB", "README.md:2: 4 (evidence"),
        ("<!-- evidence: gone.json -->", ".885", "no such evidence: gone.json"),
        ("<!-- evidence: run.json -->\n## Next", ".885", "README.md:3: .885 12 (evidence: none"),
        ("<!-- evidence: settings -->", "4 GiB", ""),
        ("<!-- evidence: run.json -->", "12 of 2,400", "README.md:2: 2,400 (evidence"),
        ("<!-- evidence: run.json -->", "37", "README.md:2: 37 (evidence"),
        ("<!-- evidence: run.json -->", "`abcdef012345`", ""),
        ("<!-- evidence: run.json -->", "`abcdef012346`", "README.md:2: abcdef012346 (evidence"),
        ("<!-- evidence: run.json#models.moe -->", ".885", "README.md:2: 12 (evidence: run.json#"),
    ],
)
def test_a_figure_is_found_or_an_orphan(
    evidence: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    comment: str,
    figure: str,
    orphans: str,
) -> None:
    (tmp_path / "docs/results").mkdir(parents=True)
    text = """{"command": "agiqa evaluate", "models": {"moe": [0.8849, 0.0093]}, "seconds": 12,
    "predictions_sha256": "abcdef0123456789"}"""
    (tmp_path / "docs/results/run.json").write_text(text)
    (tmp_path / "docs/page.md").write_text("<!-- evidence: run.json -->\n" + TABLE.format(".885"))
    (tmp_path / "README.md").write_text(f"{comment}\n{TABLE.format(figure)}".lstrip("\n"))
    count = evidence.main(tmp_path)
    printed = [line for line in capsys.readouterr().out.splitlines() if "ORPHAN" in line]
    assert count == len(printed) == bool(orphans)
    assert orphans in "".join(printed)


@pytest.mark.parametrize(
    ("row", "orphans"),
    [
        ("| mixture of experts | .885 | .879 |", ""),
        ("| **Ridge, visual and semantic** | .850 | .850 |", ""),
        ("| ridge, visual and semantic | .885 | .850 |", ".885"),  # another model's
        ("| mixture of experts | .879 | .879 |", ".879"),  # another run's
        ("| a model of no name | .885 | .879 |", ".885 .879"),
    ],
)
def test_a_row_is_held_against_its_own_model_and_run(
    evidence: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    row: str,
    orphans: str,
) -> None:
    (tmp_path / "docs/results").mkdir(parents=True)
    for protocol, srcc in (("grouped", 0.8849), ("random", 0.8791)):
        text = RUN % (protocol, "a" * 64, srcc)
        (tmp_path / f"docs/results/{protocol}.json").write_text(text)
    (tmp_path / "README.md").write_text(
        f"<!-- evidence: grouped.json, random.json -->\n| SRCC | `grouped` | random |\n{row}\n"
    )
    assert evidence.main(tmp_path) == bool(orphans)
    assert not orphans or f"README.md:2: {orphans} (evid" in capsys.readouterr().out


def test_output_under_its_evidence_is_held_and_transcribed_is_counted_apart(
    evidence: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs/results").mkdir(parents=True)
    (tmp_path / "scorers/one").mkdir(parents=True)
    (tmp_path / "docs/results/a.txt").write_text("$ make demo\n.25 and .75\n")
    (tmp_path / "docs/results/b.txt").write_text(
        "$ make demo\nas README.md had them; not run again since\n.50\n"
    )
    (tmp_path / "README.md").write_text(
        "<!-- evidence: a.txt -->\n\n    $ agiqa compare a b 0.3\n    SRCC  .25  .26\n\n    .99\n"
    )
    (tmp_path / "scorers/one/README.md").write_text(
        "<!-- evidence: a.txt, b.txt -->\n| a | b |\n|---|---|\n| x | .50 |\n"
    )
    assert evidence.main(tmp_path) == 1
    out = capsys.readouterr().out
    assert "ORPHAN README.md:3: .26 (evidence: a.txt)" in out
    assert "1 measured, 1 transcribed (the page against itself), 0 published, 0 settings" in out
    assert "2 result files, 1 of them transcribed" in out


def test_a_result_file_names_its_command_and_has_a_table(
    evidence: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs/results").mkdir(parents=True)
    (tmp_path / "README.md").write_text("No table.\n")
    (tmp_path / "docs/results/a.txt").write_text("$ make demo\n12 s\n")
    assert evidence.main(tmp_path) == 1
    assert "docs/results/a.txt: no page names it" in capsys.readouterr().out
    for name, text in (("b.json", "{}"), ("b.txt", "12 s\n")):
        (tmp_path / "docs/results" / name).write_text(text)
        with pytest.raises(ValueError, match=r"expected .*command"):
            evidence.read(tmp_path / "docs/results" / name)


def test_what_to_cite_is_there() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version"} <= set(citation)
    entries = (ROOT / "docs/references.bib").read_text()
    assert all(f"{{{name}," in entries for name in ("ma-agiqa", *OFFICIAL))
