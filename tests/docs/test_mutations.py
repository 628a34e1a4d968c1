"""Each line that `make mutations` breaks stands there once, and the tests for it are there."""

from kit.making import ROOT, load_script


def test_each_line_stands_once() -> None:
    for mutation in load_script("mutations").MUTATIONS:
        text = (ROOT / "pipeline/agiqa" / mutation.file).read_text("utf-8")
        assert text.count(mutation.line) == 1, mutation.promise
        assert (ROOT / "tests" / mutation.tests).is_file(), mutation.promise
