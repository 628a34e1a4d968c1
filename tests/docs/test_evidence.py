"""Figures are held against their evidence and orphans named; citations have the data sets."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from agiqa.data.datasets import OFFICIAL

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def evidence() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "docs/making/evidence.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLE = "| system | SRCC | of 2,400 images |\n|---|---|---|\n| ours | {} | 12 s |\n"


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
    text = '{"command": "agiqa evaluate", "models": {"moe": [0.8849, 0.0093]}, "seconds": 12}'
    (tmp_path / "docs/results/run.json").write_text(text)
    (tmp_path / "docs/page.md").write_text("<!-- evidence: run.json -->\n" + TABLE.format(".885"))
    (tmp_path / "README.md").write_text(f"{comment}\n{TABLE.format(figure)}".lstrip("\n"))
    count = evidence.main(tmp_path)
    printed = [line for line in capsys.readouterr().out.splitlines() if "ORPHAN" in line]
    assert count == len(printed) == bool(orphans)
    assert orphans in "".join(printed)


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
            evidence.numbers_in(tmp_path / "docs/results" / name)


def test_what_to_cite_is_there() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version"} <= set(citation)
    entries = (ROOT / "docs/references.bib").read_text()
    assert all(f"{{{name}," in entries for name in ("ma-agiqa", *OFFICIAL))
