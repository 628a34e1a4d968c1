"""Every word of ours is explained once, and every page that uses them links there."""

import re
from pathlib import Path

from agiqa.runs.score import Score
from agiqa.views.ranking.score_files import record

DOCS = Path(__file__).parents[2] / "docs"
OURS = (
    "gate",
    "expert",
    "shelf",
    "pack",
    "ledger",
    "protocol",
    "ceiling",
    "anchors",
    "run",
    "disagreement",
    "interval",
)
FIELDS = ("SRCC", "PLCC", "KRCC", "RMSE", "MAE", "MOS", "LMM", "held out", "leak")


def test_words_are_explained_in_order_and_once() -> None:
    text = (DOCS / "glossary.md").read_text("utf-8")
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", text, flags=re.MULTILINE)
    words = [word.partition(" (")[0] for word, _ in rows]
    assert words == sorted(set(words), key=str.lower)
    assert set(OURS + FIELDS) <= set(words)
    assert min(len(meaning.split()) for _, meaning in rows) >= 5


def test_pages_link_to_the_words() -> None:
    for page in sorted(DOCS.glob("*.md")):
        if page.name not in ("glossary.md", "adding.md", "python.md"):
            assert "glossary.md" in page.read_text("utf-8"), page.name
    assert "glossary.md" in (DOCS.parent / "README.md").read_text("utf-8")


def test_the_columns_of_scores_are_explained() -> None:
    page = (DOCS / "scoring.md").read_text("utf-8")
    text = page.partition("| column | what |")[2].partition("\n\n")[0]
    explained = [
        name
        for cell in re.findall(r"^\| (`[a-z].*?`) \| ", text, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    ]
    score = Score("a.png", 1.0, 0.0, 2.0, 0.0, {"EXPERT": 1.0}, {"NAME": 1.0})
    provenance = {"experts": ["EXPERT"], "targets": ["quality", "NAME"]}
    provenance |= {"target": "quality", "synthetic": False}
    assert sorted(explained) == sorted(record(score, provenance, {"prompt": str}))
