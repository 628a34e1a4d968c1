"""What a run says of its scores, and scores of real files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agiqa.runs.score import Score

EXPERTS = ["visual", "semantic_content", "coherence"]


@pytest.fixture(scope="session")
def provenance() -> dict[str, Any]:
    mos = {"low": 1.0, "high": 5.0}
    return {
        "experts": EXPERTS,
        "synthetic": False,
        "target": "quality",
        "dataset": "tiny",
        "mos": mos,
    }


@pytest.fixture(scope="session")
def ranked() -> Callable[[list[Path]], list[Score]]:
    """Scores from 5 down to 1 for files; the last expert weighs more the lower the score."""

    def scores(files: list[Path]) -> list[Score]:
        steps = max(len(files) - 1, 1)
        made = []
        for place, file in enumerate(files):
            share = place / steps
            gate = dict(zip(EXPERTS, (0.8 - share / 2, 0.1, 0.1 + share / 2), strict=True))
            score, disagreement = 5 - 4 * share, 0.01 * (place % 7)
            ends = score - 0.5, score + 0.5
            made.append(Score(str(file), score, *ends, disagreement, gate))
        return made

    return scores
