"""`import agiqa`: what it offers is named once, loads when it is asked for, and takes text paths.

docs/python.md, which tests/docs follows, goes through all six steps.
"""

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import agiqa
from agiqa.runs.files import Evaluation


def test_every_name_is_there_as_the_type_checker_sees_it() -> None:
    tree = ast.parse(Path(str(agiqa.__file__)).read_text(encoding="utf-8"))
    seen = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("agiqa.")
        for alias in node.names
    }
    assert sorted(seen) == sorted([*agiqa.__all__, "ImageQuality"])  # needs an extra
    for name, origin in seen.items():
        loaded = getattr(agiqa, name)
        assert loaded.__name__ == origin.rpartition(".")[2] or loaded.__name__ == origin, name
    with pytest.raises(AttributeError, match="no attribute 'prepares'"):
        getattr(agiqa, "prepares")  # noqa: B009


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("agiqa.Params()", {"torch", "pandas", "numpy"}),
        ("import agiqa.runs.compare, agiqa.views.report.page, agiqa.views.tables", {"torch"}),
        ("agiqa.create_scorer", {"transformers", "accelerate", "scipy.stats"}),
    ],
)
def test_importing_loads_nothing_heavy(code: str, heavy: set[str]) -> None:
    code = f"import agiqa, sys\n{code}\nprint({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_settings_of_a_program_are_checked_as_a_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = agiqa.Params(fit=agiqa.Fit(lr=-1))
    with pytest.raises(agiqa.AgiqaError, match=r"params: 'fit\.lr' must be above 0, found -1"):
        agiqa.fit("mine", params=wrong)
    same = agiqa.Params(semantic=replace(agiqa.Semantic(), name="nano-vision"))
    with pytest.raises(agiqa.AgiqaError, match="are both 'nano-vision'"):
        agiqa.extract("mine", params=same)
    with pytest.raises(agiqa.AgiqaError, match="cache/mine"):
        agiqa.extract("mine")
    with pytest.raises(agiqa.AgiqaError, match="'demo' is read as demo"):
        agiqa.prepare("demo", agiqa.Source(image_column="file"))
    assert not list(tmp_path.iterdir())


def test_an_evaluation_is_a_line_at_the_end_of_a_cell() -> None:
    about = {"dataset": "mine", "target": "mos", "protocol": "grouped"}
    models = {"moe": {"srcc": {"median": 0.9}}, "ridge": {"srcc": {"median": None}}}
    shown = repr(Evaluation(pd.DataFrame({"score": range(999)}), {**about, "models": models}))
    assert shown == "Evaluation(mine, mos, grouped; median SRCC {'moe': 0.9, 'ridge': None})"
