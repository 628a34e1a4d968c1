import json
from pathlib import Path
from typing import Any

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.views.report import results, write_report
from agiqa.views.report.results import ExplainedImages, read_explanations

ROWS = {"a.png": 0, "b.png": 1}


def written(run: Path, content: Any) -> Path:
    (run / "explanations").mkdir()
    (run / "explanations" / "explanations.json").write_text(json.dumps(content), "utf-8")
    return run


def of(overlay: str | None = None) -> dict[str, Any]:
    reason = {"aspect": "hands", "text": "odd", "answer": 0.1, "percentile": 2, "strength": 1.5}
    near = {"path": "b.png", "mos": 1.4, "score": 1.5, "similarity": 0.9}
    return {"overlay": overlay, "reasons": [reason], "neighbours": [near]}


def test_without_explanations_there_are_none(tmp_path: Path) -> None:
    assert read_explanations(tmp_path, ROWS, [0, 1]) == ExplainedImages()


def test_reasons_neighbours_maps_and_validity_are_read(tmp_path: Path) -> None:
    validity = {"aspect": "six_fingers", "rho_mos": 0.412, "rho_residual": -0.1,
                "low": 0.3, "high": 0.5}  # fmt: skip
    found = read_explanations(
        written(
            tmp_path,
            {
                "images": {"a.png": of("maps/a.png"), "elsewhere.png": of()},
                "reasons_validity": [validity],
                "deletion": {"area_marked": 0.25, "curve": [1, 2]},
            },
        ),
        ROWS,
        [1, 0],
    )
    assert found.available
    assert found.images == {
        0: {"reasons": [["hands", "odd", 0.1, 2, 1.5]], "neighbours": [[1, "b.png", 1.4, 1.5, 0.9]]}
    }
    assert found.overlays == {0: tmp_path / "explanations" / "maps" / "a.png"}
    assert found.validity == (("six fingers", "+0.41", "−0.10", "+0.30 … +0.50"),)
    assert found.deletion == (("area marked", "0.2500"),)


def test_a_map_outside_the_folder_is_refused(tmp_path: Path) -> None:
    run = written(tmp_path, {"images": {"a.png": of("../../secret.png")}})
    with pytest.raises(AgiqaError, match=r"secret\.png"):
        read_explanations(run, ROWS, [0])


@pytest.mark.parametrize("content", [[], {}, {"images": {"a.png": 3}}, {"images": []}])
def test_damage_is_named(tmp_path: Path, content: Any) -> None:
    with pytest.raises(AgiqaError, match=r"explanations\.json: damaged .*run `agiqa explain`"):
        read_explanations(written(tmp_path, content), ROWS, [0])


def test_what_has_no_room_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written(tmp_path, {"images": {"a.png": of(), "b.png": of()}})
    one = len(json.dumps(read_explanations(run, ROWS, [0]).images[0]))
    monkeypatch.setattr(results, "MOST_BYTES", one + 1)
    found = read_explanations(run, ROWS, [1, 0])
    assert list(found.images) == [1]
    assert found.left_out == 1


def test_a_map_that_is_gone_is_named_in_the_page(root: Path) -> None:
    written(root / "run", {"images": {"01 a&b.png": of("maps/gone.png")}})
    page = write_report([root / "run"], root / "cache" / "tiny", root / "report.html")
    assert "the map of 01 a&amp;b.png does not exist" in page.read_text("utf-8")
