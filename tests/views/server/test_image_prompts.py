"""A run whose prompt set asks for the text that an image was generated from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit.command import agiqa


@pytest.fixture
def told(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, write_prompts: Callable[..., str]
) -> str:
    """Such a run, of the workspace's images."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("AGIQA_STORE", str(workspace / "ledger"))
    rows = (workspace / "images/labels.csv").read_text().splitlines()
    rows = [rows[0] + ",prompt"] + [f"{row},a {place // 4}" for place, row in enumerate(rows[1:])]
    (workspace / "images/told.csv").write_text("\n".join(rows) + "\n")
    given = ["--score-column", "quality", "--prompt-column", "prompt"]
    prompts = write_prompts({"match": "Does it show {image_prompt}?", "whole": "Is it whole?"})
    ours = ["--set", f"semantic.prompts={prompts}", "--set", "semantic.name=told"]
    for command in (
        ["prepare", "told", "--from", "images/told.csv", *given],
        ["extract", "told", *ours],
        ["fit", "told", *ours],
    ):
        agiqa(*command)
    return "runs/told/grouped"


@pytest.mark.slow
def test_prompts_are_needed_and_change_the_score(
    told: str, workspace: Path, serve: Callable[..., Any]
) -> None:
    image = (workspace / "images/00.png").read_bytes()
    files = [("images", (f"{n}.png", image)) for n in range(2)]
    with serve(run=told) as served, httpx.Client(base_url=served.url, timeout=300) as client:
        facts = client.get("/api/v1/run").json()
        assert facts["asks_image_prompt"] is True
        assert facts["tested"] is None  # not evaluated
        without = client.post("/api/v1/scores", files=files)
        assert without.status_code == 400
        assert "asks for the text that an image was generated from" in without.json()["detail"]
        prompts = {"image_prompts": ["a corgi", "a very long walk on the beach"]}
        one, other = client.post("/api/v1/scores", files=files, data=prompts).json()["scores"]
        assert one["image_id"] == other["image_id"]
        assert one["score"] != other["score"]
        again = client.post("/api/v1/scores", files=files[:1], data={"image_prompts": ["a corgi"]})
        (same,) = again.json()["scores"]
        assert (same["score"], same["cached"]) == (one["score"], True)
