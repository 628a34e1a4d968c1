"""Each line that `make mutations` breaks stands there once, and the tests for it are there."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_line_stands_once() -> None:
    spec = importlib.util.spec_from_file_location("mutations", ROOT / "docs/making/mutations.py")
    assert spec is not None
    assert spec.loader is not None
    mutations = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutations)
    for mutation in mutations.MUTATIONS:
        text = (ROOT / "pipeline/agiqa" / mutation.file).read_text("utf-8")
        assert text.count(mutation.line) == 1, mutation.promise
        assert (ROOT / "tests" / mutation.tests).is_file(), mutation.promise
